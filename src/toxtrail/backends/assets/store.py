"""The asset cache: resolves every address, and returns only verified files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toxtrail.backends.assets.local import LocalFiles
from toxtrail.backends.assets.scheme import AssetContext, CachedAsset, scheme_module
from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import FileUri, parse_uri


class AssetStore:
    """Cache of assets that verifies them each time they are fetched."""

    def __init__(
        self, cache: Path, root: Path, progress: Progress, outside: Iterable[str] = ()
    ) -> None:
        """Args:
        root: the experiment's folder.
        outside: files and folders outside it that file: addresses may name.
        """
        self._local = LocalFiles(root, outside)
        self._context = AssetContext(self._local, cache, progress)

    def fetch(self, uri: str, sha256: str | None) -> Asset:
        """Fetch a verified local copy of an asset.

        Args:
            uri: see `toxtrail.config.asset_uris`; a relative file: path starts at the
                experiment's root.
            sha256: the pin, of the file or of the tree of files; None to accept any content.

        Raises:
            BackendError: it is not available, is outside the experiment without permission, or its
            content differs from the pin (the message has both hashes).
        """
        address = parse_uri(uri)
        return scheme_module(address).fetch(uri, address, sha256, self._context)

    def present(self, uri: str, resolved: str | None) -> CachedAsset | None:
        """Find the files that are already on this machine; nothing is downloaded or verified."""
        address = parse_uri(uri)
        return scheme_module(address).find_cached(address, resolved, self._context)

    def why_not_used(self, uri: str) -> str | None:
        """Explain why this experiment may not use a local asset; None if it may."""
        address = parse_uri(uri)
        return self._local.problem(address.path) if isinstance(address, FileUri) else None

    def outside(self, uri: str) -> Path | None:
        """Return the path of a local asset outside the experiment; None for any other asset."""
        address = parse_uri(uri)
        if not isinstance(address, FileUri) or not self._local.is_outside(address.path):
            return None
        return self._local.resolve(address.path).resolve()

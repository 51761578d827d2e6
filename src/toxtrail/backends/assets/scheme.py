"""Interface of the module of an asset scheme."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import AssetUri

if TYPE_CHECKING:
    from toxtrail.backends.assets.local import LocalFiles


class AssetContext(NamedTuple):
    """Locations of an experiment's assets."""

    local: LocalFiles
    """Resolver of file: addresses."""
    cache: Path
    """Folder of downloads."""
    progress: Progress


class CachedAsset(NamedTuple):
    """An asset's local files."""

    root: Path
    """The folder to which names are relative."""
    files: tuple[Path, ...]


class SchemeModule(Protocol):
    """Interface of a scheme's module; `address` is an instance of the scheme's class."""

    def fetch(self, uri: str, address: Any, sha256: str | None, context: AssetContext) -> Asset:
        """Fetch an asset, and compare it with its pin."""
        ...

    def find_cached(
        self, address: Any, resolved: str | None, context: AssetContext
    ) -> CachedAsset | None:
        """Find the files that are already on this machine; None if they are not, or may not be
        used. Nothing is downloaded or verified.

        Args:
            resolved: the commit to which an hf: address resolved when it was used.
        """
        ...

    def download_url(self, address: Any) -> str | None:
        """Return the URL of a single file to download; None if it is not one, or unknown."""
        ...


def scheme_module(address: AssetUri) -> SchemeModule:
    """Import the module of an address's scheme."""
    return cast(SchemeModule, import_module(address.module))

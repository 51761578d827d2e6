"""What of an asset already lies on this machine: nothing is fetched, nothing is judged."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.assets.detoxify_checkpoints import released_urls
from toxtrail.backends.assets.hub import cached_hub
from toxtrail.backends.assets.local import LocalFiles, content_of
from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, parse_uri
from toxtrail.errors import ToxtrailError
from toxtrail.regular_files import is_file


class Present(NamedTuple):
    """An asset's files as they lie here."""

    root: Path
    """The folder that names are relative to."""
    files: tuple[Path, ...]


def present(uri: str, resolved: str | None, local: LocalFiles, cache: Path) -> Present | None:
    """The files of an asset; None if it is not on this machine, or may not be used.

    Args:
        resolved: the commit that an hf: address meant when it was used.
        local: where file: addresses lead.
    """
    address = parse_uri(uri)
    if isinstance(address, FileUri):
        return None if local.problem(address.path) else _here(local.place(address.path))
    if isinstance(address, HfUri):
        revision = resolved or address.revision or "main"
        found = cached_hub(address, revision)
        return Present(found[0], tuple(found[1])) if found else None
    if isinstance(address, DetoxifyUri):
        try:
            name = released_urls()[address.name].rsplit("/", 1)[1]
        except (ToxtrailError, KeyError):
            return None
        return _here(cache / "detoxify" / name)
    return _here(cache / "pypi" / f"{address.package}-{address.version}" / address.path)


def _here(path: Path) -> Present | None:
    """See `present`.

    Raises:
        OSError: it is there, and cannot be read.
    """
    if is_file(path):
        return Present(path.parent, (path,))
    files = tuple(p for p in content_of(path) if is_file(p))
    return Present(path, files) if files else None

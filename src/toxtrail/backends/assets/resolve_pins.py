"""Pins: the content that every asset URI refers to now."""

from __future__ import annotations

from collections.abc import Iterable

from toxtrail.backends.protocols import Assets
from toxtrail.config.asset_uris import COMMIT, FileUri, HfUri, parse_uri
from toxtrail.config.schema import Source
from toxtrail.config.write_pins import Pin
from toxtrail.errors import BackendError


def resolve_pins(sources: Iterable[tuple[str, Source]], assets: Assets) -> list[Pin]:
    """Fetch every asset and say what it is: a commit for hf:, a sha256 for everything else.

    A remote asset keeps the pin it has: new content under an old address is refused, not accepted.
    A local file's pin follows the file: running this is how its owner accepts the change.

    Raises:
        BackendError: an asset cannot be had, or is not what its pin says.
    """
    return [_resolved(place, source, assets) for place, source in sources]


def _resolved(place: str, source: Source, assets: Assets) -> Pin:
    address = parse_uri(source.uri)
    asset = assets.fetch(source.uri, None if isinstance(address, FileUri) else source.sha256)
    new_uri: str = source.uri
    sha256: str | None = asset.sha256
    if isinstance(address, HfUri):
        new_uri, sha256 = _at_commit(place, address, asset.resolved), source.sha256
    changed = (new_uri, sha256) != (source.uri, source.sha256)
    return Pin(place, source.uri, new_uri, sha256, changed)


def _at_commit(place: str, address: HfUri, commit: str) -> str:
    if not COMMIT.fullmatch(commit):
        raise BackendError(f"{place}: hf:{address.repo} resolved to {commit!r}, no 40-hex commit.")
    kind = "datasets/" if address.repo_type == "dataset" else ""
    path = f"/{address.path}" if address.path else ""
    return f"hf:{kind}{address.repo}@{commit}{path}"

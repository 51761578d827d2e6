"""Resolve every asset address to a pin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from toxtrail.backends.protocols import Assets
from toxtrail.config.asset_uris import COMMIT, FileUri, HfUri, parse_uri
from toxtrail.config.edit_params import Pin
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import BackendError


def resolve_pins(sources: Iterable[tuple[str, PinnedAsset]], assets: Assets) -> list[Pin]:
    """Fetch every asset and resolve it: a commit for hf:, a sha256 for everything else.

    A remote asset keeps its pin: new content under an old address is refused.
    A local file's pin is updated: running this accepts a change of the file.

    Raises:
        BackendError: an asset is not available, or differs from its pin.
    """
    return [_resolve_pin(key_path, source, assets) for key_path, source in sources]


def _resolve_pin(key_path: str, source: PinnedAsset, assets: Assets) -> Pin:
    address = parse_uri(source.uri)
    asset = assets.fetch(source.uri, None if isinstance(address, FileUri) else source.sha256)
    new_uri: str = source.uri
    sha256: str | None = asset.sha256
    if isinstance(address, HfUri):
        new_uri, sha256 = _at_commit(key_path, address, asset.resolved), source.sha256
    changed = (new_uri, sha256) != (source.uri, source.sha256)
    return Pin(key_path, source.uri, new_uri, sha256, changed)


def _at_commit(key_path: str, address: HfUri, commit: str) -> str:
    if not COMMIT.fullmatch(commit):
        raise BackendError(
            f"{key_path}: hf:{address.repo} resolved to {commit!r}; expected a 40-hex commit."
        )
    return str(replace(address, revision=commit))

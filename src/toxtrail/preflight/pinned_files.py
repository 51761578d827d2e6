"""Local files that are not what params.yaml pins, or not what a result was made from."""

from __future__ import annotations

from collections.abc import Iterator

from toxtrail.backends.protocols import Assets
from toxtrail.config.asset_uris import FileUri, parse_uri
from toxtrail.config.schema import Config, Source
from toxtrail.errors import ToxtrailError
from toxtrail.provenance.embedded_manifest import embedded_manifest
from toxtrail.storage.artifacts import Store


def drifted_files(config: Config, store: Store, assets: Assets) -> list[str]:
    """One line for each local asset that is missing, edited after it was pinned, or (if it has no
    pin) edited after a result was made from it. DVC cannot see this: it follows params.yaml.
    """
    used = dict(used_hashes(config, store))
    found: list[str] = []
    for place, source in config.sources():
        if isinstance(parse_uri(source.uri), FileUri):
            found += _drift(place, source, used.get(place), assets)
    return found


def _drift(place: str, source: Source, used: str | None, assets: Assets) -> Iterator[str]:
    try:
        asset = assets.fetch(source.uri, source.sha256)
    except ToxtrailError as error:
        yield f"{place}: {error}"
        return
    if source.sha256 is None and used is not None and used != asset.sha256:
        yield (
            f"{place}: {source.uri} was changed after results were made from it (then {used}, now "
            f"{asset.sha256}). Run `toxtrail pin` to accept the change; `dvc repro` then uses it."
        )


def used_hashes(config: Config, store: Store) -> Iterator[tuple[str, str]]:
    """(place in params.yaml, sha256 that the present results were made from)."""
    if store.prompts.is_file() and (manifest := embedded_manifest(store.prompts)):
        for key, source in manifest.inputs.items():
            yield f"prompts.subsets.{key}", source.sha256
    for key in [*config.models, *config.finetunes]:
        if not (store.model(key) / "model.json").is_file():
            continue
        card = store.read_card(key)
        if key in config.models:
            yield f"models.{key}", card.base.sha256
            for adapter in card.adapters:
                yield f"models.{key}.adapter", adapter.sha256
        elif card.adapters and (training := card.adapters[-1].training):
            yield f"finetunes.{key}.data", training.data_sha256

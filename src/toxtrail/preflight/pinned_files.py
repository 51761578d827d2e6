"""Local files that differ from their pins in params.yaml, or from the inputs of a result."""

from __future__ import annotations

from collections.abc import Iterator

from toxtrail.backends.protocols import Assets
from toxtrail.config.asset_uris import FileUri, parse_uri
from toxtrail.config.plugins import usage_problem
from toxtrail.config.schema import Config
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import ToxtrailError
from toxtrail.execution.factories import make_asset_store
from toxtrail.experiment import Experiment
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.storage.artifacts import ArtifactStore


def pin_problems(experiment: Experiment) -> list[str]:
    """Return one line for each local file or plug-in of an experiment that does not match its
    pin."""
    files = drifted_files(experiment.config, experiment.store, make_asset_store(experiment))
    return [*files, *plugin_problems(experiment.config)]


def plugin_problems(config: Config) -> list[str]:
    """Return one line for each plug-in that is missing or not the pinned one. See usage_problem."""
    problems = (usage_problem(*entry) for entry in config.plugin_entries())
    return [problem for problem in problems if problem is not None]


def drifted_files(config: Config, store: ArtifactStore, assets: Assets) -> list[str]:
    """Return one line for each local asset that is missing, edited after it was pinned, or (without
    a pin) edited after a result was computed from it.

    DVC does not detect this, because it tracks params.yaml only.
    """
    used = dict(hashes_used_by_results(config, store))
    problems: list[str] = []
    for key_path, source in config.sources():
        if isinstance(parse_uri(source.uri), FileUri):
            problems += _drift(key_path, source, used.get(key_path), assets)
    return problems


def _drift(key_path: str, source: PinnedAsset, used: str | None, assets: Assets) -> Iterator[str]:
    try:
        asset = assets.fetch(source.uri, source.sha256)
    except ToxtrailError as error:
        yield f"{key_path}: {error}"
        return
    if source.sha256 is None and used is not None and used != asset.sha256:
        yield (
            f"{key_path}: {source.uri} was changed after results were made from it (then {used}, "
            f"now {asset.sha256}). Run `toxtrail pin` to accept the change; `dvc repro` then uses "
            "it."
        )


def hashes_used_by_results(config: Config, store: ArtifactStore) -> Iterator[tuple[str, str]]:
    """Yield (key in params.yaml, sha256 of the file used by the current results)."""
    if store.prompts_path.is_file() and (manifest := read_embedded_manifest(store.prompts_path)):
        for key, source in manifest.inputs.items():
            yield f"prompts.subsets.{key}", source.sha256
    for key in [*config.models, *config.finetunes]:
        if not (store.model_dir(key) / "model.json").is_file():
            continue
        card = store.read_card(key)
        if key in config.models:
            yield f"models.{key}", card.base.sha256
            for adapter in card.adapters:
                yield f"models.{key}.adapter", adapter.sha256
        elif card.adapters and (training := card.adapters[-1].training):
            yield f"finetunes.{key}.data", training.data_sha256

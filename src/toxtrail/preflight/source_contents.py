"""Check before a run that the local sources have the contents that params.yaml requires."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from toxtrail.backends.assets.scheme import CachedAsset
from toxtrail.backends.checkpoint_files.weight_files import inspect_weights
from toxtrail.backends.scorers.load import known_heads
from toxtrail.config.asset_uris import FileUri, parse_uri
from toxtrail.config.schema import (
    Config,
    FinetuneConfig,
    ModelConfig,
    SubsetConfig,
    TextsConfig,
    TrainingDataConfig,
)
from toxtrail.config.scorer_kinds.plugin import MissingPluginConfig
from toxtrail.config.sections import PinnedAsset
from toxtrail.datasets.generated_texts import read_generated_texts
from toxtrail.datasets.instruction_data import read_training_data, split_training_data
from toxtrail.datasets.prompt_selection import read_subset, sample_prompts
from toxtrail.datasets.readers.csv_rows import TAB, shown, unusual_delimiter
from toxtrail.errors import ToxtrailError, did_you_mean
from toxtrail.execution.generate_rows import refuse_conversations
from toxtrail.records.rows import Prompt


class LocalAssets(Protocol):
    """Lookup of the local files of assets."""

    def present(self, uri: str, resolved: str | None) -> CachedAsset | None: ...


def unreadable_sources(config: Config, assets: LocalAssets) -> list[str]:
    """Return one line for each local source of prompts, texts or instructions that lacks contents
    or does not fit the settings: a missing column, nothing left by a filter, too few prompts,
    conversations without a chat template."""
    readers: list[tuple[PinnedAsset, Callable[[Path], object]]] = [
        *(
            (source_config, partial(_check_subset, key=key, config=source_config, whole=config))
            for key, source_config in config.prompts.subsets.items()
        ),
        *(
            (model, partial(_read_texts, key=key, config=model.texts))
            for key, model in config.models.items()
            if model.texts is not None
        ),
        *(
            (source_config.data, partial(_read_training_data, key=k, config=source_config))
            for k, source_config in config.finetunes.items()
        ),
    ]
    return [line for source, read in readers for line in _read_problem(source, assets, read)]


def unknown_heads(config: Config, assets: LocalAssets) -> list[str]:
    """Return one line for each scorer without a head of the configured name, where known."""
    problems = []
    for key, scorer in config.scoring.scorers.items():
        if isinstance(scorer, MissingPluginConfig):
            continue
        local_asset = assets.present(scorer.uri, None) if scorer.is_classifier_folder else None
        heads = known_heads(scorer, local_asset.root if local_asset else None)
        problems += [
            f'scoring.scorers.{key}.head: {scorer.uri} has no head "{head}".'
            f"{did_you_mean(head, heads)}"
            for head in scorer.required_heads
            if heads and head not in heads
        ]
    return problems


def unmeasured_golden_texts(config: Config) -> list[str]:
    """Return one line for each scorer with golden texts whose score is not measured yet."""
    unmeasured = {
        key: sum(golden.score is None for golden in scorer.golden)
        for key, scorer in config.scoring.scorers.items()
    }
    return [
        f"scoring.scorers.{key}.golden: {count} without a score, with which the scorer is not "
        "compared. `toxtrail scorers measure` measures and writes them."
        for key, count in unmeasured.items()
        if count
    ]


def lexical_scorers_only(config: Config) -> list[str]:
    """Return one line if the embedded scorer is the only one. Whether the servers of another can be
    reached is not tested, which would take time on a machine without a network."""
    if any(scorer.kind != "jigsaw-bilstm" for scorer in config.scoring.scorers.values()):
        return []
    return [
        "scoring.scorers: the embedded scorer is lexical. Where the Hugging Face hub and GitHub "
        "can be reached, `toxtrail scorers add detoxify-unbiased` adds Detoxify."
    ]


def damaged_weights(config: Config, assets: LocalAssets) -> list[str]:
    """Return one line for each local model, adapter and classifier whose weight files are
    incomplete or not among the hashed files; only headers are read."""
    sources: list[tuple[str, PinnedAsset]] = [
        *(
            (key_path, source_config)
            for key_path, source_config in config.sources()
            if key_path.startswith("models.")
            and not (isinstance(source_config, ModelConfig) and source_config.texts)
        ),
        *(
            (f"scoring.scorers.{key}", source_config)
            for key, source_config in config.scoring.scorers.items()
            if source_config.is_classifier_folder
        ),
    ]
    problems = []
    for key_path, source in sources:
        local = isinstance(parse_uri(source.uri), FileUri)  # a repo may be here in part
        local_asset = assets.present(source.uri, None) if local else None
        if local_asset is None:
            continue
        single = len(local_asset.files) == 1 and local_asset.files[0].suffix.lower() == ".gguf"
        hashed = {file.relative_to(local_asset.root).as_posix() for file in local_asset.files}
        try:
            inspect_weights(
                local_asset.files[0] if single else local_asset.root, source.uri, hashed
            )
        except ToxtrailError as error:
            problems.append(f"{key_path}: {error}")
    return problems


def detected_delimiters(config: Config, assets: LocalAssets) -> list[str]:
    """Return one line for each local .csv source whose delimiter is detected from its header."""
    sources: list[tuple[str, SubsetConfig | TrainingDataConfig]] = [
        *(
            (f"prompts.subsets.{key}", source_config)
            for key, source_config in config.prompts.subsets.items()
        ),
        *(
            (f"finetunes.{key}.data", source_config.data)
            for key, source_config in config.finetunes.items()
        ),
    ]
    return [
        f"{key_path}: {source_config.uri} is read with the delimiter {shown(mark)}, because its "
        "header has no comma. To set it in params.yaml: delimiter: "
        f"{TAB if mark == chr(9) else repr(mark)}"
        for key_path, source_config in sources
        if source_config.delimiter is None and (mark := _detected_delimiter(source_config, assets))
    ]


class InClusters(NamedTuple):
    """Prompts and clusters of a subset with a cluster column, from a local source."""

    subset: str
    prompts: int
    clusters: int


def prompts_in_clusters(config: Config, assets: LocalAssets) -> list[InClusters]:
    """Return prompts and clusters of each subset with a cluster column and a readable source."""
    counts = []
    for key, subset_config in config.prompts.subsets.items():
        local_asset = assets.present(subset_config.uri, None) if subset_config.cluster else None
        if local_asset is None or len(local_asset.files) != 1:
            continue
        try:
            prompts = _read_subset(local_asset.files[0], key, subset_config, config.prompts.seed)
        except ToxtrailError:
            continue  # `unreadable_sources` names it
        counts.append(InClusters(key, len(prompts), len({p.cluster for p in prompts})))
    return counts


def _detected_delimiter(source: PinnedAsset, assets: LocalAssets) -> str | None:
    local_asset = assets.present(source.uri, None)
    if local_asset is None or len(local_asset.files) != 1:
        return None
    try:
        return unusual_delimiter(local_asset.files[0], None)
    except ToxtrailError:
        return None  # `unreadable_sources` names it


def _read_training_data(path: Path, key: str, config: FinetuneConfig) -> None:
    split_training_data(key, read_training_data(path, key, config), config)


def _read_texts(path: Path, key: str, config: TextsConfig) -> None:
    try:
        read_generated_texts(path, config)
    except ToxtrailError as error:
        raise type(error)(f"models.{key}: {error}") from None


def _read_subset(path: Path, key: str, config: SubsetConfig, seed: int) -> list[Prompt]:
    return sample_prompts(read_subset(path, key, config), key, config, seed)


def _check_subset(path: Path, key: str, config: SubsetConfig, whole: Config) -> None:
    prompts = _read_subset(path, key, config, whole.prompts.seed)
    refuse_conversations(prompts, whole.generation)


def _read_problem(
    source: PinnedAsset, assets: LocalAssets, read: Callable[[Path], object]
) -> Iterator[str]:
    local_asset = assets.present(source.uri, None)
    if local_asset is None or len(local_asset.files) != 1:
        return
    try:
        read(local_asset.files[0])
    except ToxtrailError as error:
        yield str(error)

"""Generate: how does the variant continue every prompt?

reads   data/prompts.parquet, models/<variant>/, and the file of texts of a variant that has one
writes  data/generations/<family>/<variant>.parquet    (prompt_id, sample) -> text, tokens, state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.analysis.text_matching import TextCounts, match_texts
from toxtrail.backends.protocols import Assets, LanguageModel, ProcessGroup, Progress
from toxtrail.config.schema import GenerationConfig, TextsConfig, VariantConfig
from toxtrail.datasets.generated_texts import read_generated_texts
from toxtrail.execution.generate_rows import (
    collect_generations,
    generate,
    refuse_many_errors,
    rows_identity,
)
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile, Manifest
from toxtrail.records.rows import Prompt
from toxtrail.storage.artifacts import ArtifactStore
from toxtrail.storage.row_journal import RowJournal


def run(
    store: ArtifactStore,
    variant: str,
    variant_config: VariantConfig,
    config: GenerationConfig,
    model: LanguageModel,
    environment: Mapping[str, str],
    progress: Progress,
    group: ProcessGroup,
) -> dict[str, float]:
    """Read, generate, write (the first process only); return the counts of `generate`."""
    manifest = generation_manifest(store, variant, variant_config, config, environment)
    prompts, rank = store.read_prompts(), group.number
    with store.row_journal("generate", variant, rows_identity(manifest), rank) as rows:
        work = generate(prompts, model, config, rows, progress, group)
        rows.sync()
        group.wait()
        if rank == 0:
            _write(store, variant_config.family, prompts, config, rows, manifest)
        group.wait()
    return work


def generation_manifest(
    store: ArtifactStore,
    variant: str,
    variant_config: VariantConfig,
    config: GenerationConfig,
    environment: Mapping[str, str],
) -> Manifest:
    """Return the manifest of this stage's output."""
    name = variant_config.served_model_name
    served = {} if name is None else {"served_model_name": name}
    return manifest_of(
        "generate",
        variant,
        {"generation": config.plain(), **served},
        _inputs(store, variant),
        environment,
        store.read_card(variant),
    )


def run_texts(
    store: ArtifactStore,
    variant: str,
    family: str,
    texts: TextsConfig,
    config: GenerationConfig,
    assets: Assets,
) -> TextCounts:
    """Match the variant's file of texts with the prompts and write the rows.

    Raises:
        BackendError: the file is not the pinned one, or too many rows have no text.
    """
    card, params = store.read_card(variant), texts_params(config, texts)
    file = assets.fetch(card.base.uri, card.base.sha256).path
    read = read_generated_texts(file, texts)
    match = match_texts(store.read_prompts(), read, config.samples, config.markers)
    refuse_many_errors(match.rows, config.max_error_share)
    manifest = manifest_of("generate", variant, params, _inputs(store, variant), {}, card)
    manifest = manifest.model_copy(update={"counts": match.counts._asdict()})
    store.write_generations(family, variant, match.rows, manifest)
    return match.counts


def texts_params(config: GenerationConfig, texts: TextsConfig) -> dict[str, Any]:
    """Return the settings that apply to rows from a file; the other generation settings do not."""
    applied = {"samples", "max_error_share", "thought"}
    settings = {k: v for k, v in config.plain().items() if k in applied}
    return {"generation": settings, "texts": texts.plain()}


def _inputs(store: ArtifactStore, variant: str) -> dict[str, InputFile]:
    files = {"prompts": store.prompts_path, "model": store.model_dir(variant) / "model.json"}
    return {name: store.describe_input(path) for name, path in files.items()}


def _write(
    store: ArtifactStore,
    family: str,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    rows: RowJournal,
    manifest: Manifest,
) -> None:
    """Write the rows of all processes as one file."""
    rows.reload()
    generations = collect_generations(prompts, config, rows)
    store.write_generations(family, str(manifest.key), generations, manifest)
    rows.delete_other_identities()

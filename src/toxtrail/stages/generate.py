"""Generate: how does the variant continue every prompt?

reads   data/prompts.parquet, models/<variant>/, and the file of texts of a variant that has one
writes  data/generations/<family>/<variant>.parquet    (prompt_id, sample) -> text, tokens, state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from toxtrail.execution.generation_params import generation_params, texts_params
from toxtrail.execution.server_rows import api_responses
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
    card, inputs = store.read_card(variant), _inputs(store, variant)
    params = generation_params(config, card.api.model if card.api else None, variant_config)
    return manifest_of("generate", variant, params, inputs, environment, card)


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
    if "api_model" in manifest.params:
        manifest = manifest.model_copy(update={"api": api_responses(generations)})
    store.write_generations(family, str(manifest.key), generations, manifest)
    rows.delete_other_identities()

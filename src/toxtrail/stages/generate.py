"""Generate: how does the variant continue every prompt?

reads   data/prompts.parquet, models/<variant>/
writes  data/generations/<family>/<variant>.parquet    (prompt_id, sample) -> text, tokens, state
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toxtrail.backends.protocols import LanguageModel, ProcessGroup, Progress
from toxtrail.config.schema import GenerationConfig, VariantConfig
from toxtrail.execution.generate_rows import collect_generations, generate, rows_identity
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import Manifest
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
    """Read, generate, write; of several processes, the first one writes. What `generate` did."""
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
    """The identity of what this stage is about to make."""
    card = store.model_dir(variant) / "model.json"
    served = {} if variant_config.served_as is None else {"served_as": variant_config.served_as}
    return manifest_of(
        "generate",
        variant,
        {"generation": config.plain(), **served},
        {"prompts": store.describe_input(store.prompts_path), "model": store.describe_input(card)},
        environment,
        store.read_card(variant),
    )


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

"""Track: log a variant as one sealed MLflow run.

reads   the prompts and their card, model card, generations, scores and posterior of the variant
writes  the run, and mlruns/receipts/variants/<family>/<variant>.json after the run is complete
"""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.protocols import RunContent, Tracker, TrackingFacts
from toxtrail.config.schema import VariantConfig
from toxtrail.execution.execution_records import damaged_records, read_executions
from toxtrail.records.results import VariantSummary
from toxtrail.regular_files import read_text
from toxtrail.reporting.mlflow_run import VariantFiles, build_receipt, variant_run
from toxtrail.storage.artifacts import ArtifactStore, existing_files

OPTIONAL = ("loss.csv", "data_card.json")


def run(
    store: ArtifactStore,
    variant: str,
    variant_config: VariantConfig,
    tracker: Tracker,
    facts: TrackingFacts,
) -> list[str]:
    """Collect, publish, write the receipt.

    Returns:
        Warnings for the user.
    """
    content = variant_content(store, variant, variant_config, facts)
    published = tracker.publish(content)
    receipt = store.variant_receipt_path(variant_config.family, variant)
    store.write_json(receipt, build_receipt(content))
    return [*damaged_records(store, variant), *published.remarks]


def variant_content(
    store: ArtifactStore, variant: str, variant_config: VariantConfig, facts: TrackingFacts
) -> RunContent:
    """Return the contents of a variant's run.

    Args:
        facts: facts of the publication, which are not part of the identity.
    """
    family = variant_config.family
    files = _files(store, family, variant)
    results = VariantFiles(
        store.read_results(VariantSummary, store.posterior_dir(family, variant)),
        store.read_card(variant),
        store.read_prompts(),
        store.read_generations(family, variant),
        store.read_scores(family, variant),
        read_executions(store, variant, files),
        read_text(files["loss.csv"]) if "loss.csv" in files else None,
    )
    snapshot = existing_files(store.root, "params.yaml", "dvc.lock")
    return variant_run(variant, variant_config, results, files, snapshot, facts)


def _files(store: ArtifactStore, family: str, variant: str) -> dict[str, Path]:
    """Return name in the run -> file; only a fine-tune has a loss curve and a data card."""
    files = store.variant_run_files(family, variant)
    return {n: path for n, path in files.items() if n not in OPTIONAL or path.is_file()}

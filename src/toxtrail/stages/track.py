"""Track: log a variant, or a family's comparison, as one sealed MLflow run.

reads   the prompts, model card, generations, scores and posterior of a variant; or a comparison
writes  the run, and mlruns/receipts/variants/<family>/<variant>.json or
        mlruns/receipts/families/<family>.json after the run is complete
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toxtrail.backends.protocols import RunContent, Tracker
from toxtrail.config.schema import VariantConfig
from toxtrail.errors import DataError
from toxtrail.provenance.identity import Manifest, canonical_json, sha256_file, sha256_text
from toxtrail.regular_files import read_text
from toxtrail.reporting.mlflow_page import (
    behaviour_metrics,
    comparison_description,
    comparison_tags,
    generation_table,
    intoto_statement,
    pair_metrics,
    rate_metrics,
    run_adapter,
    run_datasets,
    run_params,
    variant_description,
    variant_tags,
    verdict_tags,
)
from toxtrail.storage.artifacts import ArtifactStore


def run_variant(
    store: ArtifactStore,
    variant: str,
    variant_config: VariantConfig,
    tracker: Tracker,
    facts: Mapping[str, str],
) -> list[str]:
    """Collect, publish, write the receipt.

    Returns:
        Warnings for the user.
    """
    receipt = store.variant_receipt_path(variant_config.family, variant)
    remarks = _publish(
        store, receipt, variant_content(store, variant, variant_config, facts), tracker
    )
    return [*_damaged_records(store, variant), *remarks]


def run_comparison(
    store: ArtifactStore, family: str, tracker: Tracker, facts: Mapping[str, str]
) -> list[str]:
    """Collect, publish, write the receipt. See run_variant."""
    receipt = store.family_receipt_path(family)
    return _publish(store, receipt, comparison_content(store, family, facts), tracker)


def build_receipt(content: RunContent) -> dict[str, str]:
    """Return what dvc.lock records of a run: nothing that changes if it is tracked again."""
    return {"content_key": content.content_key, "seal": sha256_text(content.manifest)}


def variant_content(
    store: ArtifactStore, variant: str, variant_config: VariantConfig, facts: Mapping[str, str]
) -> RunContent:
    """Return the contents of a variant's run.

    Args:
        facts: current tags that are not part of the identity (commit, dirty flag, ...).
    """
    posterior = store.posterior_dir(variant_config.family, variant)
    files = {
        "model.json": store.model_dir(variant) / "model.json",
        "prompts.parquet": store.prompts_path,
        "generations.parquet": store.generations_path(variant_config.family, variant),
        "scores.parquet": store.scores_path(variant_config.family, variant),
        "posterior/summary.json": posterior / "summary.json",
        "posterior/posterior.nc": posterior / "posterior.nc",
        **_existing_files(store.model_dir(variant), "loss.csv", "data_card.json"),
    }
    summary, card = store.read_summary(posterior), store.read_card(variant)
    manifest, executions = _manifest(summary), _executions(store, variant, files)
    table = generation_table(
        store.read_prompts(),
        store.read_generations(variant_config.family, variant),
        store.read_scores(variant_config.family, variant),
        summary["primary"],
    )
    return RunContent(
        name=variant,
        content_key=manifest.content_key,
        manifest=canonical_json(intoto_statement(manifest, files)),
        description=variant_description(variant, variant_config, summary, card),
        tags={**variant_tags(variant_config, card, summary, files), **facts},
        params=run_params(manifest),
        metrics={
            **rate_metrics(summary["rates"]),
            **behaviour_metrics(summary["behaviour"]),
            **_cost(executions),
        },
        curves=_loss_curves(files.get("loss.csv")),
        inputs=run_datasets(manifest, card),
        files={**files, **_existing_files(store.root, "params.yaml", "dvc.lock")},
        texts={"executions.json": json.dumps(executions, sort_keys=True, indent=1)},
        tables={"tables/generations.json": table},
        adapter=run_adapter(variant, card),
        primary_metric=f"{summary['primary']}/all/rate_pct",
    )


def comparison_content(store: ArtifactStore, family: str, facts: Mapping[str, str]) -> RunContent:
    """Return the contents of the run of a family's comparison."""
    folder = store.comparison_dir(family)
    pooled = store.pooled_dir(family)
    files = {
        **{path.name: path for path in sorted(folder.iterdir())},
        **{f"pooled/{path.name}": path for path in sorted(pooled.iterdir())},
    }
    summary = store.read_summary(folder)
    manifest = _manifest(summary)
    return RunContent(
        name=f"{family} comparison",
        content_key=manifest.content_key,
        manifest=canonical_json(intoto_statement(manifest, files)),
        description=comparison_description(family, summary),
        tags={**comparison_tags(family, summary), **facts},
        params={
            **run_params(manifest),
            **{f"variant.{v['variant']}": v["content_key"] for v in summary["variants"]},
        },
        metrics=pair_metrics(summary["pairs"]),
        files={**files, **_existing_files(store.root, "params.yaml", "dvc.lock")},
        notes=verdict_tags(summary, manifest.content_key),
    )


def _publish(
    store: ArtifactStore, receipt: Path, content: RunContent, tracker: Tracker
) -> list[str]:
    """Publish, then write the receipt."""
    published = tracker.publish(content)
    store.write_json(receipt, build_receipt(content))
    return list(published.remarks)


def _manifest(summary: Mapping[str, Any]) -> Manifest:
    return Manifest.model_validate_json(canonical_json(summary["manifest"]))


def _existing_files(folder: Path, *names: str) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}


def _loss_curves(loss: Path | None) -> dict[str, list[tuple[int, float]]]:
    if loss is None:
        return {}
    rows = list(csv.DictReader(read_text(loss).splitlines()))
    names = {"train/loss": "loss", "held_out/loss": "held_out_loss"}
    curves = {
        curve: [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
        for curve, column in names.items()
    }
    return {curve: points for curve, points in curves.items() if points}


RECORDED = {
    "finetune": "model.json",
    "generate": "generations.parquet",
    "score": "scores.parquet",
}
"""Stage whose executions are recorded -> the name of its output file in a run."""


def _executions(store: ArtifactStore, variant: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return for each stage when, where and how these files were created; a damaged record, or one
    of another execution, is ignored.
    """
    executions: dict[str, Any] = {}
    for stage, name in RECORDED.items():
        record = _read_record(store.execution_record_path(stage, variant))
        if record and record["output_sha256"] == sha256_file(files[name]):
            executions[stage] = record
    return executions


def _damaged_records(store: ArtifactStore, variant: str) -> list[str]:
    paths = [store.execution_record_path(stage, variant) for stage in RECORDED]
    return [
        f"{path.relative_to(store.root).as_posix()} is damaged: the MLflow run of {variant} has no "
        "time, machine and resources for that stage. Delete the file; the stage "
        "writes a new one when it runs again."
        for path in paths
        if path.is_file() and _read_record(path) is None
    ]


def _read_record(path: Path) -> dict[str, Any] | None:
    """Read a stage's execution record; return None if it is missing or damaged."""
    try:
        record = json.loads(read_text(path))
    except (DataError, OSError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("output_sha256"), str):
        return None
    cost = record.get("cost")
    numbers = isinstance(cost, dict) and all(isinstance(v, int | float) for v in cost.values())
    return record if numbers else None


def _cost(executions: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"cost/{stage}_{quantity}": value
        for stage, record in executions.items()
        for quantity, value in record["cost"].items()
    }

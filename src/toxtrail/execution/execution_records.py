"""Records of executions, which `telemetry.record_execution` writes, as an MLflow run shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toxtrail.errors import DataError
from toxtrail.provenance.identity import sha256_file
from toxtrail.regular_files import read_text
from toxtrail.storage.artifacts import ArtifactStore

RECORDED = {
    "finetune": "model.json",
    "generate": "generations.parquet",
    "score": "scores.parquet",
}
"""Stage whose executions are recorded -> the name of its output file in a run."""


def read_executions(
    store: ArtifactStore, variant: str, files: Mapping[str, Path]
) -> dict[str, Any]:
    """Return for each stage when, where and how these files were created; a damaged record, or one
    of another execution, is ignored.
    """
    executions: dict[str, Any] = {}
    for stage, name in RECORDED.items():
        record = _read_record(store.execution_record_path(stage, variant))
        if record and record["output_sha256"] == sha256_file(files[name]):
            executions[stage] = record
    return executions


def damaged_records(store: ArtifactStore, variant: str) -> list[str]:
    """Return a message for each record of a variant that cannot be read."""
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

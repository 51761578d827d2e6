"""Records of executions: when, where and at what cost a stage wrote its output.

Each execution adds one file, data/records/STAGE/KEY/HASH.json, which is named by its content and
never changed, so that git merges the records of two branches without a conflict. An output that was
written more than once has several records; the first execution counts, since a later one may have
used finished rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.errors import DataError
from toxtrail.provenance.identity import execution_record_hash, sha256_file
from toxtrail.regular_files import read_text
from toxtrail.storage.artifacts import ArtifactStore

RECORDS = "data/records"
"""Folder of all records, relative to the experiment."""
NAME_LENGTH = 16
"""Number of hex digits of a record's hash in its file name."""
RECORDED = {
    "finetune": "model.json",
    "generate": "generations.parquet",
    "score": "scores.parquet",
}
"""Stage whose executions are recorded -> the name of its output file in a run."""


class ExecutionRecord(NamedTuple):
    """A record and its file."""

    path: Path
    content: dict[str, Any]


def records_dir(store: ArtifactStore, stage: str, key: str) -> Path:
    """Return the folder of the records of a stage run's executions.

    DVC deletes its temporary copies of an experiment (`dvc exp run --queue` and `--temp`), so they
    use the records of the experiment itself.

    Raises:
        DataError: the key leads out of the folder.
    """
    folder = store.at(f"{RECORDS}/{stage}/{key}").relative_to(store.root)
    parents = (store.root, *store.root.parents)
    copied = [p for p in parents if p.name == "tmp" and p.parent.name == ".dvc"]
    return (copied[-1].parent.parent if copied else store.root) / folder


def write_record(store: ArtifactStore, record: Mapping[str, Any]) -> None:
    """Write the record of one execution, with the hash of its content as seal and file name."""
    seal = execution_record_hash(record)
    folder = records_dir(store, record["stage"], record["key"])
    store.write_json(folder / record_name(seal), {**record, "seal": seal})


def record_name(seal: str) -> str:
    """Return the file name of the record with this seal."""
    return f"{seal[:NAME_LENGTH]}.json"


def record_paths(store: ArtifactStore, stage: str, key: str) -> list[Path]:
    """Return the record files of a stage run, sorted; they may be damaged, or records of older
    outputs."""
    return sorted(records_dir(store, stage, key).glob("*.json"))


def relative_name(path: Path) -> str:
    """Return the path of a record file relative to the experiment: data/records/STAGE/KEY/FILE."""
    return "/".join(path.parts[-5:])


def find_record(
    store: ArtifactStore, stage: str, key: str, output_sha256: str
) -> ExecutionRecord | None:
    """Return the record of the execution that first wrote an output; None if there is none.

    Damaged records are ignored.
    """
    read = ((path, _read_record(path)) for path in record_paths(store, stage, key))
    records = [
        ExecutionRecord(path, content)
        for path, content in read
        if content and content["output_sha256"] == output_sha256
    ]
    return min(records, key=lambda r: (str(r.content.get("started")), r.path), default=None)


def read_executions(
    store: ArtifactStore, variant: str, files: Mapping[str, Path]
) -> dict[str, Any]:
    """Return for each stage when, where and how these files were created; a damaged record, or one
    of another execution, is ignored.
    """
    executions: dict[str, Any] = {}
    for stage, name in RECORDED.items():
        if record := find_record(store, stage, variant, sha256_file(files[name])):
            executions[stage] = record.content
    return executions


def damaged_paths(store: ArtifactStore, stage: str, key: str) -> Iterator[Path]:
    """Yield the record files of a stage run that cannot be read."""
    return (path for path in record_paths(store, stage, key) if _read_record(path) is None)


def damaged_records(store: ArtifactStore, variant: str) -> list[str]:
    """Return a message for each record of a variant that cannot be read."""
    return [
        f"{relative_name(path)} is damaged: the MLflow run of {variant} may "
        "lack the time, machine and resources of that stage. Restore the file with `git checkout`, "
        "or delete it; the stage writes a new one when it runs again."
        for stage in RECORDED
        for path in damaged_paths(store, stage, variant)
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

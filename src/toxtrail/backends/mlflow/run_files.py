"""Runs by their own files: of the local store in milliseconds and without MLflow, else fetched.

Importing MLflow alone takes about two seconds; a question about one run of hundreds should not.
Verification never relies on this: it reads the store through MLflow.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toxtrail.backends.mlflow.fetch_artifacts import MANIFEST, RunFiles
from toxtrail.backends.mlflow.store import artifact_root, is_local, local_store, opened
from toxtrail.backends.mlflow.write_run import KEY_TAG, PAYLOAD, PAYLOAD_TAG, RECORD, SEAL_TAG
from toxtrail.errors import DataError
from toxtrail.regular_files import is_file, read_text

EXECUTIONS = "executions.json"


@dataclass(frozen=True)
class FiledRun:
    """A run that can be found by its name, id and content key, and its files."""

    run_id: str
    files: RunFiles
    listed: Mapping[str, Any]
    """Name and tags by which it is found: of the local store from its record, of a server from its
    page. Anybody who may write to the store can change both: see `record`."""

    @property
    def name(self) -> str:
        return str(self.listed["name"])

    @property
    def content_key(self) -> str:
        return str(self.listed["tags"][KEY_TAG])

    def payload(self) -> dict[str, str]:
        """Artifact path -> sha256."""
        return self.files.payload

    @property
    def unread(self) -> str | None:
        """Why its files could not be read, as far as they were asked for."""
        return self.files.unread

    def record(self) -> dict[str, Any]:
        """Name, tags, params and metrics, as they were sealed."""
        return self.files.json(RECORD)

    def statement(self) -> dict[str, Any]:
        """Its manifest, in in-toto's form."""
        return self.files.json(MANIFEST)

    def executions(self) -> dict[str, Any]:
        """Stage -> facts of its execution; empty if the run has none."""
        return self.files.json(EXECUTIONS) if self.files.has(EXECUTIONS) else {}


def tracked_runs(root: Path, experiment: str) -> list[FiledRun]:
    """Every run of the experiment's store that toxtrail made.

    Raises:
        BackendError: the server does not answer.
    """
    return _filed(root) if is_local(root) else _served(root, experiment)


def damaged_runs(root: Path, whole: Collection[Path]) -> list[Path]:
    """Artifact folders of the local store that are none of the whole runs': their record is missing
    or cannot be read.
    """
    if not is_local(root):
        return []
    folders = {path.parent for path in artifact_root(root).glob(f"*/artifacts/{PAYLOAD}")}
    return sorted(folders - set(whole))


def unusable(folder: Path) -> Exception:
    """Why one of the damaged runs is one."""
    try:
        json.loads(read_text(folder / RECORD))
    except (DataError, OSError, ValueError) as error:
        return error
    return DataError(f"its {RECORD} is not that of a run")


def _filed(root: Path) -> list[FiledRun]:
    runs, tags = [], _sealing_tags(root)
    for path in sorted(artifact_root(root).glob(f"*/artifacts/{RECORD}")):
        try:
            listed, run_id = json.loads(read_text(path)), path.parent.parent.name
            files = RunFiles(root, run_id, str(listed["name"]), tags.get(run_id))
            run = FiledRun(run_id, files, listed)
            runs.append(run) if run.name and run.content_key else None
        except (DataError, OSError, ValueError, KeyError, TypeError):
            continue  # damaged: verification names it
    return runs


def _sealing_tags(root: Path) -> dict[str, dict[str, str]]:
    """Run -> the tags that its files are held against; empty if the database cannot be read."""
    found: dict[str, dict[str, str]] = {}
    query = "SELECT run_uuid, key, value FROM tags WHERE key IN (?, ?)"
    if not is_file(local_store(root)):
        return {}
    try:
        with closing(sqlite3.connect(f"{local_store(root).as_uri()}?mode=ro", uri=True)) as db:
            for run_id, name, value in db.execute(query, (SEAL_TAG, PAYLOAD_TAG)):
                found.setdefault(run_id, {})[name] = value
    except sqlite3.Error:
        return {}
    return found


def _served(root: Path, experiment: str) -> list[FiledRun]:
    from toxtrail.backends.mlflow.search import search
    from toxtrail.backends.mlflow.tracker import as_tracked

    with opened(root) as client:
        known = client.get_experiment_by_name(experiment)
        runs = [as_tracked(r) for r in search(client, known.experiment_id, "")] if known else []
    return [
        FiledRun(
            run.run_id,
            RunFiles(root, run.run_id, run.name, run.tags, run.artifact_uri),
            {"name": run.name, "tags": run.tags},
        )
        for run in runs
        if KEY_TAG in run.tags
    ]

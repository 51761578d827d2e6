"""Find runs by their files: in the local store in milliseconds and without MLflow, else fetched.

Importing MLflow alone takes about two seconds; looking up one of hundreds of runs should not.
Verification never uses this: it reads the store through MLflow.
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
from toxtrail.backends.mlflow.find_run import project_of
from toxtrail.backends.mlflow.store import artifact_root, is_local, local_store, locked_client
from toxtrail.backends.mlflow.write_run import PAYLOAD, RECORD
from toxtrail.errors import DataError
from toxtrail.provenance.identity import Manifest
from toxtrail.records.run_tags import KEY_TAG, PAYLOAD_TAG, SEAL_TAG
from toxtrail.regular_files import is_file, read_text

EXECUTIONS = "executions.json"


@dataclass(frozen=True)
class LocalRunFiles:
    """A run with its name, id and content key, and its files."""

    run_id: str
    files: RunFiles
    listed: Mapping[str, Any]
    """Name and tags by which it is found: from its record in the local store, else from the server.
    Anybody with write access to the store can change both: see `record`."""

    @property
    def name(self) -> str:
        return str(self.listed["name"])

    @property
    def content_key(self) -> str:
        return str(self.listed["tags"][KEY_TAG])

    @property
    def project(self) -> str:
        """The id of its project; empty if it has none."""
        return project_of(self.listed["tags"])

    def payload(self) -> dict[str, str]:
        """Return artifact path -> sha256."""
        return self.files.payload

    @property
    def unread(self) -> str | None:
        """Why its files could not be read, after an attempt."""
        return self.files.unread

    def record(self) -> dict[str, Any]:
        """Read name, tags, params and metrics, as they were sealed."""
        return self.files.json(RECORD)

    def manifest(self) -> Manifest:
        """Read the manifest of its result, from the in-toto statement."""
        return Manifest.from_json(self.files.json(MANIFEST)["predicate"])

    def executions(self) -> dict[str, Any]:
        """Read stage -> record of its execution; empty if the run has none."""
        return self.files.json(EXECUTIONS) if self.files.has(EXECUTIONS) else {}


def tracked_runs(root: Path, experiment: str) -> list[LocalRunFiles]:
    """List every run in the experiment's store that toxtrail created, of all projects.

    Raises:
        BackendError: the server does not respond.
    """
    return _local_runs(root) if is_local(root) else _remote_runs(root, experiment)


def damaged_runs(root: Path, intact: Collection[Path]) -> list[Path]:
    """List artifact folders of the local store without an intact run: their record is missing or
    cannot be read.
    """
    if not is_local(root):
        return []
    folders = {path.parent for path in artifact_root(root).glob(f"*/artifacts/{PAYLOAD}")}
    return sorted(folders - set(intact))


def damage_error(folder: Path) -> Exception:
    """Return the error that makes a run unusable."""
    try:
        json.loads(read_text(folder / RECORD))
    except (DataError, OSError, ValueError) as error:
        return error
    return DataError(f"its {RECORD} is not a record of a run")


def _local_runs(root: Path) -> list[LocalRunFiles]:
    runs, tags = [], _sealing_tags(root)
    for path in sorted(artifact_root(root).glob(f"*/artifacts/{RECORD}")):
        try:
            listed, run_id = json.loads(read_text(path)), path.parent.parent.name
            files = RunFiles(root, run_id, str(listed["name"]), tags.get(run_id))
            run = LocalRunFiles(run_id, files, listed)
            runs.append(run) if run.name and run.content_key else None
        except (DataError, OSError, ValueError, KeyError, TypeError):
            continue  # damaged: verification reports it
    return runs


def _sealing_tags(root: Path) -> dict[str, dict[str, str]]:
    """Read run -> tags that verify its files; empty if the database cannot be read."""
    tags: dict[str, dict[str, str]] = {}
    query = "SELECT run_uuid, key, value FROM tags WHERE key IN (?, ?)"
    if not is_file(local_store(root)):
        return {}
    try:
        with closing(sqlite3.connect(f"{local_store(root).as_uri()}?mode=ro", uri=True)) as db:
            for run_id, name, value in db.execute(query, (SEAL_TAG, PAYLOAD_TAG)):
                tags.setdefault(run_id, {})[name] = value
    except sqlite3.Error:
        return {}
    return tags


def _remote_runs(root: Path, experiment: str) -> list[LocalRunFiles]:
    from toxtrail.backends.mlflow.search import search
    from toxtrail.backends.mlflow.tracker import as_tracked

    with locked_client(root) as client:
        stored_experiment = client.get_experiment_by_name(experiment)
        runs = (
            [as_tracked(r) for r in search(client, stored_experiment.experiment_id, "")]
            if stored_experiment
            else []
        )
    return [
        LocalRunFiles(
            run.run_id,
            RunFiles(root, run.run_id, run.name, run.tags, run.artifact_uri),
            {"name": run.name, "tags": run.tags},
        )
        for run in runs
        if KEY_TAG in run.tags
    ]

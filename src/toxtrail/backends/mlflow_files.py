"""Runs by their own files: of the local store in milliseconds and without MLflow, else fetched.

Importing MLflow alone takes about two seconds; a question about one run of hundreds should not.
Verification never relies on this: it reads the store through MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toxtrail.backends.mlflow_runs import KEY_TAG, PAYLOAD, RECORD
from toxtrail.backends.mlflow_store import artifact_root, is_local, opened, scratch_folder
from toxtrail.errors import DataError

MANIFEST, EXECUTIONS = "manifest.json", "executions.json"


@dataclass(frozen=True)
class FiledRun:
    """A run as its own files tell it."""

    run_id: str
    files: Path
    """`<run id>/artifacts`."""
    record: dict[str, Any]
    """Name, tags, params, metrics, as they were sealed."""

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def content_key(self) -> str:
        return str(self.record["tags"][KEY_TAG])

    def payload(self) -> dict[str, str]:
        """Artifact path -> sha256."""
        return self._mapping(PAYLOAD)

    def statement(self) -> dict[str, Any]:
        """Its manifest, in in-toto's form."""
        return self._mapping(MANIFEST)

    def executions(self) -> dict[str, Any]:
        """Stage -> facts of its execution; empty if the run has none."""
        return self._mapping(EXECUTIONS) if self.file(EXECUTIONS).is_file() else {}

    def file(self, name: str) -> Path:
        """Where a file of the run lies, if it has it."""
        return self.files / name

    def _mapping(self, name: str) -> dict[str, Any]:
        """DataError if the file is no JSON of names and values."""
        value = json.loads(self.file(name).read_text("utf-8"))
        if not isinstance(value, dict):
            raise DataError(f"{name} of the MLflow run {self.run_id[:8]} is not as it was written.")
        return value


@dataclass(frozen=True)
class ServedRun(FiledRun):
    """A run of a team's server: its page stands for its record, its files are fetched if asked."""

    root: Path
    """The experiment's."""

    @cached_property
    def _listed(self) -> set[str]:
        with opened(self.root) as client:
            return {one.path for one in client.list_artifacts(self.run_id)}

    def file(self, name: str) -> Path:
        """Where a file of the run lies, fetched at the first time."""
        path = self.files / name
        if not path.is_file() and name in self._listed:
            self.files.mkdir(parents=True, exist_ok=True)
            with opened(self.root) as client:
                client.download_artifacts(self.run_id, name, str(self.files))
        return path


def tracked_runs(root: Path, experiment: str) -> list[FiledRun]:
    """Every run of the experiment's store that toxtrail made.

    Raises:
        BackendError: the server does not answer.
    """
    return _filed(root) if is_local(root) else list(_served(root, experiment))


def damaged_runs(root: Path, whole: Collection[Path]) -> list[Path]:
    """Artifact folders of the local store that are none of the whole runs': their record is missing
    or cannot be read.
    """
    if not is_local(root):
        return []
    folders = {path.parent for path in artifact_root(root).glob(f"*/artifacts/{PAYLOAD}")}
    return sorted(folders - set(whole))


def _filed(root: Path) -> list[FiledRun]:
    found = []
    for path in sorted(artifact_root(root).glob(f"*/artifacts/{RECORD}")):
        try:
            record = json.loads(path.read_text("utf-8"))
            run = FiledRun(path.parent.parent.name, path.parent, record)
            found.append(run) if run.name and run.content_key else None
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: verification names it
    return found


def _served(root: Path, experiment: str) -> list[ServedRun]:
    from toxtrail.backends.mlflow_tracker import as_tracked, search

    place = scratch_folder()
    with opened(root) as client:
        known = client.get_experiment_by_name(experiment)
        runs = [as_tracked(r) for r in search(client, known.experiment_id, "")] if known else []
    return [
        ServedRun(
            run.run_id,
            place / run.run_id / "artifacts",
            {"name": run.name, "tags": run.tags, "params": run.params, "metrics": run.metrics},
            root,
        )
        for run in runs
        if KEY_TAG in run.tags
    ]

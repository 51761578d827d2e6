"""Runs of the local store by their own files: found in milliseconds, without MLflow.

Importing MLflow alone takes about two seconds; a question about one run of hundreds should not.
Verification never relies on this: it reads the store through MLflow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.mlflow_runs import KEY_TAG, PAYLOAD, RECORD
from toxtrail.backends.mlflow_store import artifact_root, is_local


class FiledRun(NamedTuple):
    """A run as its own files tell it."""

    run_id: str
    files: Path
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
        found: dict[str, str] = json.loads((self.files / PAYLOAD).read_text("utf-8"))
        return found

    def statement(self) -> dict[str, Any]:
        """Its manifest, in in-toto's form."""
        found: dict[str, Any] = json.loads((self.files / "manifest.json").read_text("utf-8"))
        return found


def filed_runs(root: Path) -> list[FiledRun]:
    """Every run of the local store that has its record; none for a team's server."""
    if not is_local(root):
        return []
    found = []
    for path in sorted(artifact_root(root).glob(f"*/artifacts/{RECORD}")):
        try:
            record = json.loads(path.read_text("utf-8"))
            run = FiledRun(path.parent.parent.name, path.parent, record)
            found.append(run) if run.name and run.content_key else None
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: verification names it
    return found

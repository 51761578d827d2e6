"""Bundles of MLflow runs: the files of a run and of the variants that it compares, and their pages.

A run holds neither weights, data nor code, so such a bundle lists what it has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toxtrail.auditing.lineage.lineage import LineageNode
from toxtrail.auditing.verify.context import DAMAGE_ERRORS, Check, broken, weak
from toxtrail.auditing.verify.load_runs import LoadedRun
from toxtrail.auditing.verify.mlflow_runs import run_title
from toxtrail.auditing.verify.stored_runs import RunAudit, RunVerifier, audit_run
from toxtrail.backends.mlflow.read_store import Point, StoredModel, StoredRun
from toxtrail.backends.protocols import NoProgress, Progress, TrackedRun
from toxtrail.errors import DataError
from toxtrail.records.run_tags import KEY_TAG
from toxtrail.regular_files import files_by_name, leads_out
from toxtrail.storage.artifacts import pretty_json

RUNS = "runs"
AUDIT = "audit.json"
EXPORTED = (
    "its tags and metrics are those that the store had when it was exported: compare the seal with "
    "the store's (`toxtrail audit {}`)"
)


def run_bundle_files(loaded: LoadedRun) -> dict[str, Path]:
    """Return name in the bundle -> file, of all files of the runs."""
    files: dict[str, Path] = {}
    for stored in (loaded.run, *loaded.others):
        folder = f"runs/{stored.run.run_id}"
        own = files_by_name(stored.files) if stored.files else {}
        files |= {f"{folder}/artifacts/{name}": path for name, path in own.items()}
        for number, model in enumerate(stored.models):
            for name, path in (model.files or {}).items():
                files[f"{folder}/models/{number}/{name}"] = path
    return files


def about_run(loaded: LoadedRun, audit: RunAudit) -> dict[str, Any]:
    """Return the description of the runs for the listing: the values of their pages, and the parts
    of the lineage that the bundle does not contain."""
    run = loaded.run.run
    return {
        "group": RUNS,
        "name": run.name,
        "content_key": run.tags[KEY_TAG],
        "run_id": run.run_id,
        "runs": [_to_json(stored) for stored in (loaded.run, *loaded.others)],
        "absent": [c.to_json() for c in audit.checks if c.outcome == "absent"],
    }


def audit_text(audit: RunAudit) -> str:
    """Return the lineage and the checks of the audit, for a file of the bundle."""
    checks = [check.to_json() for check in audit.checks]
    return pretty_json({"kind": "run", **audit.link.to_json(), "checks": checks})


def run_bundle_lineage(root: Path, listing: Mapping[str, Any]) -> LineageNode:
    """Return the lineage of the run in a bundle.

    Raises:
        DataError: the listing does not describe the runs.
    """
    run, verifier = _open(root, listing, NoProgress())
    return verifier.lineage(run)


def verify_run_bundle(
    root: Path, listing: Mapping[str, Any], progress: Progress, signed: bool
) -> list[Check]:
    """Verify the runs in a bundle. See run_bundle_lineage.

    Args:
        signed: whether signatures are required, which runs do not have.
    """
    run, verifier = _open(root, listing, progress)
    checks = audit_run(verifier, run).checks
    checks.append(weak("MLflow values", run_title(run), EXPORTED.format(run.run.run_id)))
    if signed:
        detail = "MLflow runs have no signatures: export the result from its experiment's folder"
        checks.append(broken("signatures", run_title(run), detail))
    return checks


def _open(
    root: Path, listing: Mapping[str, Any], progress: Progress
) -> tuple[StoredRun, RunVerifier]:
    runs = _runs_in(root, listing)
    matches = [stored for stored in runs if stored.run.run_id == listing.get("run_id")]
    if not matches:
        raise DataError("bundle.json lists no run of the id that it names.")
    return matches[0], RunVerifier(runs, progress)


def _runs_in(root: Path, listing: Mapping[str, Any]) -> list[StoredRun]:
    try:
        return [_from_json(root, values) for values in listing["runs"]]
    except DAMAGE_ERRORS as error:
        raise DataError(f"bundle.json does not describe its runs: {error!r}") from None


def _to_json(stored: StoredRun) -> dict[str, Any]:
    return {
        "run": {**stored.run._asdict(), "artifact_uri": ""},
        "inputs": stored.inputs,
        "times": stored.times,
        "history": stored.history,
        "models": [
            {
                "name": model.name,
                "tags": model.tags,
                "params": model.params,
                "metrics": model.metrics,
                "has_files": model.files is not None,
            }
            for model in stored.models
        ],
    }


def _from_json(root: Path, values: Mapping[str, Any]) -> StoredRun:
    run = TrackedRun(**values["run"])
    if leads_out(run.run_id) or Path(run.run_id).name != run.run_id:
        raise DataError(f"{run.run_id!r} is not the id of a run")
    folder, history, start_end = root / "runs" / run.run_id, values["history"], values["times"]
    return StoredRun(
        run=run,
        deleted=False,
        files=folder / "artifacts",
        unread="",
        inputs=tuple(tuple(map(str, item)) for item in values["inputs"]),
        times=(start_end[0], start_end[1]),
        history=None
        if history is None
        else {name: [Point(*point) for point in points] for name, points in history.items()},
        models=tuple(
            StoredModel(
                one["name"],
                one["tags"],
                one["params"],
                tuple((str(name), float(value), str(run)) for name, value, run in one["metrics"]),
                files_by_name(folder / "models" / str(number)) if one["has_files"] else None,
            )
            for number, one in enumerate(values["models"])
        ),
        misplaced=None,
    )

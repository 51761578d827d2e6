"""Read the runs to verify from the MLflow store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail import results
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.auditing.verify.run_workspace import run_manifest, variant_manifests
from toxtrail.auditing.verify.stored_runs import RunVerifier
from toxtrail.backends.mlflow.find_run import project_of
from toxtrail.backends.mlflow.read_store import StoredRun
from toxtrail.backends.protocols import Progress
from toxtrail.errors import DataError
from toxtrail.execution.factories import make_tracker
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import COMPARISON_TAG, KEY_TAG


class LoadedRun(NamedTuple):
    """A run of the store, with those of the variants that it compares, or of its comparison."""

    run: StoredRun
    others: tuple[StoredRun, ...]
    verifier: RunVerifier
    """Verifier of all these runs."""


def load_run(experiment: Experiment, reference: str, progress: Progress) -> LoadedRun:
    """Read a run by id, name, content key or family, with the runs of its variants.

    Raises:
        ConfigError: there is none, or outside an experiment MLflow's variables are not set.
        DataError: it is unfinished, of another version, or disappeared.
        BackendError: the store cannot be read.
    """
    tracked = results.run_or_family(experiment, reference)
    tracker = make_tracker(experiment)
    runs = tracker.read({tracked.run_id})
    if not runs:
        raise DataError(f"The MLflow run {tracked.name} ({tracked.run_id[:8]}) was deleted.")
    (run,) = runs
    keys = _related_keys(run)
    related = tracker.in_project(project_of(tracked.tags)).runs("") if keys else []
    ids = {r.run_id for r in related if r.tags.get(KEY_TAG) in keys}
    others = tracker.read(ids) if ids else []
    others = without_damaged_duplicates(others, RunVerifier(others, progress))
    return LoadedRun(run, tuple(others), RunVerifier([run, *others], progress))


def without_damaged_duplicates(runs: Sequence[StoredRun], verifier: RunVerifier) -> list[StoredRun]:
    """Return the runs without those that failed a check, where another run has the same content:
    publishing again leaves a changed run as it is, and creates another one."""
    intact = {run.run.tags.get(KEY_TAG) for run in runs if verifier.is_intact(run)}
    return [
        run for run in runs if verifier.is_intact(run) or run.run.tags.get(KEY_TAG) not in intact
    ]


def load_all_runs(experiment: Experiment) -> list[StoredRun]:
    """Read all runs of the experiment's project, or outside of one, of the MLflow experiment;
    deleted ones are left out.

    Raises:
        ConfigError: outside an experiment, MLflow's variables are not set.
        DataError: it has no runs.
        BackendError: the store cannot be read.
    """
    runs = [run for run in make_tracker(experiment).read() if not run.deleted]
    if not runs:
        if experiment.project is not None:
            raise DataError(results.why_no_runs(experiment))
        raise DataError(
            "The MLflow experiment does not exist or has no runs of toxtrail: check "
            "MLFLOW_EXPERIMENT_NAME and MLFLOW_TRACKING_URI, and your permissions on the server."
        )
    return runs


def _related_keys(run: StoredRun) -> set[str]:
    """Return the content keys of the variants that a comparison names, or of the comparison that a
    variant's verdict names. The run is not verified yet: a changed manifest selects other runs, and
    nothing is read from any then."""
    if run.files is None:
        return set()
    try:
        manifest = run_manifest(run)
        nodes = variant_manifests(manifest) if manifest.kind == "compare" else []
        keys = {node.content_key for node in nodes}
    except DAMAGE_ERRORS:
        return set()
    return keys | {key for key in (run.run.tags.get(COMPARISON_TAG),) if key}

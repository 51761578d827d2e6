"""An MLflow store as an auditor reads it: deleted runs too, files as they lie, nothing repaired."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.base import TrackedRun
from toxtrail.backends.mlflow_runs import KEY_TAG, MLMODEL
from toxtrail.backends.mlflow_store import artifact_root, is_local, opened, store_exists
from toxtrail.backends.mlflow_tracker import PAGE, as_tracked, search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


class StoredAdapter(NamedTuple):
    """A logged model as the store has it now."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    mlmodel: Path | None
    """Its only file."""


class StoredRun(NamedTuple):
    """A run and everything that can be changed about it."""

    run: TrackedRun
    deleted: bool
    """Moved to the bin, in the UI or by a program."""
    files: Path | None
    """Where its artifacts lie; None if there are none."""
    inputs: tuple[tuple[str, str, str], ...]
    """(name, sha256, context) of its data sets, sorted."""
    adapters: tuple[StoredAdapter, ...]
    """The logged models that it brought."""


class StoreView(NamedTuple):
    """All runs of an experiment that toxtrail made, the newest first."""

    runs: tuple[StoredRun, ...]
    moved_from: str | None
    """Where the store was made, if that is not where it is now: MLflow shows no files then."""


def read_store(root: Path, experiment: str) -> StoreView | None:
    """The runs of a store; None if there is no store, or it does not know the experiment.

    Raises:
        BackendError: the store cannot be opened.
    """
    if not store_exists(root):
        return None
    from mlflow.entities import ViewType

    with opened(root) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = search(client, found.experiment_id, "", ViewType.ALL)
        own = artifact_root(root).as_uri()
        moved = is_local(root) and found.artifact_location != own
        models = client.search_logged_models([found.experiment_id], max_results=PAGE)
        return StoreView(
            tuple(_stored(client, root, run, models) for run in runs if KEY_TAG in run.data.tags),
            found.artifact_location if moved else None,
        )


def curve(root: Path, run_id: str, name: str) -> list[list[float]]:
    """[step, value] of a metric's whole history, by step."""
    with opened(root) as client:
        points = client.get_metric_history(run_id, name)
        return sorted([point.step, point.value] for point in points)


def _stored(client: MlflowClient, root: Path, run: Run, models: Sequence[LoggedModel]) -> StoredRun:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    named = []
    for one in inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        context = tags.get("mlflow.data.context", "")
        named.append((one.dataset.name, tags.get("sha256", ""), context))
    return StoredRun(
        run=as_tracked(run),
        deleted=run.info.lifecycle_stage == "deleted",
        files=_files(client, root, run),
        inputs=tuple(sorted(named)),
        adapters=tuple(
            _adapter(client, root, model)
            for model in models
            if model.source_run_id == run.info.run_id
        ),
    )


def _adapter(client: MlflowClient, root: Path, model: LoggedModel) -> StoredAdapter:
    path = artifact_root(root) / "models" / model.model_id / "artifacts" / MLMODEL
    return StoredAdapter(
        model.name,
        dict(model.tags or {}),
        dict(model.params or {}),
        path if is_local(root) and path.is_file() else None,
    )


def _files(client: MlflowClient, root: Path, run: Run) -> Path | None:
    """A local store's own folder, wherever it was made; a server's files, fetched."""
    from mlflow.exceptions import MlflowException

    if is_local(root):
        folder = artifact_root(root) / run.info.run_id / "artifacts"
        return folder if folder.is_dir() else None
    try:
        target = tempfile.mkdtemp(prefix="toxtrail-")
        return Path(client.download_artifacts(run.info.run_id, "", target))
    except (MlflowException, OSError):
        return None

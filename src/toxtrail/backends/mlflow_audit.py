"""An MLflow store as an auditor reads it: deleted runs too, files as they lie, nothing repaired."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.base import TrackedRun
from toxtrail.backends.mlflow_artifacts import fetch
from toxtrail.backends.mlflow_runs import DIGEST_LIMIT, MLMODEL
from toxtrail.backends.mlflow_search import PAGE, search
from toxtrail.backends.mlflow_store import (
    artifact_root,
    is_local,
    local_store,
    opened,
    scratch_folder,
    store_exists,
)
from toxtrail.backends.mlflow_tracker import as_tracked

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
    """Where its artifacts lie; None if there are none, or they could not be read."""
    unread: str
    """Why they could not be read; empty if they were, or are gone."""
    inputs: tuple[tuple[str, str, str], ...]
    """(name, sha256, context) of its data sets, sorted."""
    adapters: tuple[StoredAdapter, ...]
    """The logged models that it brought."""
    misplaced: str | None
    """What is wrong with the place where the UI looks for its files; None if nothing."""


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
        models = _logged_models(client, found.experiment_id)
        return StoreView(
            tuple(
                _stored(client, root, run, models, str(found.artifact_location))
                for run in runs
                if any(name.startswith("toxtrail.") for name in run.data.tags)
            ),
            found.artifact_location if moved else None,
        )


def histories(root: Path, run_id: str, curves: Sequence[str]) -> dict[str, list[list[float]]]:
    """Metric -> [step, value] of all that was ever logged of it: what a chart in the UI shows.

    Of a server only the named curves: it would have to be asked for each metric on its own. The
    local store's table is read as MLflow has it, whose schema was checked when it was opened.
    """
    found: dict[str, list[list[float]]] = {}
    if not is_local(root):
        with opened(root) as client:
            for name in curves:
                points = client.get_metric_history(run_id, name)
                found[name] = [[point.step, point.value] for point in points]
        return found
    asked = "SELECT key, step, CASE is_nan WHEN 0 THEN value END FROM metrics WHERE run_uuid = ?"
    with closing(sqlite3.connect(f"{local_store(root).as_uri()}?mode=ro", uri=True)) as db:
        for name, step, value in db.execute(asked, (run_id,)):
            found.setdefault(name, []).append([step, math.nan if value is None else value])
    return found


def _logged_models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    """All pages."""
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _stored(
    client: MlflowClient, root: Path, run: Run, models: Sequence[LoggedModel], location: str
) -> StoredRun:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    named = []
    for one in inputs:
        tags = {tag.key: tag.value for tag in one.tags}
        context, sha256 = tags.get("mlflow.data.context", ""), tags.get("sha256", "")
        if one.dataset.digest != sha256[:DIGEST_LIMIT]:
            sha256 += f" (shown as {one.dataset.digest})"
        named.append((one.dataset.name, sha256, context))
    files, unread = _files(client, root, run)
    place, wanted = run.info.artifact_uri, f"{location}/{run.info.run_id}/artifacts"
    return StoredRun(
        run=as_tracked(run),
        deleted=run.info.lifecycle_stage == "deleted",
        files=files,
        unread=unread,
        inputs=tuple(sorted(named)),
        adapters=tuple(
            _adapter(client, root, model)
            for model in models
            if model.source_run_id == run.info.run_id
        ),
        misplaced=f"the UI shows files of {place}, not its own, {wanted}"
        if is_local(root) and place != wanted
        else None,
    )


def _adapter(client: MlflowClient, root: Path, model: LoggedModel) -> StoredAdapter:
    path = artifact_root(root) / "models" / model.model_id / "artifacts" / MLMODEL
    return StoredAdapter(
        model.name,
        dict(model.tags or {}),
        dict(model.params or {}),
        path if is_local(root) and path.is_file() else None,
    )


def _files(client: MlflowClient, root: Path, run: Run) -> tuple[Path | None, str]:
    """(a local store's own folder, wherever it was made, or a server's files, fetched; why not)."""
    if is_local(root):
        folder = artifact_root(root) / run.info.run_id / "artifacts"
        return (folder, "") if folder.is_dir() else (None, "")
    result = fetch(client, run.info.run_id, "", scratch_folder())
    if result.path is not None and not any(result.path.iterdir()):
        return None, "the store lists no file of it: they were deleted, or moved."
    return result.path, result.reason

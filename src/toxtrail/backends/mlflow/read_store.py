"""Read an MLflow store for an audit: including deleted runs, with files unmodified."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.mlflow.fetch_artifacts import fetch, fetch_folder
from toxtrail.backends.mlflow.find_run import project_filter
from toxtrail.backends.mlflow.search import PAGE, search
from toxtrail.backends.mlflow.store import (
    artifact_root,
    is_local,
    local_store,
    readonly_client,
    scratch_folder,
    store_exists,
)
from toxtrail.backends.mlflow.tracker import as_tracked
from toxtrail.backends.mlflow.write_run import DIGEST_LIMIT
from toxtrail.backends.protocols import TrackedRun
from toxtrail.records.run_tags import PREFIX
from toxtrail.regular_files import files_by_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, LoggedModel, Run


History = Mapping[str, Sequence["Point"]]
"""Metric -> every value."""


class Point(NamedTuple):
    """A value of a metric, as a chart in the UI displays it."""

    step: int
    value: float
    timestamp: int
    """Milliseconds since the epoch."""


class StoredModel(NamedTuple):
    """A logged model in the store."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: tuple[tuple[str, float, str], ...]
    """(name, value, id of the run that logged it), sorted."""
    files: Mapping[str, Path] | None
    """File name -> path; None if the files could not be read."""


class StoredRun(NamedTuple):
    """A run and everything about it that can be changed."""

    run: TrackedRun
    deleted: bool
    """Whether it was deleted, in the UI or by a program."""
    files: Path | None
    """Folder of its artifacts; None if there are none, or they could not be read."""
    unread: str
    """Why they could not be read; empty if they were read, or do not exist."""
    inputs: tuple[tuple[str, ...], ...]
    """(name, sha256, context, source, schema, profile) of its datasets, sorted."""
    times: tuple[int | None, int | None]
    """Start and end time; milliseconds since the epoch."""
    history: History | None
    """All logged values of its metrics; None if they could not be read."""
    models: tuple[StoredModel, ...]
    """The logged models that it created."""
    misplaced: str | None
    """Problem with the artifact URI that the UI uses; None if there is none."""


class StoreView(NamedTuple):
    """All runs in an experiment that toxtrail created, of one project or of all, newest first."""

    runs: tuple[StoredRun, ...]
    moved_from: str | None
    """Original path of the store, if it was moved: MLflow shows no files then."""


def read_store(
    root: Path,
    experiment: str,
    project: str | None,
    run_ids: Container[str] | None = None,
) -> StoreView | None:
    """Read the runs of a store; None if there is no store, or it has no such experiment.

    Args:
        project: whose runs to read; None for all.
        run_ids: of the runs to read; None for all.

    Raises:
        BackendError: the store cannot be opened.
    """
    if not store_exists(root):
        return None
    from mlflow.entities import ViewType

    with readonly_client(root) as client:
        stored_experiment = client.get_experiment_by_name(experiment)
        if stored_experiment is None:
            return None
        runs = search(
            client,
            stored_experiment.experiment_id,
            "" if project is None else project_filter(project),
            ViewType.ALL,
        )
        expected_location = artifact_root(root).as_uri()
        moved = is_local(root) and stored_experiment.artifact_location != expected_location
        models = _logged_models(client, stored_experiment.experiment_id)
        runs = [r for r in runs if any(name.startswith(PREFIX) for name in r.data.tags)]
        runs = [r for r in runs if run_ids is None or r.info.run_id in run_ids]
        histories = _histories(client, root, runs)
        return StoreView(
            tuple(
                _read_run(
                    client, root, run, models, str(stored_experiment.artifact_location)
                )._replace(
                    history=None if histories is None else histories.get(run.info.run_id, {})
                )
                for run in runs
            ),
            stored_experiment.artifact_location if moved else None,
        )


def _logged_models(client: MlflowClient, experiment: str) -> list[LoggedModel]:
    """List the logged models of all result pages."""
    models: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([experiment], max_results=PAGE, page_token=token)
        models += page
        token = page.token
        if not token:
            return models


def _read_run(
    client: MlflowClient, root: Path, run: Run, models: Sequence[LoggedModel], location: str
) -> StoredRun:
    files, unread = _run_files(client, root, run)
    location_in_run, expected = run.info.artifact_uri, f"{location}/{run.info.run_id}/artifacts"
    return StoredRun(
        run=as_tracked(run),
        deleted=run.info.lifecycle_stage == "deleted",
        files=files,
        unread=unread,
        inputs=tuple(sorted(_inputs(run))),
        times=(run.info.start_time, run.info.end_time),
        history=None,
        models=tuple(
            _read_model(client, root, model)
            for model in models
            if model.source_run_id == run.info.run_id
        ),
        misplaced=f"the UI shows the files of {location_in_run}; expected {expected}"
        if is_local(root) and location_in_run != expected
        else None,
    )


def _inputs(run: Run) -> Iterator[tuple[str, ...]]:
    for dataset_input in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in dataset_input.tags}
        context, sha256 = tags.get("mlflow.data.context", ""), tags.get("sha256", "")
        if dataset_input.dataset.digest != sha256[:DIGEST_LIMIT]:
            sha256 += f" (shown as {dataset_input.dataset.digest})"
        dataset = dataset_input.dataset
        details = (dataset.schema or "", dataset.profile or "")
        yield dataset.name, sha256, context, _source(dataset), *details


def _source(dataset: Dataset) -> str:
    """Return a dataset's source; if anything was changed, with all details."""
    try:
        source = json.loads(dataset.source)
    except ValueError:
        return str(dataset.source)
    if dataset.source_type == "local" and isinstance(source, dict) and set(source) == {"uri"}:
        return str(source["uri"])
    return str((dataset.source_type, dataset.source))


def _read_model(client: MlflowClient, root: Path, model: LoggedModel) -> StoredModel:
    if is_local(root):
        folder: Path | None = artifact_root(root) / "models" / model.model_id / "artifacts"
    else:
        folder = fetch_folder(client, model.artifact_location, scratch_folder()).path
    return StoredModel(
        model.name,
        dict(model.tags or {}),
        dict(model.params or {}),
        tuple(sorted((m.key, m.value, str(m.run_id)) for m in model.metrics or [])),
        None if folder is None else files_by_name(folder),
    )


def _run_files(client: MlflowClient, root: Path, run: Run) -> tuple[Path | None, str]:
    """Return (folder in the local store, or fetched files of a server; reason if there is none)."""
    if is_local(root):
        folder = artifact_root(root) / run.info.run_id / "artifacts"
        return (folder, "") if folder.is_dir() else (None, "")
    result = fetch(client, run.info.run_id, "", scratch_folder())
    if result.path is not None and not any(result.path.iterdir()):
        return None, "the store lists no files for it: they were deleted, or moved."
    return result.path, result.reason


# --- histories of metrics -----------------------------------------------------------------------


def _histories(
    client: MlflowClient, root: Path, runs: Sequence[Run]
) -> dict[str, dict[str, list[Point]]] | None:
    """Read run -> history; None if the store does not return them.

    The local store's table is read directly; its schema was checked when the store was opened.
    """
    if is_local(root):
        return _local_histories(root)
    run_ids: dict[str, list[str]] = {}
    for run in runs:
        for name in run.data.metrics:
            run_ids.setdefault(name, []).append(run.info.run_id)
    requests = [
        (name, ids[start : start + BULK])
        for name, ids in sorted(run_ids.items())
        for start in range(0, len(ids), BULK)
    ]
    histories: dict[str, dict[str, list[Point]]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        results = pool.map(lambda request: _bulk_history(client, *request), requests)
        for (name, ids), points in zip(requests, results, strict=True):
            if points is None:
                return None
            for run_id in ids:
                histories.setdefault(run_id, {})[name] = points.get(run_id, [])
    return histories


BULK = 50
"""Runs per request: their ids are in the URL, whose length servers limit."""
BULK_LIMIT = 25_000
"""Largest number of values that MLflow returns for one request."""
WORKERS = 8


def _bulk_history(
    client: MlflowClient, name: str, run_ids: Sequence[str]
) -> dict[str, list[Point]] | None:
    """Read run -> values of one metric: from a server in one request, as its UI does."""
    from mlflow.exceptions import MlflowException

    try:
        if client.tracking_uri.startswith("http"):
            rows = _bulk_request(client, name, run_ids)
            if rows is not None and len(rows) < BULK_LIMIT:
                histories: dict[str, list[Point]] = {}
                for row in rows:
                    point = Point(int(row["step"]), float(row["value"]), int(row["timestamp"]))
                    histories.setdefault(row["run_id"], []).append(point)
                return histories
        return {
            run_id: [
                Point(metric.step, metric.value, metric.timestamp)
                for metric in client.get_metric_history(run_id, name)
            ]
            for run_id in run_ids
        }
    except (MlflowException, OSError, LookupError, ValueError):
        return None


def _bulk_request(
    client: MlflowClient, name: str, run_ids: Sequence[str]
) -> list[dict[str, Any]] | None:
    """Query MLflow's bulk endpoint; None if the server does not have it."""
    from mlflow.utils import credentials, rest_utils

    plain: Any = rest_utils  # neither module is typed
    creds: Any = credentials
    response = plain.http_request(
        creds.get_default_host_creds(client.tracking_uri),
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
        "GET",
        params={"run_id": list(run_ids), "metric_key": name, "max_results": BULK_LIMIT},
    )
    if response.status_code != 200:
        return None
    rows: list[dict[str, Any]] = response.json()["metrics"]
    return rows


def _local_histories(root: Path) -> dict[str, dict[str, list[Point]]]:
    histories: dict[str, dict[str, list[Point]]] = {}
    query = "SELECT run_uuid, key, step, timestamp, CASE is_nan WHEN 0 THEN value END FROM metrics"
    with closing(sqlite3.connect(f"{local_store(root).as_uri()}?mode=ro", uri=True)) as db:
        for run_id, name, step, timestamp, value in db.execute(query):
            point = Point(step, math.nan if value is None else value, timestamp)
            histories.setdefault(run_id, {}).setdefault(name, []).append(point)
    return histories

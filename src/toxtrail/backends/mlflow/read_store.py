"""An MLflow store as an auditor reads it: deleted runs too, files as they lie, nothing repaired."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.mlflow.fetch_artifacts import fetch, fetch_folder
from toxtrail.backends.mlflow.search import PAGE, search
from toxtrail.backends.mlflow.store import (
    artifact_root,
    is_local,
    local_store,
    opened,
    scratch_folder,
    store_exists,
)
from toxtrail.backends.mlflow.tracker import as_tracked
from toxtrail.backends.mlflow.write_run import DIGEST_LIMIT
from toxtrail.backends.protocols import TrackedRun
from toxtrail.regular_files import files_below

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, LoggedModel, Run


History = Mapping[str, Sequence["Point"]]
"""Metric -> every value."""


class Point(NamedTuple):
    """A value of a metric, as a chart in the UI shows it."""

    step: int
    value: float
    timestamp: int
    """Milliseconds since the epoch."""


class StoredAdapter(NamedTuple):
    """A logged model as the store has it now."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    files: Mapping[str, Path] | None
    """Name -> its files, of which there is one; None if they could not be read."""


class StoredRun(NamedTuple):
    """A run and everything that can be changed about it."""

    run: TrackedRun
    deleted: bool
    """Moved to the bin, in the UI or by a program."""
    files: Path | None
    """Where its artifacts lie; None if there are none, or they could not be read."""
    unread: str
    """Why they could not be read; empty if they were, or are gone."""
    inputs: tuple[tuple[str, str, str, str], ...]
    """(name, sha256, context, source) of its data sets, sorted."""
    times: tuple[int | None, int | None]
    """When it was started and ended; milliseconds since the epoch."""
    history: History | None
    """All that was ever logged of its metrics; None if it could not be read."""
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
        runs = [r for r in runs if any(name.startswith("toxtrail.") for name in r.data.tags)]
        histories = _histories(client, root, runs)
        return StoreView(
            tuple(
                _stored(client, root, run, models, str(found.artifact_location))._replace(
                    history=None if histories is None else histories.get(run.info.run_id, {})
                )
                for run in runs
            ),
            found.artifact_location if moved else None,
        )


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
    files, unread = _files(client, root, run)
    place, wanted = run.info.artifact_uri, f"{location}/{run.info.run_id}/artifacts"
    return StoredRun(
        run=as_tracked(run),
        deleted=run.info.lifecycle_stage == "deleted",
        files=files,
        unread=unread,
        inputs=tuple(sorted(_inputs(run))),
        times=(run.info.start_time, run.info.end_time),
        history=None,
        adapters=tuple(
            _adapter(client, root, model)
            for model in models
            if model.source_run_id == run.info.run_id
        ),
        misplaced=f"the UI shows files of {place}, not its own, {wanted}"
        if is_local(root) and place != wanted
        else None,
    )


def _inputs(run: Run) -> Iterator[tuple[str, str, str, str]]:
    for one in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in one.tags}
        context, sha256 = tags.get("mlflow.data.context", ""), tags.get("sha256", "")
        if one.dataset.digest != sha256[:DIGEST_LIMIT]:
            sha256 += f" (shown as {one.dataset.digest})"
        yield one.dataset.name, sha256, context, _source(one.dataset)


def _source(dataset: Dataset) -> str:
    """Where it says that it comes from; anything that is not as it was written, in full."""
    try:
        source = json.loads(dataset.source)
    except ValueError:
        return str(dataset.source)
    plain = dataset.source_type == "local" and not dataset.schema and not dataset.profile
    if plain and isinstance(source, dict) and set(source) == {"uri"}:
        return str(source["uri"])
    return str((dataset.source_type, dataset.source, dataset.schema, dataset.profile))


def _adapter(client: MlflowClient, root: Path, model: LoggedModel) -> StoredAdapter:
    if is_local(root):
        folder: Path | None = artifact_root(root) / "models" / model.model_id / "artifacts"
    else:
        folder = fetch_folder(client, model.artifact_location, scratch_folder()).path
    files = files_below(folder) if folder is not None else ()
    return StoredAdapter(
        model.name,
        dict(model.tags or {}),
        dict(model.params or {}),
        None if folder is None else {p.relative_to(folder).as_posix(): p for p in files},
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


# --- histories of metrics -----------------------------------------------------------------------


def _histories(
    client: MlflowClient, root: Path, runs: Sequence[Run]
) -> dict[str, dict[str, list[Point]]] | None:
    """Run -> its history; None if the store does not give them.

    The local store's table is read as MLflow has it, whose schema was checked when it was opened.
    """
    if is_local(root):
        return _local_histories(root)
    wanted: dict[str, list[str]] = {}
    for run in runs:
        for name in run.data.metrics:
            wanted.setdefault(name, []).append(run.info.run_id)
    asked = [
        (name, ids[start : start + BULK])
        for name, ids in sorted(wanted.items())
        for start in range(0, len(ids), BULK)
    ]
    found: dict[str, dict[str, list[Point]]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        results = pool.map(lambda one: _bulk_history(client, *one), asked)
        for (name, ids), points in zip(asked, results, strict=True):
            if points is None:
                return None
            for run_id in ids:
                found.setdefault(run_id, {})[name] = points.get(run_id, [])
    return found


BULK = 50
"""Runs asked for in one request: their ids stand in its address, whose length servers limit."""
BULK_LIMIT = 25_000
"""Values that MLflow gives at most to one request."""
WORKERS = 8


def _bulk_history(
    client: MlflowClient, name: str, run_ids: Sequence[str]
) -> dict[str, list[Point]] | None:
    """Run -> values of one metric: of a server in one request, as its UI asks for them."""
    from mlflow.exceptions import MlflowException

    try:
        if client.tracking_uri.startswith("http"):
            rows = _asked_at_once(client, name, run_ids)
            if rows is not None and len(rows) < BULK_LIMIT:
                found: dict[str, list[Point]] = {}
                for row in rows:
                    point = Point(int(row["step"]), float(row["value"]), int(row["timestamp"]))
                    found.setdefault(row["run_id"], []).append(point)
                return found
        return {
            run_id: [
                Point(one.step, one.value, one.timestamp)
                for one in client.get_metric_history(run_id, name)
            ]
            for run_id in run_ids
        }
    except (MlflowException, OSError, LookupError, ValueError):
        return None


def _asked_at_once(
    client: MlflowClient, name: str, run_ids: Sequence[str]
) -> list[dict[str, Any]] | None:
    """None if the server has no such address."""
    from mlflow.utils import credentials, rest_utils

    plain: Any = rest_utils  # neither of the two is typed
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
    found: dict[str, dict[str, list[Point]]] = {}
    query = "SELECT run_uuid, key, step, timestamp, CASE is_nan WHEN 0 THEN value END FROM metrics"
    with closing(sqlite3.connect(f"{local_store(root).as_uri()}?mode=ro", uri=True)) as db:
        for run_id, name, step, timestamp, value in db.execute(query):
            point = Point(step, math.nan if value is None else value, timestamp)
            found.setdefault(run_id, {}).setdefault(name, []).append(point)
    return found

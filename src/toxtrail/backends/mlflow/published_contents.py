"""Find which contents have a sealed run in the current MLflow store."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.mlflow.find_run import project_filter
from toxtrail.backends.mlflow.store import (
    deleted_experiment,
    is_local,
    local_store,
    readonly_client,
    store_exists,
    tracking_uri,
)
from toxtrail.errors import BackendError
from toxtrail.records.run_tags import KEY_TAG, PROJECT_TAG, SEAL_TAG
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

THREADS = 8
EXPERIMENTS = 1000
"""Largest number of experiments to search for runs of a renamed one."""

LOCAL_RUNS = """
SELECT e.name, e.experiment_id, e.lifecycle_stage, k.value, s.value
FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = ?
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = ?
JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = ? AND p.value = ?
WHERE r.lifecycle_stage = 'active' OR e.lifecycle_stage = 'deleted'
"""


class Content(NamedTuple):
    """Content key and seal of a receipt, which a sealed run has as tags."""

    content_key: str
    seal: str


class PublishedContents(NamedTuple):
    """The result of a query."""

    present: frozenset[Content]
    """The requested contents that have a sealed run in the experiment."""
    elsewhere: tuple[str, ...]
    """If the store has no such experiment: those with such runs, as `"name" (id)`."""


def store_name(root: Path) -> str:
    """Return the store's name for messages."""
    return "mlruns/mlflow.db" if is_local(root) else redacted(tracking_uri(root))


def find_published(
    root: Path, experiment: str, project: str, contents: Collection[Content]
) -> PublishedContents:
    """Find which of these contents have a sealed run of the project in the store. The local store
    is read without MLflow, whose import takes seconds.

    Raises:
        BackendError: the store cannot be read, or the experiment was deleted in it.
    """
    if not contents or not store_exists(root):
        return PublishedContents(frozenset(), ())
    if is_local(root):
        return _ask_local(root, experiment, project, contents)
    with readonly_client(root) as client:
        stored_experiment = client.get_experiment_by_name(experiment)
        if stored_experiment is None:
            return PublishedContents(
                frozenset(), tuple(_experiments_with(client, project, next(iter(contents))))
            )
        if stored_experiment.lifecycle_stage == "deleted":
            raise BackendError(
                deleted_experiment(
                    root, str(stored_experiment.experiment_id), str(stored_experiment.name)
                )
            )
        experiment_ids = [str(stored_experiment.experiment_id)]
        with ThreadPoolExecutor(THREADS) as pool:
            present = list(
                pool.map(
                    lambda content: _has_run(client, experiment_ids, project, content), contents
                )
            )
    return PublishedContents(
        frozenset(c for c, has in zip(contents, present, strict=True) if has), ()
    )


def _has_run(client: MlflowClient, experiments: list[str], project: str, content: Content) -> bool:
    return bool(client.search_runs(experiments, _filter(project, content), max_results=1))


def _filter(project: str, content: Content) -> str:
    key, seal = content
    of_content = f"tags.`{KEY_TAG}` = '{key}' and tags.`{SEAL_TAG}` = '{seal}'"
    return f"{project_filter(project)} and {of_content}"


def _experiments_with(client: MlflowClient, project: str, content: Content) -> Iterator[str]:
    experiments = client.search_experiments(max_results=EXPERIMENTS)
    names = {
        str(stored_experiment.experiment_id): stored_experiment.name
        for stored_experiment in experiments
    }
    runs = client.search_runs(list(names), _filter(project, content)) if names else []
    for experiment_id in sorted({str(run.info.experiment_id) for run in runs}):
        yield f'"{names[experiment_id]}" (id {experiment_id})'


def _ask_local(
    root: Path, experiment: str, project: str, contents: Collection[Content]
) -> PublishedContents:
    path = local_store(root)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            experiment_row = db.execute(
                "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?",
                (experiment,),
            ).fetchone()
            rows = db.execute(LOCAL_RUNS, (KEY_TAG, SEAL_TAG, PROJECT_TAG, project)).fetchall()
    except sqlite3.Error as error:
        raise BackendError(f"{path} cannot be read: {error}.") from None
    if experiment_row and experiment_row[1] == "deleted":
        raise BackendError(deleted_experiment(root, str(experiment_row[0]), experiment))
    requested = frozenset(contents)
    present = requested & {Content(*row[3:]) for row in rows if row[0] == experiment}
    others = sorted({f'"{row[0]}" (id {row[1]})' for row in rows if Content(*row[3:]) in requested})
    return PublishedContents(present, () if experiment_row else tuple(others))

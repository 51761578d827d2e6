"""Which contents have a sealed run in the MLflow store that is in use now."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.mlflow.store import (
    deleted_experiment,
    is_local,
    local_store,
    reading,
    store_exists,
    tracking_uri,
)
from toxtrail.backends.mlflow.write_run import KEY_TAG, SEAL_TAG
from toxtrail.errors import BackendError
from toxtrail.redaction import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

THREADS = 8
EXPERIMENTS = 1000
"""Most that are searched for runs of an experiment that was renamed."""

LOCAL_RUNS = """
SELECT e.name, e.experiment_id, e.lifecycle_stage, k.value, s.value
FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = ?
JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = ?
WHERE r.lifecycle_stage = 'active' OR e.lifecycle_stage = 'deleted'
"""


class Content(NamedTuple):
    """What a receipt says, and the tags of a sealed run."""

    content_key: str
    seal: str


class Answer(NamedTuple):
    """What the store says."""

    present: frozenset[Content]
    """Those asked for that have a sealed run in the experiment."""
    elsewhere: tuple[str, ...]
    """If the store has no such experiment: those that hold such runs, as `"name" (id)`."""


def store_name(root: Path) -> str:
    """The store, for people."""
    return "mlruns/mlflow.db" if is_local(root) else redacted(tracking_uri(root))


def ask(root: Path, experiment: str, contents: Collection[Content]) -> Answer:
    """Which of these contents have a sealed run in the store. The local store is read without
    MLflow, whose import takes seconds.

    Raises:
        BackendError: the store cannot be read, or the experiment was deleted in it.
    """
    if not contents or not store_exists(root):
        return Answer(frozenset(), ())
    if is_local(root):
        return _ask_local(root, experiment, contents)
    with reading(root) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return Answer(frozenset(), tuple(_holders(client, next(iter(contents)))))
        if found.lifecycle_stage == "deleted":
            raise BackendError(deleted_experiment(root, str(found.experiment_id), str(found.name)))
        places = [str(found.experiment_id)]
        with ThreadPoolExecutor(THREADS) as pool:
            present = list(pool.map(lambda one: _has(client, places, one), contents))
    return Answer(frozenset(c for c, has in zip(contents, present, strict=True) if has), ())


def _has(client: MlflowClient, experiments: list[str], content: Content) -> bool:
    return bool(client.search_runs(experiments, _filter(content), max_results=1))


def _filter(content: Content) -> str:
    key, seal = content
    return f"tags.`{KEY_TAG}` = '{key}' and tags.`{SEAL_TAG}` = '{seal}'"


def _holders(client: MlflowClient, content: Content) -> Iterator[str]:
    experiments = client.search_experiments(max_results=EXPERIMENTS)
    names = {str(one.experiment_id): one.name for one in experiments}
    runs = client.search_runs(list(names), _filter(content)) if names else []
    for place in sorted({str(run.info.experiment_id) for run in runs}):
        yield f'"{names[place]}" (id {place})'


def _ask_local(root: Path, experiment: str, contents: Collection[Content]) -> Answer:
    path = local_store(root)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            known = db.execute(
                "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?",
                (experiment,),
            ).fetchone()
            rows = db.execute(LOCAL_RUNS, (KEY_TAG, SEAL_TAG)).fetchall()
    except sqlite3.Error as error:
        raise BackendError(f"{path} cannot be read: {error}.") from None
    if known and known[1] == "deleted":
        raise BackendError(deleted_experiment(root, str(known[0]), experiment))
    asked = frozenset(contents)
    present = asked & {Content(*row[3:]) for row in rows if row[0] == experiment}
    others = sorted({f'"{row[0]}" (id {row[1]})' for row in rows if Content(*row[3:]) in asked})
    return Answer(present, () if known else tuple(others))

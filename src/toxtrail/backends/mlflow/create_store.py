"""The experiment's own MLflow store: made whole or not at all.

MLflow makes the tables of a new SQLite file in about seventy steps. Whoever is killed between two
of them leaves a file that MLflow can neither open nor complete. So the file is made beside and
renamed; and one that an interrupted creation left, of an earlier version too, is replaced if it
holds nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

DRAFT = ".mlflow-draft-"
SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a database while it is written."""
SEEDED = {"alembic_version", "workspaces"}
"""Tables that MLflow fills itself before a store is complete."""


def complete_store(path: Path, artifacts: Path) -> None:
    """Make a store that does not exist or was never completed. The caller holds its lock.

    Args:
        path: of the SQLite file.
        artifacts: the folder of its files.
    """
    if path.is_file() and not _is_empty_start(path):
        return
    for leftover in path.parent.glob(f"{DRAFT}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=DRAFT))
    try:
        draft = folder / path.name
        _make(draft, artifacts)
        for ending in SIDE_FILES:
            path.with_name(path.name + ending).unlink(missing_ok=True)
        draft.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_empty_start(path: Path) -> bool:
    """Whether a database is what an interrupted creation leaves, and holds nothing. MLflow writes
    the experiment "Default" when all else is complete."""
    with suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=rw"  # SQLite first undoes what was interrupted
        with closing(sqlite3.connect(uri, uri=True)) as db:
            names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = [name for (name,) in names if name not in SEEDED]
            return not any(
                db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables
            )
    return False


def _make(draft: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made: Any = SqlAlchemyStore  # MLflow does not annotate it
    store = made(f"sqlite:///{draft}", artifacts.as_uri())
    store.engine.dispose()
    _sync(draft)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

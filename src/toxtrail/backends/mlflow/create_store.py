"""Create the experiment's local MLflow store atomically.

MLflow creates the tables of a new SQLite file in about seventy steps. A process killed between two
of them leaves a file that MLflow can neither open nor complete. So the file is created under
another name and renamed; one left by an interrupted creation, also of an earlier version, is
replaced if it is empty.
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
"""Suffixes of SQLite's files beside a database while it is written."""
SEEDED = {"alembic_version", "workspaces"}
"""Tables that MLflow fills before a store is complete."""


def complete_store(path: Path, artifacts: Path) -> None:
    """Create a store that does not exist or was never completed. The caller must hold its lock.

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
        _create(draft, artifacts)
        for ending in SIDE_FILES:
            path.with_name(path.name + ending).unlink(missing_ok=True)
        draft.replace(path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_empty_start(path: Path) -> bool:
    """Return whether a database was left by an interrupted creation and is empty. MLflow writes the
    experiment "Default" when everything else is complete."""
    with suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=rw"  # SQLite first rolls back interrupted writes
        with closing(sqlite3.connect(uri, uri=True)) as db:
            names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = [name for (name,) in names if name not in SEEDED]
            return not any(
                db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables
            )
    return False


def _create(draft: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store_class: Any = SqlAlchemyStore  # MLflow does not annotate it
    store = store_class(f"sqlite:///{draft}", artifacts.as_uri())
    store.engine.dispose()
    _fsync(draft)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

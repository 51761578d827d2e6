"""A store of the experiment's own is whole, or is not there."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from toxtrail.backends.mlflow import create_store
from toxtrail.backends.mlflow.create_store import complete_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    complete_store(folder / "mlflow.db", folder / "artifacts")
    return (folder / "mlflow.db").read_bytes()


@pytest.fixture
def make(monkeypatch, whole):
    """Making the tables takes seconds: copy them."""
    made = []

    def copied(draft, artifacts):
        made.append(draft)
        draft.write_bytes(whole)

    monkeypatch.setattr(create_store, "_create", copied)
    return made


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_store_holds_the_default_experiment_and_nothing_lies_beside_it(tmp_path, whole):
    path = tmp_path / "mlflow.db"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


def test_a_store_is_made_once(tmp_path, make):
    path = tmp_path / "mlflow.db"
    for _ in range(2):
        complete_store(path, tmp_path)
    assert len(make) == 1
    assert names(tmp_path) == ["mlflow.db"]


def test_an_interrupted_creation_leaves_no_store(tmp_path, monkeypatch):
    def killed(draft, artifacts):
        draft.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(create_store, "_create", killed)
    with pytest.raises(KeyboardInterrupt):
        complete_store(tmp_path / "mlflow.db", tmp_path)
    assert names(tmp_path) == []


def test_drafts_of_killed_processes_are_removed(tmp_path, make):
    (tmp_path / f"{create_store.DRAFT}x").mkdir()
    (tmp_path / f"{create_store.DRAFT}x/mlflow.db").write_bytes(b"half")
    complete_store(tmp_path / "mlflow.db", tmp_path)
    assert names(tmp_path) == ["mlflow.db"]


TORN = {
    "an empty file": [],
    "no version": ["CREATE TABLE experiments (experiment_id INTEGER)"],
    "a version half-way": [
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
        "CREATE TABLE runs (run_uuid TEXT)",
        "CREATE TABLE workspaces (name TEXT)",
        "INSERT INTO workspaces VALUES ('default')",
    ],
}


@pytest.mark.parametrize("steps", TORN.values(), ids=TORN)
def test_what_an_interrupted_creation_left_is_replaced(tmp_path, make, steps, whole):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as db:
        for step in steps:
            db.execute(step)
        db.commit()
    path.touch()
    path.with_name("mlflow.db-journal").write_bytes(b"")
    complete_store(path, tmp_path)
    assert path.read_bytes() == whole
    assert names(tmp_path) == ["mlflow.db"]


@pytest.mark.parametrize("table", ["experiments", "runs", "registered_models"])
def test_a_store_that_holds_anything_is_left_alone(tmp_path, make, table):
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE {table} (id TEXT)")
        db.execute(f"INSERT INTO {table} VALUES ('x')")
        db.commit()
    before = path.read_bytes()
    complete_store(path, tmp_path)
    assert path.read_bytes() == before
    assert make == []


def test_a_file_that_is_no_database_is_left_alone(tmp_path, make):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"this is no database" * 100)
    complete_store(path, tmp_path)
    assert path.read_bytes() == b"this is no database" * 100

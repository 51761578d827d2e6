"""What is here and could not be read is neither broken nor absent, whatever reads it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.lineage.lineage import LineageBuilder
from toxtrail.auditing.verify.context import (
    CHECK_CATEGORIES,
    OUTCOMES,
    Check,
    catch_damage,
    checks_of,
    failed,
    ok,
    problem,
)
from toxtrail.auditing.verify.hash_cache import HashCache, dvc_files
from toxtrail.auditing.verify.mlflow_runs import open_store_checked
from toxtrail.auditing.verify.run import tally
from toxtrail.backends.assets.local import content_of
from toxtrail.backends.mlflow import store as mlflow_store
from toxtrail.backends.protocols import NoProgress
from toxtrail.cli.verify import exit_code, show
from toxtrail.errors import BackendError, DataError, UnreadableError, why_unread


def refused(number: int, name: str = "a/file") -> OSError:
    return OSError(number, os.strerror(number), name)


OF_THE_SYSTEM = [
    refused(errno.EACCES),
    refused(errno.EPERM),
    refused(errno.EMFILE),
    refused(errno.ENFILE),
    refused(errno.ENOMEM),
    refused(errno.EIO),
    refused(errno.ESTALE),
    refused(errno.ENOSPC),
    MemoryError(),
    RuntimeError("can't start new thread"),
    UnreadableError("503"),
]
OF_THE_FILE = [
    refused(errno.ENOENT),
    refused(errno.EISDIR),
    refused(errno.ENOTDIR),
    refused(errno.ELOOP),
    refused(errno.EINVAL),
    OSError("truncated file"),
    DataError("no Parquet file"),
    BackendError("it says something else"),
    ValueError("no JSON"),
    KeyError("seal"),
    RecursionError("maximum recursion depth"),
]


def in_other_words(error: BaseException) -> DataError:
    """The same, as a reader says it."""
    try:
        try:
            raise error
        except type(error):
            raise DataError("the file is damaged") from None
    except DataError as said:
        return said


@pytest.mark.parametrize("error", OF_THE_SYSTEM, ids=repr)
def test_what_the_system_refuses_says_nothing_against_a_file(error):
    for one in (error, in_other_words(error)):
        assert why_unread(one)
        check = failed("scores", "rows", one, "it is damaged")
        assert check.outcome == "unread"
        assert "damaged" not in check.detail


@pytest.mark.parametrize("error", OF_THE_FILE, ids=repr)
def test_what_is_wrong_with_a_file_is_broken(error):
    for one in (error, in_other_words(error)):
        assert why_unread(one) is None
        assert failed("scores", "rows", one, "it is damaged").outcome == "BROKEN"


def test_one_part_of_several_that_could_not_be_read_hides_no_other():
    problems = ["one was changed", problem(refused(errno.EACCES), "x"), "three is missing"]
    assert [c.outcome for c in checks_of("weights", "m", problems)] == [
        "BROKEN",
        "unread",
        "BROKEN",
    ]


def test_what_was_found_before_stays():
    def part():
        yield ok("scores", "first")
        raise refused(errno.EACCES, "second")

    checks = catch_damage("scores", "the part", part())
    assert [check.outcome for check in checks] == ["ok", "unread"]
    assert "second" in checks[1].detail


@given(counts=st.lists(st.sampled_from(OUTCOMES), max_size=30), complete=st.booleans())
def test_table_last_line_and_exit_code_agree(counts, complete):
    from click.testing import CliRunner

    checks = [Check("scores", str(n), one, "") for n, one in enumerate(counts)]
    rows = tally(checks)
    assert all(sum(row[1:]) == len(checks) for row in rows)
    bad = {"BROKEN", "unread", *(["absent"] if complete else [])}
    assert (exit_code(checks, complete) == 3) == bool(bad & set(counts))
    with CliRunner().isolation() as streams:
        show(checks, as_json=False, verbose=False, require_all=complete)
        last = streams[0].getvalue().decode().splitlines()[-1]
    assert ("could not be read" in last) == ("unread" in counts)
    assert ("checks failed" in last) == ("BROKEN" in counts)
    assert ("No check failed" in last) == (
        "BROKEN" not in counts and bool({"unread", "absent"} & set(counts))
    )
    assert last.startswith("All ") == (not {"BROKEN", "unread", "absent"} & set(counts))


def test_the_table_fits_a_terminal_of_80_columns(capsys):
    show([Check(link, link, "ok", "") for link in CHECK_CATEGORIES], False, False, False)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.fixture
def locked(monkeypatch):
    """Makes opening and listing of places fail as for another user."""
    places: set[str] = set()
    plain = {name: getattr(os, name) for name in ("open", "scandir")}

    def guard(name):
        def call(path, *arguments, **options):
            if str(path) in places:
                raise refused(errno.EACCES, str(path))
            return plain[name](path, *arguments, **options)

        return call

    for name in plain:
        monkeypatch.setattr(os, name, guard(name))
    return lambda path: places.add(str(path))


def test_a_digest_of_what_may_not_be_read_is_no_missing_file(tmp_path, locked):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    locked(tmp_path / "one")
    digests = HashCache(NoProgress())
    digests.prepare([tmp_path, tmp_path / "none"])
    with pytest.raises(PermissionError):
        digests.of(tmp_path / "one")
    with pytest.raises(PermissionError):
        digests.folder(tmp_path)
    assert digests.of(tmp_path / "two") is not None
    assert digests.of(tmp_path / "none") is None


@pytest.mark.parametrize("listed", [dvc_files, content_of])
def test_a_folder_that_may_not_be_listed_is_no_empty_one(tmp_path, locked, listed):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    assert listed(tmp_path)
    locked(tmp_path / "in")
    with pytest.raises(PermissionError):
        listed(tmp_path)
    assert listed(tmp_path / "none") == []


def test_a_link_of_the_chain_is_unread_and_no_mismatch(tmp_path, locked):
    from toxtrail.storage.artifacts import ArtifactStore

    (tmp_path / "scores").write_text("x")
    locked(tmp_path / "scores")
    chain = LineageBuilder(ArtifactStore(tmp_path))
    assert chain._standing("scores", "0" * 64) == "unread"
    assert chain._standing("none", "0" * 64) == "not here"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (mlflow_store.UnreachableStoreError("nothing answers"), "absent"),
        (mlflow_store.DamagedStoreError("file is not a database"), "BROKEN"),
        (BackendError("401"), "unread"),
        (BackendError("database is locked"), "unread"),
        (refused(errno.EACCES), "unread"),
        (MemoryError(), "unread"),
    ],
)
def test_a_store_that_refuses_is_not_called_broken(monkeypatch, tmp_path, error, outcome):
    from types import SimpleNamespace

    from toxtrail.auditing.verify import mlflow_runs

    def read_store(root: Path, experiment: str, project: str) -> None:
        raise error

    monkeypatch.setattr(mlflow_runs, "read_store", read_store)
    config = SimpleNamespace(tracking=SimpleNamespace(experiment="x", project="lab-0000abcd"))
    view, checks = open_store_checked(SimpleNamespace(root=tmp_path, config=config), None)
    assert (view, [check.outcome for check in checks]) == (None, [outcome])


def test_a_database_that_may_not_be_read_is_reported_at_once(tmp_path, locked, monkeypatch):
    """MLflow itself would try again for minutes."""
    path = tmp_path / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0")
    locked(path)
    with (
        pytest.raises(UnreadableError, match="permission denied"),
        mlflow_store.locked_client(tmp_path),
    ):
        pass

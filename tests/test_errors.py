"""What failed for lack of space, or by what the system refuses, is told apart from a bug."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from toxtrail.errors import BackendError, is_disk_full, problem_of


def chained(error, cause):
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "rows.jsonl")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        sqlite3.OperationalError("database or disk is full"),
        chained(BackendError("The run could not be published."), FULL),
    ],
)
def test_a_full_disk_is_known_however_it_is_said(error):
    assert is_disk_full(error)


def test_an_error_while_another_is_handled_is_known_by_the_first():
    second = ValueError("second")
    second.__context__ = FULL
    assert is_disk_full(second)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), ValueError("full"), None]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_disk_full(error)


def test_errors_that_come_from_each_other_come_to_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_disk_full(one)


def tried(call, *arguments):
    with pytest.raises(OSError) as raised:
        call(*arguments)
    return raised.value


def test_what_the_system_refuses_is_a_sentence_with_the_path(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for path in ("none", "file/x", "a", "n" * 300, "."):
        error = tried((tmp_path / path).open)
        said = problem_of(error)
        assert str(tmp_path / path) in said
        assert "Errno" not in said
        assert said.endswith(".")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, 12345])
def test_every_system_error_names_its_path(number):
    assert "/x/y" in problem_of(OSError(number, os.strerror(number), "/x/y"))
    assert problem_of(OSError(number, os.strerror(number)))
    both = problem_of(OSError(number, os.strerror(number), "/x", None, "/y"))
    assert "/x" in both
    assert "/y" in both


def test_a_bug_is_none():
    for error in (ValueError("x"), OSError("of a library"), KeyError("x")):
        assert problem_of(error) is None

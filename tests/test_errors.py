"""What failed for lack of space is told apart from what is a bug."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from toxtrail.errors import BackendError, no_room


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
    assert no_room(error)


def test_an_error_while_another_is_handled_is_known_by_the_first():
    second = ValueError("second")
    second.__context__ = FULL
    assert no_room(second)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), ValueError("full"), None]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not no_room(error)


def test_errors_that_come_from_each_other_come_to_an_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not no_room(one)

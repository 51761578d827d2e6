"""Requests that another publisher prevented are repeated; others are not."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from toxtrail.backends.mlflow.conflicts import ATTEMPTS, retry_conflicts

CONFLICTS = [
    '(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "dataset_pk"',
    "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid",
    "(pymysql.err.IntegrityError) (1062, \"Duplicate entry 'a-b' for key 'PRIMARY'\")",
    "(psycopg.errors.DeadlockDetected) deadlock detected",
]


def counted(errors):
    """A request that fails with each of these, then succeeds; and the number of its calls."""
    calls = []

    def request():
        calls.append(None)
        if len(calls) <= len(errors):
            raise MlflowException(errors[len(calls) - 1])

    return request, calls


@pytest.mark.parametrize("message", CONFLICTS)
def test_a_conflict_is_repeated(message):
    request, calls = counted([message, message])
    retry_conflicts(request)
    assert len(calls) == 3


def test_another_error_is_raised_at_once():
    request, calls = counted(["the run must be in the 'active' state"])
    with pytest.raises(MlflowException, match="active"):
        retry_conflicts(request)
    assert len(calls) == 1


def test_a_conflict_that_stays_is_raised():
    request, calls = counted([CONFLICTS[0]] * (ATTEMPTS + 1))
    with pytest.raises(MlflowException, match="dataset_pk"):
        retry_conflicts(request)
    assert len(calls) == ATTEMPTS

"""Repeat requests that another publisher of the same store prevented.

MLflow searches for a row and inserts it if there is none. Of two such requests at the same time,
the database refuses the second, and MLflow returns its error; a repeated request finds the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ATTEMPTS = 8
CONFLICT = re.compile(
    r"UniqueViolation|duplicate key value|UNIQUE constraint failed|Duplicate entry|"
    r"deadlock detected|Deadlock found|could not serialize access",
)
"""Messages of PostgreSQL, SQLite and MySQL."""


def retry_conflicts(request: Callable[[], object]) -> None:
    """Make a request that may be repeated, until no other publisher prevents it.

    Raises:
        MlflowException: another error, or a conflict every time.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(ATTEMPTS - 1):
        try:
            request()
        except MlflowException as error:
            if CONFLICT.search(str(error)) is None:
                raise
        else:
            return
    request()

"""Rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.text_escaping import escape_formula


def rows_to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return the text of a CSV file; no cell is a formula.

    Args:
        columns: their order; empty: the order in which they turn up.
    """
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    lines = [_csv_line([row.get(name) for name in columns]) for row in rows]
    return "".join([_csv_line(columns), *lines])


def _csv_line(values: Sequence[object]) -> str:
    """With the other end of line Python's writer would leave a lone \\r unquoted: a cell would
    become two lines."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([escape_formula(value) for value in values])
    return line.getvalue().removesuffix("\r\n") + "\n"

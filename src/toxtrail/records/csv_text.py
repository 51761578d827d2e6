"""Rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.text_escaping import escape_formula


def rows_to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return CSV with a column for each name, in the order of first occurrence; no cell is a
    formula."""
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    lines = [_csv_line([row.get(name) for name in columns]) for row in rows]
    return "".join([_csv_line(columns), *lines])


def _csv_line(values: Sequence[object]) -> str:
    """Return one line; with the other line end, Python's writer would leave a lone \r unquoted, and
    a cell would become two lines."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([escape_formula(value) for value in values])
    return line.getvalue().removesuffix("\r\n") + "\n"

"""Users' own files: .txt, .csv, .jsonl and .parquet to rows, with the line of any problem."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toxtrail.errors import DataError, nearest

Rows = Iterator[tuple[int, dict[str, Any]]]
"""(row number from 0, column -> value)."""


def read_rows(path: Path) -> Rows:
    """Rows of a .csv, .jsonl or .parquet file.

    Raises:
        DataError: another ending, broken UTF-8, JSON that is no object, a damaged file.
    """
    if path.suffix == ".jsonl":
        yield from _jsonl(path)
    elif path.suffix == ".csv":
        yield from enumerate(csv.DictReader(_lines(path)))
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise DataError(f"{path.name}: rows are read from .csv, .jsonl and .parquet files.")


def read_texts(path: Path, column: str | None) -> Iterator[tuple[int, str]]:
    """(row number from 0, text) of a .txt file, or of one column of a table; blank rows are
    skipped.

    Raises:
        DataError: the column is missing (the nearest name is shown), or a value is no text.
    """
    if path.suffix == ".txt":
        if column is not None:
            raise DataError(f"{path.name} is plain text, one a line: remove column: {column}.")
        rows: Iterator[tuple[int, Any]] = enumerate(_lines(path))
    elif column is None:
        raise DataError(f"{path.name} is a table: say which column holds the text (column: ...).")
    else:
        rows = ((number, field(path, number, row, column)) for number, row in read_rows(path))
    for number, value in rows:
        if text := clean_text(path, number, value).strip():
            yield number, text


def field(path: Path, number: int, row: dict[str, Any], name: str) -> Any:
    """One column's value; DataError with the nearest column if there is none."""
    if name not in row:
        raise DataError(
            f'{path.name}, row {number + 1}: no column "{name}".' + nearest(name, map(str, row))
        )
    return row[name]


def clean_text(path: Path, number: int, value: object) -> str:
    """The value as text that UTF-8 can hold; None is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{path.name}, row {number + 1}: found {type(value).__name__}, a text is needed."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path.name}, row {number + 1}: the text is not valid Unicode.") from None
    return value


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start}). Convert it."
        ) from None
    lines = text.split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _jsonl(path: Path) -> Rows:
    for number, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path.name}, line {number + 1} is not JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path.name}, line {number + 1} is no JSON object.")
        yield number, row


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} is no readable Parquet file: {error}.") from None
    yield from enumerate(table.to_pylist())

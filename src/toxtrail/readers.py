"""Users' own files: .txt, .csv, .json, .jsonl and .parquet to rows, with the line of any
problem."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.errors import DataError, nearest

Rows = Iterator[tuple[int, dict[str, Any]]]
"""(row number from 0, column -> value)."""

SHAPES = (
    'a list of objects ([{"text": ...}, ...]), or texts by category and name '
    '({"category": {"name": ["text", ...]}})'
)
"""What a .json file may hold."""


def read_rows(path: Path) -> Rows:
    """Rows of a .csv, .json, .jsonl or .parquet file.

    A .json file holds a list of objects, an object a line like .jsonl, or, as BOLD's (Dhamala et
    al. 2021, arXiv:2101.11718), texts by category and name, which become rows of `category`, `name`
    and `text`.

    Raises:
        DataError: another ending, broken UTF-8, JSON of another shape, a damaged file.
    """
    if path.suffix == ".jsonl":
        yield from _jsonl(path)
    elif path.suffix == ".json":
        yield from _json(path)
    elif path.suffix == ".csv":
        yield from _csv(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise DataError(f"{path.name}: rows are read from .csv, .json, .jsonl and .parquet files.")


def read_texts(path: Path, column: str | None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(row number from 0, text, the row) of a .txt file, or of one column of a table; a blank text
    is empty.

    Raises:
        DataError: the column is missing (the nearest name is shown), or a value is no text.
    """
    if path.suffix == ".txt":
        if column is not None:
            raise DataError(f"{path.name} is plain text, one a line: remove column: {column}.")
        for number, line in enumerate(_lines(path)):
            yield number, clean_text(path, number, line).strip(), {}
        return
    if column is None:
        raise DataError(f"{path.name} is a table: say which column holds the text (column: ...).")
    for number, row in read_rows(path):
        value = field(path, number, row, column)
        yield number, clean_text(path, number, value).strip(), row


def field(path: Path, number: int, row: Mapping[str, Any], name: str) -> Any:
    """One column's value, `a.b` being b of the object a; DataError with the nearest column if there
    is none. What is missing below an empty object is None."""
    value: Any = row
    if name in row:
        return row[name]
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(
                f'{path.name}, row {number + 1}: no column "{name}".' + nearest(name, columns(row))
            )
        value = value[part]
    return value


def columns(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The names by which `field` finds something, with those inside nested objects."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from columns(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


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


def _whole(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start}). Convert it."
        ) from None


def _lines(path: Path) -> list[str]:
    lines = _whole(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _csv(path: Path) -> Rows:
    """The reader gets the ends of lines too: a cell may hold some."""
    try:
        yield from enumerate(csv.DictReader(io.StringIO(_whole(path), newline="")))
    except csv.Error as error:
        raise DataError(f"{path.name} is no readable CSV file: {error}.") from None


def _json(path: Path) -> Rows:
    try:
        value = json.loads(_whole(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # an object a line, under the other name
            yield from _jsonl(path)
            return
        raise DataError(f"{path.name} is not JSON: {error.msg} at line {error.lineno}.") from None
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        yield from enumerate(value)
        return
    rows = list(_by_category(value)) if isinstance(value, dict) else [None]
    if not rows or None in rows:
        raise DataError(f"{path.name}: a .json file holds {SHAPES}.")
    yield from enumerate(row for row in rows if row is not None)


def _by_category(value: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Rows of BOLD's shape; None where it is another one."""
    for category, names in value.items():
        if not isinstance(names, dict):
            yield None
            continue
        for name, texts in names.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                yield None
                continue
            yield from ({"category": category, "name": name, "text": text} for text in texts)


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

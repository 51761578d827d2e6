"""Readers of user files: .txt, .csv, .tsv, .json, .jsonl and .parquet to rows; errors give the
line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.datasets.readers.csv_rows import DETECTED, SUFFIXES, csv_rows
from toxtrail.datasets.readers.json_rows import json_rows, jsonl_rows
from toxtrail.datasets.readers.text import is_blank, read_lines, refuse_pages
from toxtrail.errors import ConfigError, DataError, did_you_mean, is_of_the_system
from toxtrail.regular_files import read_bytes

Rows = Iterator[tuple[int, dict[str, Any]]]
"""(row number from 0, column -> value)."""


def read_rows(path: Path, delimiter: str | None = None, exact: bool = False) -> Rows:
    """Read the rows of a .csv, .tsv, .json, .jsonl or .parquet file.

    A .json file contains a list of objects, one object per line like .jsonl, or, like BOLD's
    (Dhamala et al. 2021, arXiv:2101.11718), texts by category and name, which become rows of
    `category`, `name` and `text`.

    Args:
        delimiter: of a .csv file; None to detect it in the header.
        exact: keep the digits of numbers in .json and .jsonl files (Decimal).

    Raises:
        ConfigError: a delimiter is given for a file without delimiters.
        DataError: unknown suffix, invalid UTF-8, JSON of another structure, a damaged file.
    """
    suffix = path.suffix.lower()
    if delimiter is not None and suffix not in SUFFIXES:
        raise ConfigError(f"{path.name} has no delimiter, only .csv files have: remove delimiter.")
    if suffix in SUFFIXES:
        yield from csv_rows(path, delimiter)
    elif suffix == ".jsonl":
        yield from jsonl_rows(path, exact)
    elif suffix == ".json":
        yield from json_rows(path, exact)
    elif suffix == ".parquet":
        yield from _parquet(path)
    else:
        raise DataError(
            f"{path.name}: rows are read from .csv, .tsv, .json, .jsonl and .parquet files."
        )


def read_texts(
    path: Path,
    column: str | None,
    delimiter: str | None = None,
    parse: Callable[[Path, int, Any], Any] | None = None,
) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    """Return (row number from 0, text, row) of a .txt file, or of one column of a table; a text
    without visible characters is empty.

    Args:
        parse: returns another value than the text for (path, row number, cell).

    Raises:
        ConfigError: a delimiter is given for a file without delimiters.
        DataError: the column is missing (the message shows the nearest name), or a value is not
            text.
    """
    parse = parse or seen_text
    if path.suffix.lower() == ".txt":
        options = {"column": column, "delimiter": delimiter}
        if named := next((name for name, value in options.items() if value is not None), None):
            raise DataError(f"{path.name} is plain text, one a line: remove {named}.")
        for number, line in enumerate(read_lines(path)):
            yield number, parse(path, number, line), {}
        return
    if column is None:
        raise DataError(f"{path.name} is a table: set the text column (column: ...).")
    for number, row in read_rows(path, delimiter):
        yield number, parse(path, number, field(path, number, row, column)), row


def holds_text_alone(path: Path) -> bool:
    """Return whether all values are text, so that numbers and booleans must be parsed."""
    return path.suffix.lower() in SUFFIXES


def field(path: Path, number: int, row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column; `a.b` is the field b of the object a.

    Missing fields of an empty object are None.

    Raises:
        DataError: there is no such column; the message shows the nearest name.
    """
    value: Any = row
    if name in row:
        return row[name]
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise DataError(
                f'{path.name}, row {number + 1}: no column "{name}".' + _instead(path, name, row)
            )
        value = value[part]
    return value


def columns(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the names accepted by `field`, including those inside nested objects."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from columns(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def seen_text(path: Path, number: int, value: object) -> str:
    """Return the value as stripped text; empty if it has no visible characters."""
    text = clean_text(path, number, value).strip()
    return "" if is_blank(text) else text


def clean_text(path: Path, number: int, value: object) -> str:
    """Return the value as text that UTF-8 can represent; None becomes empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{path.name}, row {number + 1}: expected text, got {type(value).__name__}."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{path.name}, row {number + 1}: the text is not valid Unicode.") from None
    return value


def _instead(path: Path, name: str, row: Mapping[str, Any]) -> str:
    """Describe the existing columns, for a missing one."""
    names = list(columns(row))
    if holds_text_alone(path) and any(mark in one for one in names for mark in DETECTED):
        return (
            f" The header names {len(names)} column(s): {', '.join(names)}. If another character "
            'separates them, set it: delimiter: ";".'
        )
    return did_you_mean(name, names)


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_bytes(path, limit=None)
    refuse_pages(path, content)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f'{path.name}: the column "{twice}" occurs twice. Rename one.')
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        yield from enumerate(rows)
    except (pa.ArrowException, OSError, ValueError) as error:
        if is_of_the_system(error):
            raise
        raise DataError(f"{path.name} is not a readable Parquet file: {error}.") from None

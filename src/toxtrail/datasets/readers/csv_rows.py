"""Rows of .csv and .tsv files: each is read exactly as written, or rejected with its row and
line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from toxtrail.datasets.readers.text import read_text
from toxtrail.errors import DataError

SUFFIXES = (".csv", ".tsv")
DETECTED = (";", "\t", "|")
"""Delimiters that are detected if the header contains no comma."""
NAMES: Mapping[str, str] = {"\t": "a tab"}
TAB = "tab"
"""Names of the tab in params.yaml."""
DECLARED = re.compile(r"sep=([^\r\n])(\r\n|\n|\r)")
"""First line that declares the delimiter for Excel."""
LONGEST = 2**31 - 1
"""Maximum characters of a cell. Python's default limit is 131,072."""


class Record(NamedTuple):
    """Row of the file."""

    line: int
    """Line on which it begins, from 1."""
    cells: list[str]


def csv_rows(path: Path, delimiter: str | None) -> Iterator[tuple[int, dict[str, str]]]:
    """Return rows as dicts by the header's names; empty lines are skipped.

    Args:
        delimiter: None for a comma (in a .tsv file a tab), unless the header indicates another one.

    Raises:
        DataError: a row has more or fewer cells than the header, quotes are not closed, or a column
            name is duplicated.
    """
    text = read_text(path)
    mark = _delimiter(path, text, delimiter)
    records = _records(path, _body(text), mark, text.count("\n") - _body(text).count("\n"))
    filled = (record for record in records if record.cells)
    header = next(filled, None)
    if header is None:
        raise DataError(f"{path.name} has no header: its first line names the columns.")
    names = header.cells
    if twice := next((n for n in names if n and names.count(n) > 1), None):
        raise DataError(
            f'{path.name}, line {header.line}: the column "{twice}" occurs twice. Rename one.'
        )
    for number, (line, cells) in enumerate(filled):
        if len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        elif len(cells) == 1 and not cells[0].strip():  # a line of spaces
            yield number, dict.fromkeys(names, "")
        else:
            raise DataError(
                f"{path.name}, row {number + 1} (line {line}): found {len(cells)} cell(s), but the "
                f"header has {len(names)}, separated by {shown(mark)}. Put a cell that contains "
                f"{shown(mark)} in double quotes, or set delimiter: if it is another character."
            )


def unusual_delimiter(path: Path, delimiter: str | None) -> str | None:
    """Return the delimiter of a .csv file if it is not a comma (of a .tsv file: not a tab)."""
    if path.suffix.lower() not in SUFFIXES:
        return None
    mark = _delimiter(path, read_text(path), delimiter)
    return None if mark == _usual(path) else mark


def shown(delimiter: str) -> str:
    """Format the delimiter for a message."""
    return NAMES.get(delimiter, f'"{delimiter}"')


def _usual(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _body(text: str) -> str:
    """Return the text without the line that declares a delimiter."""
    declared = DECLARED.match(text)
    return text[declared.end() :] if declared else text


def _delimiter(path: Path, text: str, delimiter: str | None) -> str:
    if delimiter is not None:
        return "\t" if delimiter == TAB else delimiter
    if declared := DECLARED.match(text):
        return declared[1]
    usual, body = _usual(path), _body(text)
    if _columns(path, body, usual) > 1:
        return usual
    others = [mark for mark in DETECTED if _columns(path, body, mark) > 1]
    if len(others) > 1:
        raise DataError(
            f"{path.name}: the header can be separated by {' or by '.join(map(shown, others))}. "
            "Set it: delimiter: ..."
        )
    return others[0] if others else usual


def _columns(path: Path, text: str, delimiter: str) -> int:
    """Return the header's columns for this delimiter."""
    try:
        records = _records(path, text, delimiter, 0)
        return len(next((record.cells for record in records if record.cells), ()))
    except DataError:
        return 0


def _records(path: Path, text: str, delimiter: str, skipped: int) -> Iterator[Record]:
    """Yield every row including the header; those of empty lines have no cells."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    line, row = skipped + 1, 0
    while True:
        taken.clear()
        try:
            cells = _next_row(reader)
        except csv.Error as error:
            raise _misquoted(path, row, line, delimiter, _reason(error)) from None
        if cells is None:
            return
        written = "".join(taken)
        if '"' in written and (reason := _quote_problem(cells, written)):
            raise _misquoted(path, row, line, delimiter, reason)
        yield Record(line, cells)
        line += len(taken)
        row += bool(cells)


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Read one row with a larger cell limit, which is a setting of the process and therefore
    reset."""
    limit = csv.field_size_limit(LONGEST)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def _quote_problem(cells: list[str], written: str) -> str | None:
    """Return what is wrong with the quotes of a row that the csv module accepts."""
    position = 0
    for cell in cells:
        quoted = '"{}"'.format(cell.replace('"', '""'))
        in_quotes = written.startswith(quoted, position)
        position += len(quoted if in_quotes else cell) + 1
        if in_quotes:
            continue
        if cell.count('"') % 2:
            return "a cell that is not in double quotes contains a single one"
        if cell.lstrip().startswith('"') and cell.rstrip().endswith('"'):
            return "white space precedes a cell in double quotes"
    return None


def _reason(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "double quotes are opened and never closed"
    return "text follows the double quotes that close a cell"


def _misquoted(path: Path, row: int, line: int, delimiter: str, reason: str) -> DataError:
    position = f"row {row} (line {line})" if row else f"header (line {line})"
    return DataError(
        f"{path.name}, {position}: {reason}. A cell in double quotes begins and ends with them, "
        f"without white space between them and {shown(delimiter)}; double quotes inside are "
        'written twice: "She said ""hi"", and left."'
    )

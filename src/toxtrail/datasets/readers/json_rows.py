"""Rows of .json and .jsonl files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from toxtrail.datasets.readers.text import read_lines, read_text
from toxtrail.errors import DataError

SHAPES = (
    'a list of objects ([{"text": ...}, ...]), or texts by category and name '
    '({"category": {"name": ["text", ...]}})'
)
"""Supported structures of a .json file."""


class NotJSONError(ValueError):
    """Text that is not a single JSON value; the message gives the reason."""


def parse_json(text: str, exact: bool = False) -> Any:
    """Parse one value.

    Args:
        exact: read numbers with a fraction as Decimals, which keep the written digits.

    Raises:
        NotJSONError: invalid JSON, or an object with a duplicate name.
    """
    doubled: list[_Doubled] = []
    value = _parsed(text, exact, doubled)
    if doubled:
        raise NotJSONError(f'the name "{doubled[0].name}" is in one object twice')
    return value


def jsonl_rows(path: Path, exact: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the rows of a file with one object per line."""
    for number, line in enumerate(read_lines(path)):
        if not line.strip():
            continue
        try:
            row = parse_json(line, exact)
        except NotJSONError as error:
            hint = " A file with one list must be named .json." if line.strip() == "[" else ""
            raise DataError(f"{path.name}, line {number + 1} is not JSON: {error}.{hint}") from None
        if not isinstance(row, dict):
            hint = " A file with one list must be named .json." if isinstance(row, list) else ""
            raise DataError(f"{path.name}, line {number + 1} is not a JSON object.{hint}")
        yield number, row


def json_rows(path: Path, exact: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the rows of a list of objects, of one object per line, or of BOLD's structure."""
    doubled: list[_Doubled] = []
    text = read_text(path)
    try:
        value = _parsed(text, exact, doubled)
    except NotJSONError as error:
        if isinstance(error.__cause__, json.JSONDecodeError) and (
            error.__cause__.msg == "Extra data"
        ):  # an object a line, under the other name
            yield from jsonl_rows(path, exact)
            return
        raise DataError(f"{path.name} is not JSON: {error}.") from None
    if doubled:
        raise DataError(f"{path.name}{_row_of(value)}: {_name_twice(doubled[0])}.")
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        yield from enumerate(value)
        return
    rows = list(_by_category(value)) if isinstance(value, dict) else [None]
    if not rows or None in rows:
        raise DataError(f"{path.name}: a .json file holds {SHAPES}.")
    yield from enumerate(row for row in rows if row is not None)


class _Doubled(dict[str, Any]):
    """Object with a duplicate name."""

    name = ""


def _name_twice(found: _Doubled) -> str:
    return f'the name "{found.name}" is in one object twice, so one value would be lost'


def _parsed(text: str, exact: bool, doubled: list[_Doubled]) -> Any:
    parse_float: Callable[[str], Any] = Decimal if exact else float

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) == len(pairs):
            return values
        found = _Doubled(values)
        names = [name for name, _ in pairs]
        found.name = next(name for name in names if names.count(name) > 1)
        doubled.append(found)
        return found

    try:
        return json.loads(text, object_pairs_hook=made, parse_float=parse_float)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise NotJSONError(f"{error.msg} at {line}column {error.colno}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise NotJSONError("an integer has thousands of digits") from error
    except RecursionError as error:
        raise NotJSONError("it is nested too deep") from error


def _row_of(value: Any) -> str:
    """Return `, row N` for the first row with a duplicate name, if the value is a list of rows."""
    rows = enumerate(value) if isinstance(value, list) else ()
    return next((f", row {number + 1}" for number, row in rows if _holds_doubled(row)), "")


def _holds_doubled(value: Any) -> bool:
    if isinstance(value, _Doubled):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds_doubled(one) for one in inner)


def _by_category(value: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Return the rows of BOLD's structure; None for another structure."""
    for category, names in value.items():
        if not isinstance(names, dict):
            yield None
            continue
        for name, texts in names.items():
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                yield None
                continue
            yield from ({"category": category, "name": name, "text": text} for text in texts)

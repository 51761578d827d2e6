"""Representation of row classes outside Python: JSON, Arrow, and the lines of docs/tables.md.

A field is a column, with its name and type. `Annotated[type, "meaning"]` documents it; a field
without a meaning shares the line of the field before it. A field `Annotated[Mapping[str, <class>],
Mark.FLATTEN, "meaning"]` is several columns for each key: `<key>_<field of that class>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NamedTuple,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from toxtrail.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")


class Mark(Enum):
    """JSON representation of a field, if it differs from its value."""

    FLATTEN = "flatten"
    """A mapping of rows: the keys of the JSON object are `<key>_<field>`."""
    OPTIONAL = "optional"
    """The JSON object has the key only if the value is not the default."""


class LeftOut(NamedTuple):
    """Marks a list of rows whose JSON objects lack some columns. Reading takes them from the fields
    of the same name of the object that has the list; else they have their defaults."""

    columns: frozenset[str]


class RowColumn(NamedTuple):
    """One column of a table."""

    name: str
    type: type
    """str, int, float or bool."""
    meaning: str
    """For docs/tables.md; empty: it shares the line of the column before it."""


class ResultTable(NamedTuple):
    """Result rows with their columns, which do not depend on the rows."""

    columns: Sequence[RowColumn]
    rows: Sequence[Mapping[str, Any]]
    """Column -> value."""

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]


class _Field(NamedTuple):
    name: str
    type: Any
    """Without None."""
    meaning: str
    marks: Sequence[Mark]
    left_out: frozenset[str]
    default: Any
    """MISSING if it has none."""
    nullable: bool

    @property
    def part_class(self) -> type | None:
        """The row class of a flattened mapping; None of any other field."""
        part: type | None = get_args(self.type)[1] if Mark.FLATTEN in self.marks else None
        return part


def columns_of(row_class: type, keys: Mapping[Any, str] | None = None) -> list[RowColumn]:
    """Return the columns of a row class, in order.

    Args:
        keys: of its flattened mapping, each with its meaning.
    """
    columns = []
    for field in _fields(row_class):
        if field.part_class is None:
            columns.append(RowColumn(field.name, field.type, field.meaning))
            continue
        for key, meaning in (keys or {}).items():
            first, *others = columns_of(field.part_class)
            columns.append(
                RowColumn(f"{key}_{first.name}", first.type, f"{meaning}: {field.meaning}")
            )
            columns += [RowColumn(f"{key}_{part.name}", part.type, "") for part in others]
    return columns


def result_table(
    row_class: type, rows: Iterable[object], keys: Mapping[Any, str] | None = None
) -> ResultTable:
    """Return rows of a class as a table. See columns_of."""
    return ResultTable(columns_of(row_class, keys), [to_json(row) for row in rows])


def to_arrow(table: ResultTable) -> pa.Table:
    """Return a table as Arrow; every cell may be null."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([pa.field(column.name, types[column.type]) for column in table.columns])
    return pa.Table.from_pylist([dict(row) for row in table.rows], schema=schema)


def doc_lines(columns: Iterable[RowColumn]) -> list[str]:
    """Return the lines of the Markdown table that documents these columns."""
    documented: list[tuple[list[str], str]] = []
    for column in columns:
        if column.meaning or not documented:
            documented.append(([], column.meaning))
        documented[-1][0].append(f"`{column.name}`")
    lines = [f"| {', '.join(names)} | {meaning} |" for names, meaning in documented]
    return ["| column | meaning |", "|---|---|", *lines]


def with_columns(row: Row, other: object | None) -> Row:
    """Return the row with the values of the columns that another row has too."""
    if other is None:
        return row
    names = {field.name for field in _fields(type(row))}
    shared = [field.name for field in _fields(type(other)) if field.name in names]
    replaced: Row = replace(row, **{name: getattr(other, name) for name in shared})  # type: ignore[type-var]
    return replaced


def to_json(row: object) -> dict[str, Any]:
    """Return the JSON object of a row or a summary, its keys in the order of the fields."""
    result: dict[str, Any] = {}
    for field in _fields(type(row)):
        value = getattr(row, field.name)
        if field.part_class is not None:
            for key, part in value.items():
                result |= {f"{key}_{name}": entry for name, entry in to_json(part).items()}
        elif Mark.OPTIONAL not in field.marks or not _is_default(value, field.default):
            result[field.name] = _to_json(value, field.left_out)
    return result


def from_json(row_class: type[Row], values: Mapping[str, Any]) -> Row:
    """Return the row or the summary of a JSON object.

    Raises:
        DataError: it lacks a field, or has a key that is not a field.
    """
    row_fields = _fields(row_class)
    others = {n: v for n, v in values.items() if n not in {field.name for field in row_fields}}
    arguments: dict[str, Any] = {}
    for field in row_fields:
        if field.part_class is not None:
            arguments[field.name] = _take_parts(field.part_class, others)
        elif field.name in values:
            inherited = {name: values[name] for name in field.left_out if name in values}
            arguments[field.name] = _read_field(field, values[field.name], inherited)
        elif field.default is MISSING:
            raise DataError(f"A {row_class.__name__} lacks the field {field.name}.")
    if others:
        raise DataError(f"A {row_class.__name__} has the unknown field {next(iter(others))}.")
    return row_class(**arguments)


def _is_default(value: Any, default: Any) -> bool:
    return not value if default == () else value == default


def _to_json(value: Any, left_out: frozenset[str] = frozenset()) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry, left_out) for entry in value]
    if not is_dataclass(value):
        return value
    return {name: entry for name, entry in to_json(value).items() if name not in left_out}


def _read_field(field: _Field, value: Any, inherited: Mapping[str, Any]) -> Any:
    if value is not None:
        if not _has_form(field.type, value):
            raise DataError(f"The field {field.name} has a value of type {type(value).__name__}.")
        return _from_json(field.type, value, inherited)
    if not field.nullable:
        raise DataError(f"The field {field.name} is null.")
    return None


def _has_form(value_type: Any, value: object) -> bool:
    """Return whether a JSON value can be one of this type; its parts are checked where they are
    read."""
    origin = get_origin(value_type)
    if origin is Sequence:
        (entry_type,) = get_args(value_type)
        return isinstance(value, list) and all(_has_form(entry_type, entry) for entry in value)
    if origin is Mapping:
        entry_type = get_args(value_type)[1]
        return isinstance(value, dict) and all(_has_form(entry_type, v) for v in value.values())
    if isinstance(value_type, type) and is_dataclass(value_type):
        return isinstance(value, dict)
    if value_type in (int, float):
        numbers = (int, float) if value_type is float else (int,)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return value_type not in (str, bool) or isinstance(value, value_type)


def _from_json(value_type: Any, value: Any, inherited: Mapping[str, Any]) -> Any:
    if get_origin(value_type) is Sequence:
        (entry_type,) = get_args(value_type)
        return [_from_json(entry_type, entry, inherited) for entry in value]
    if get_origin(value_type) is Mapping:
        return {key: _from_json(get_args(value_type)[1], entry, {}) for key, entry in value.items()}
    if isinstance(value_type, type) and is_dataclass(value_type):
        return from_json(value_type, {**inherited, **value})
    return value


def _take_parts(part_class: type[Row], values: dict[str, Any]) -> dict[str, Row]:
    """Read the keys of a flattened mapping, and remove them from `values`."""
    names = [column.name for column in columns_of(part_class)]
    suffix = f"_{names[0]}"
    keys = [name.removesuffix(suffix) for name in values if name.endswith(suffix)]
    parts = {
        key: {name: values.pop(f"{key}_{name}") for name in names if f"{key}_{name}" in values}
        for key in keys
    }
    return {key: from_json(part_class, part) for key, part in parts.items()}


def _read_fields(row_class: type) -> tuple[_Field, ...]:
    hints = get_type_hints(row_class, include_extras=True)
    return tuple(
        _describe(field.name, hints[field.name], field.default) for field in fields(row_class)
    )


_fields: Callable[[type], tuple[_Field, ...]] = cast(Any, cache(_read_fields))


def _describe(name: str, hint: Any, default: Any) -> _Field:
    hint, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
    nullable = isinstance(hint, UnionType)
    if nullable:
        hint = next(part for part in get_args(hint) if part is not NoneType)
    return _Field(
        name,
        hint,
        next((mark for mark in marks if isinstance(mark, str)), ""),
        [mark for mark in marks if isinstance(mark, Mark)],
        next((mark.columns for mark in marks if isinstance(mark, LeftOut)), frozenset()),
        default,
        nullable,
    )

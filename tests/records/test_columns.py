"""The fields of a row class are JSON keys, Arrow columns and lines of docs/tables.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pytest

from toxtrail.errors import DataError
from toxtrail.records.columns import (
    LeftOut,
    Mark,
    columns_of,
    doc_lines,
    from_json,
    result_table,
    to_arrow,
    to_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    n: int
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    variant: Annotated[str, "who"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Key):
    x: Annotated[float | None, "a number and whether it is large"]
    large: bool
    flags: Annotated[Mapping[str, Share], Mark.FLATTEN, "how often"]
    note: Annotated[str | None, Mark.OPTIONAL] = None
    late: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    variant: str
    rows: Annotated[Sequence[Example], LeftOut(frozenset({"variant", "late"}))]
    by_name: Mapping[str, Share]
    extra: Annotated[Sequence[Share], Mark.OPTIONAL] = ()


ROW = Example(variant="v", x=None, large=True, flags={"empty": Share(n=2, rate=0.5)})
ROW_JSON = {
    "variant": "v", "x": None, "large": True, "empty_n": 2, "empty_rate": 0.5, "late": None
}  # fmt: skip


def test_a_row_is_a_json_object_with_keys_in_the_order_of_its_fields():
    assert list(to_json(ROW).items()) == list(ROW_JSON.items())


def test_a_row_is_read_from_its_json_object():
    assert from_json(Example, ROW_JSON) == ROW
    assert from_json(Example, {**ROW_JSON, "note": "n"}).note == "n"


def test_a_field_with_a_default_may_be_absent():
    assert from_json(Example, {k: v for k, v in ROW_JSON.items() if k != "late"}) == ROW


@pytest.mark.parametrize("name", ["variant", "x", "empty_rate"])
def test_a_row_without_a_field_is_refused(name):
    with pytest.raises(DataError, match=name.removeprefix("empty_")):
        from_json(Example, {k: v for k, v in ROW_JSON.items() if k != name})


def test_a_row_with_an_unknown_field_is_refused():
    with pytest.raises(DataError, match="other"):
        from_json(Example, {**ROW_JSON, "other": 1})


@pytest.mark.parametrize(
    ("row_class", "change"),
    [
        (Example, {"variant": 1}),
        (Example, {"x": "0.5"}),
        (Example, {"x": True}),
        (Example, {"large": 1}),
        (Example, {"empty_n": 2.5}),
        (Example, {"empty_n": False}),
        (Example, {"empty_rate": [0.5]}),
        (Example, {"late": "1"}),
        (Summary, {"rows": "abc"}),
        (Summary, {"rows": {"a": 1}}),
        (Summary, {"rows": ["abc"]}),
        (Summary, {"rows": [None]}),
        (Summary, {"by_name": []}),
        (Summary, {"by_name": {"a": 1}}),
        (Summary, {"by_name": {"a": {"n": "2", "rate": None}}}),
        (Summary, {"extra": [{"n": 1, "rate": "high"}]}),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(row_class, change):
    values = {Example: ROW_JSON, Summary: {"variant": "v", "rows": [], "by_name": {}}}[row_class]
    from_json(row_class, values)
    with pytest.raises(DataError):
        from_json(row_class, {**values, **change})


def test_a_whole_number_is_a_float():
    assert from_json(Example, {**ROW_JSON, "x": 1, "empty_rate": 0}).x == 1


def test_a_list_of_rows_leaves_out_what_the_summary_has_once():
    summary = Summary(variant="v", rows=[ROW], by_name={"a": Share(n=1, rate=None)})
    values = {
        "variant": "v",
        "rows": [{"x": None, "large": True, "empty_n": 2, "empty_rate": 0.5}],
        "by_name": {"a": {"n": 1, "rate": None}},
    }
    assert to_json(summary) == values
    assert from_json(Summary, values) == summary


def test_columns_have_the_types_of_the_fields_whatever_the_rows_hold():
    schema = to_arrow(result_table(Example, [], {"empty": "empty texts"})).schema
    assert {field.name: field.type for field in schema} == {
        "variant": pa.string(),
        "x": pa.float64(),
        "large": pa.bool_(),
        "empty_n": pa.int64(),
        "empty_rate": pa.float64(),
        "note": pa.string(),
        "late": pa.int64(),
    }
    assert to_arrow(result_table(Example, [ROW], {"empty": "empty texts"})).schema == schema


def test_a_field_without_a_meaning_shares_the_line_of_the_field_before_it():
    assert doc_lines(columns_of(Example, {"empty": "empty texts", "odd": "odd texts"})) == [
        "| column | meaning |",
        "|---|---|",
        "| `variant` | who |",
        "| `x`, `large` | a number and whether it is large |",
        "| `empty_n`, `empty_rate` | empty texts: how often |",
        "| `odd_n`, `odd_rate`, `note`, `late` | odd texts: how often |",
    ]

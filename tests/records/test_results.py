"""Result rows and summaries survive JSON, and the classes agree with each other."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from toxtrail.analysis.comparison import with_pooled
from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS, flag_meanings
from toxtrail.errors import DataError
from toxtrail.records.analysis_output import parse_summary
from toxtrail.records.columns import columns_of, from_json, to_json
from toxtrail.records.results import (
    OPTIONAL_TABLES,
    TABLES,
    ComparisonSummary,
    ErrorControlRow,
    PairRow,
    PooledPairRow,
    PooledRateRow,
    PoolingDiagnostics,
    RateRow,
    VariantSummary,
)


@pytest.fixture
def family(measured, score_rows):
    values = {"base": {"a": [0.1] * 8, "b": [0.9, 0.1]}, "tuned": {"a": [0.9] * 8, "b": [0.9, 0.1]}}
    rows = {name: score_rows(variant_values) for name, variant_values in values.items()}
    return measured(rows, {"base": None, "tuned": "base"})


def test_a_variants_summary_survives_json(family):
    summary = family.summaries["tuned"]
    values = json.loads(json.dumps(to_json(summary)))
    assert "variant" not in values["rates"][0]
    assert from_json(VariantSummary, values) == summary


def test_a_comparison_survives_json(family, settings):
    summary = with_pooled(family.compared(settings), None).summary
    values = json.loads(json.dumps(to_json(summary)))
    assert values["pairs"][0]["verdict"] == "higher"
    assert {f"{flag}_n" for flag in RESPONSE_FLAGS} <= values["behaviour"][0].keys()
    assert to_json(from_json(ComparisonSummary, values)) == values


def test_every_table_is_a_field_of_the_comparison():
    assert set(TABLES) | OPTIONAL_TABLES <= {field.name for field in fields(ComparisonSummary)}


@pytest.mark.parametrize("row_class", TABLES.values())
def test_no_two_columns_of_a_table_have_one_name(row_class):
    names = [column.name for column in columns_of(row_class, flag_meanings())]
    assert len(names) == len(set(names))
    assert columns_of(row_class, flag_meanings())[0].meaning


def test_pooled_columns_are_the_same_in_every_row_class():
    def columns(row_class):
        return {column.name: column.type for column in columns_of(row_class)}

    keys = {"variant", "a", "b", "scorer", "subset"}
    for row_class, part_class in (
        (RateRow, PooledRateRow),
        (PairRow, PooledPairRow),
        (ErrorControlRow, PoolingDiagnostics),
    ):
        assert columns(part_class).keys() - keys
        assert columns(part_class).items() <= columns(row_class).items()


def test_a_damaged_summary_is_refused_with_its_file(family):
    values = to_json(family.summaries["tuned"])
    damages = (
        {"rates": 5}, {"rates": None}, {"rates": [5]}, {"rates": [{}]}, {"rates": [None]},
        {"other": 1}, {"labels": [None]},
    )  # fmt: skip
    for damage in damages:
        with pytest.raises(DataError, match=r"x/summary\.json is damaged"):
            parse_summary(VariantSummary, {**values, **damage}, "x/summary.json")

"""What `compare` prints: the differences first, other tables and forms on request."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from toxtrail.analysis.comparison import with_pooled
from toxtrail.analysis.half_width import half_width_rows
from toxtrail.cli._compare_output import (
    SECTIONS,
    ComparisonOptions,
    LoadedComparison,
    print_comparisons,
)
from toxtrail.errors import ConfigError
from toxtrail.records.columns import to_json


@pytest.fixture
def summary(score_rows, measured, settings):
    values = {
        "base": {"a": [0.1] * 30 + [0.9] * 10},
        "tuned": {"a": [0.9] * 20 + [0.1] * 20},
    }
    rows = {name: score_rows(subsets) for name, subsets in values.items()}
    family = measured(rows, {"base": None, "tuned": "base"})
    return with_pooled(family.compared(settings), None).summary


def printed(summary, capsys, monkeypatch, sections=None):
    monkeypatch.setenv("COLUMNS", "200")
    item = LoadedComparison(summary, "results/comparisons/f")
    print_comparisons([item], ComparisonOptions(None, None), "text", sections, False)
    return capsys.readouterr().out


def test_the_differences_are_printed_with_three_notes(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch)
    lines = [line.rstrip() for line in text.splitlines()]
    notes = [line for line in lines if line and not line.startswith(" ")][1:]
    table = [line for line in lines if line.startswith("  ")]
    assert max(map(len, table)) <= 140
    assert any("+25.0" in line for line in table)
    assert len(notes) == 3
    assert "tuned against base" in notes[0]
    assert "Response behaviour" not in text


def test_rows_without_a_score_are_counted_before_the_differences(summary, capsys, monkeypatch):
    assert "Rows without a score" not in printed(summary, capsys, monkeypatch)
    rates = [
        replace(row, n_error=3, n_empty=1) if row.variant == "tuned" else row
        for row in summary.rates
    ]
    text = printed(replace(summary, rates=rates), capsys, monkeypatch)
    (note,) = [line for line in text.splitlines() if line.startswith("Rows without a score")]
    assert note.rstrip().endswith(": tuned 4.")


@pytest.mark.parametrize(
    ("section", "holds"),
    [("rates", "10 / 40"), ("behaviour", "Response behaviour"), ("notes", "interval")],
)
def test_a_section_is_printed_by_its_name(section, holds, summary, capsys, monkeypatch):
    assert holds in printed(summary, capsys, monkeypatch, [section])


def test_all_sections_hold_every_table(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch, SECTIONS)
    assert "Response behaviour" in text
    assert "toxicity rate" in text
    assert "Differences, paired by prompt" in text


@pytest.fixture
def two_scorers(score_rows, measured, settings):
    rows = {
        name: [row for scorer in ("judge", "second") for row in score_rows(values, scorer)]
        for name, values in {
            "base": {"a": [0.1] * 20, "b": [0.1] * 10 + [0.9] * 10},
            "tuned": {"a": [0.1] * 10 + [0.9] * 10, "b": [0.9] * 20},
        }.items()
    }
    return measured(rows, {"base": None, "tuned": "base"}).compared(settings).summary


def as_json(item, selection, capsys):
    print_comparisons([item], selection, "json", None, False)
    (values,) = json.loads(capsys.readouterr().out)
    return values


def test_scorer_and_subset_choose_rows_of_every_table(two_scorers, capsys):
    item = LoadedComparison(two_scorers, "x")
    assert as_json(item, ComparisonOptions(None, None), capsys) == to_json(two_scorers)
    part = as_json(item, ComparisonOptions("second", "b"), capsys)
    for name in ("rates", "pairs"):
        assert {(row["scorer"], row["subset"]) for row in part[name]} == {("second", "b")}
    assert {row["subset"] for row in part["behaviour"]} == {"b"}
    assert part["variants"] == to_json(two_scorers)["variants"]
    by_default = ComparisonOptions(None, "a").pairs(two_scorers)
    assert [(row.scorer, row.subset) for row in by_default] == [("judge", "a")]
    assert (
        len(ComparisonOptions("every", "every").pairs(two_scorers)) == len(two_scorers.pairs) == 6
    )
    with pytest.raises(ConfigError, match='"c"'):
        ComparisonOptions(None, "c").pairs(two_scorers)
    with pytest.raises(ConfigError, match='"third"'):
        ComparisonOptions("third", None).pairs(two_scorers)


def test_csv_and_json_have_the_columns_of_an_option(two_scorers, capsys):
    rows = half_width_rows(two_scorers.pairs, 0.05, 0.5)
    item = LoadedComparison(two_scorers, "x", half_width=0.05, half_widths=rows)
    values = as_json(item, ComparisonOptions(None, None), capsys)
    assert values["precision"] == 0.05
    assert [row["n_for_precision"] for row in values["pairs"]] == [r.n_for_precision for r in rows]
    print_comparisons([item], ComparisonOptions(None, "b"), "csv", None, False)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split(",") == ["family", *values["pairs"][0]]
    assert row.startswith("f,base,tuned,parent,judge,b,")


def test_tables_on_request_have_a_column_for_the_scorer_if_there_are_several(two_scorers, capsys):
    item = LoadedComparison(two_scorers, "x")
    for scorer, rows in (("every", 2), ("judge", 1)):
        print_comparisons([item], ComparisonOptions(scorer, "a"), "text", ["notes"], True)
        table = capsys.readouterr().out.split("95% intervals")[-1].splitlines()
        assert any("scorer" in line for line in table) == (scorer == "every")
        assert sum("base (parent)" in line for line in table) == rows

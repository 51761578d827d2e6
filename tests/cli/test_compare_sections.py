"""What `compare` prints: the differences first, other tables and forms on request."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as options
from hypothesis import strategies as st

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
from toxtrail.records.results import RefusalPairRow, RefusalRow
from toxtrail.reporting.column_meanings import explained_columns
from toxtrail.reporting.comparison_tables import (
    brief_notes,
    comparison_notes,
    headlines,
    rate_matrix,
    rates,
    samples,
    section_tables,
)
from toxtrail.reporting.comparison_view import ComparisonView

pytestmark = pytest.mark.slow


@pytest.fixture
def summary(score_rows, measured, settings):
    values = {
        "base": {"a": [0.1] * 30 + [0.9] * 10},
        "tuned": {"a": [0.9] * 20 + [0.1] * 20},
    }
    rows = {name: score_rows(subsets) for name, subsets in values.items()}
    family = measured(rows, {"base": None, "tuned": "base"})
    return with_pooled(family.compared(settings), None).summary


def printed(summary, capsys, monkeypatch, sections=None, explain=False, columns="80"):
    monkeypatch.setenv("COLUMNS", columns)
    item = LoadedComparison(summary, "results/comparisons/f")
    print_comparisons([item], ComparisonOptions(None, None), "text", sections, False, explain)
    return capsys.readouterr().out


def test_the_differences_are_printed_with_three_short_notes(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch)
    table, notes = text.rstrip("\n").split("\n\n")[1:]
    notes = notes.splitlines()
    assert max(map(len, text.splitlines())) <= 80
    assert "+25.0" in table
    assert notes[3].startswith("Not shown")
    assert "tuned" in notes[0]
    assert "Response behaviour" not in text


NAMES = st.text("abcxyz-0123456789", min_size=1, max_size=70)


@given(a=NAMES, b=NAMES, subset=NAMES, source=NAMES, low=st.floats(-1, 1), k=st.integers(1, 3))
@options(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_notes_are_three_lines_of_80_columns_with_names_of_any_length(
    summary, a, b, subset, source, low, k
):
    row = replace(
        summary.pairs[0], a=a, b=b, subset=subset, diff=0.1, simultaneous_lo=low, verdict="higher"
    )
    rates = [replace(rate, variant=b, subset=subset) for rate in summary.rates]
    variants = [replace(summary.variants[0], variant=name, parent=None) for name in (a, b)]
    changed = replace(summary, pairs=[row] * k, rates=rates, variants=variants)
    notes = brief_notes(ComparisonView(changed, "judge", subset), source)
    assert len(notes) <= 3
    longest = len(subset) + len("From : No variant is credibly more toxic.") + 1
    if max(longest, len(source) + 6, len(b) + 40) <= 80:
        assert all(len(line) <= 80 for line in notes)


def test_explain_prints_all_notes_and_the_meaning_of_the_columns(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch, explain=True)
    (view,) = ComparisonOptions(None, None).views(summary)
    for note in comparison_notes(view):
        assert note.split()[-1] in text
    assert "Equal-tailed interval" in text


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
    [("rates", "10 / 40"), ("behaviour", "Response behaviour")],
)
def test_a_section_is_printed_by_its_name(section, holds, summary, capsys, monkeypatch):
    assert holds in printed(summary, capsys, monkeypatch, [section])


def test_all_sections_hold_every_table(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch, SECTIONS)
    assert "Response behaviour" in text
    assert "toxicity rate" in text
    assert "Differences, paired by prompt" in text


def test_one_subset_is_one_row_in_tables_and_two_in_data(summary, capsys, monkeypatch):
    (view,) = ComparisonOptions(None, None).views(summary)
    for table in section_tables(view):
        assert {row[names_of(table).index("subset")] for row in table.rows} == {"all"}
    assert [column.name for column in rate_matrix(view).columns][3:] == ["all"]
    assert len(headlines(view)) == 1
    assert brief_notes(view, "x")[1].startswith("0 of 1 difference ")
    by_name = ComparisonOptions(None, "a").views(summary)[0]
    assert {row[1] for row in rates(by_name).rows} == {"a"}
    print_comparisons(
        [LoadedComparison(summary, "x")], ComparisonOptions(None, None), "csv", None, False
    )
    assert len(capsys.readouterr().out.splitlines()) == 3


def names_of(table):
    return [column.name for column in table.columns]


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
    assert as_json(item, ComparisonOptions(None, None), capsys) == {
        **to_json(two_scorers),
        "unfinished": [],
    }
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


def empty_row(row_class, **values):
    return row_class(**{field.name: None for field in fields(row_class)} | values)


@pytest.fixture
def with_guards(two_scorers):
    """A comparison with refusals by two guards."""
    places = [(scorer, subset) for scorer in ("judge", "second") for subset in ("all", "a", "b")]
    names = {"a": "base", "b": "tuned", "relation": "parent", "n": 9}
    return replace(
        two_scorers,
        refusals=[
            empty_row(RefusalRow, variant="base", n=9, n_unanswered=0, scorer=scorer, subset=subset)
            for scorer, subset in places
        ],
        refusal_pairs=[
            empty_row(RefusalPairRow, **names, scorer=scorer, subset=subset)
            for scorer, subset in places
        ],
    )


@pytest.mark.parametrize("subset", [None, "every", "all", "a", "b"])
@pytest.mark.parametrize("scorer", [None, "every", "judge", "second"])
def test_every_row_of_every_table_obeys_the_selection(with_guards, scorer, subset, capsys):
    selection = ComparisonOptions(scorer, subset)
    allowed = {
        "subset": {"all", "a", "b"} if subset in (None, "every") else {subset},
        "guard": {"judge", "second"} if scorer in (None, "every") else {scorer},
    }
    views = selection.views(with_guards)
    assert [view.scorer for view in views] == {
        None: ["judge"], "every": ["judge", "second"]
    }.get(scorer, [scorer])  # fmt: skip
    for view in views:
        tables = section_tables(view)
        assert len(tables) == 9
        for table in tables:
            for name in {"subset", "guard"} & set(names_of(table)):
                shown = {row[names_of(table).index(name)] for row in table.rows}
                assert shown == allowed[name]
            columns = {"judge", "second"} & set(names_of(table))
            assert columns <= allowed["guard"]
    item = LoadedComparison(with_guards, "x")
    print_comparisons([item], selection, "csv", None, False)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["subset"] for row in rows} == allowed["subset"]
    assert {row["scorer"] for row in rows} == {view.scorer for view in views}
    values = as_json(item, selection, capsys)
    for rows in (rows for rows in values.values() if isinstance(rows, list)):
        assert {row["subset"] for row in rows if "subset" in row} <= allowed["subset"]
        assert {row["scorer"] for row in rows if "scorer" in row} <= allowed["guard"]


def test_every_column_has_a_meaning(with_guards):
    (view,) = ComparisonOptions(None, None).views(with_guards)
    tables = [*section_tables(view), rate_matrix(view), samples(view)]
    named = {"judge", "second", "all", "a", "b", "verdict of judge"}
    headings = {name for table in tables for name in names_of(table)} - named
    assert headings == {row[0] for row in explained_columns(tables).rows}


@pytest.mark.parametrize("option", ["--scorer", "--subset"])
def test_an_unknown_name_is_refused_with_the_known_ones(option, two_scorers):
    selection = ComparisonOptions(*(("x", None) if option == "--scorer" else (None, "x")))
    known = "judge, second, every" if option == "--scorer" else "all, a, b, every"
    with pytest.raises(ConfigError, match=f'{option}: unknown name "x". Known: {known}'):
        selection.views(two_scorers)


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
        print_comparisons([item], ComparisonOptions(scorer, "a"), "text", ["rates"], True)
        table = capsys.readouterr().out.split("95% intervals")[-1].splitlines()
        assert any("scorer" in line for line in table) == (scorer == "every")
        assert sum("tuned" in line for line in table) == rows

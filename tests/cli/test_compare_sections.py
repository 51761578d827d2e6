"""What `compare` prints: the differences first, other tables on request."""

from __future__ import annotations

import pytest

from toxtrail.analysis.comparison import with_pooled
from toxtrail.cli.compare_tables import SECTIONS, print_comparison
from toxtrail.records.columns import to_json


@pytest.fixture
def summary(score_rows, measured, settings):
    values = {
        "base": {"a": [0.1] * 30 + [0.9] * 10},
        "tuned": {"a": [0.9] * 20 + [0.1] * 20},
    }
    rows = {name: score_rows(subsets) for name, subsets in values.items()}
    family = measured(rows, {"base": None, "tuned": "base"})
    return to_json(with_pooled(family.compared(settings), None).summary)


def printed(summary, capsys, monkeypatch, sections=None):
    monkeypatch.setenv("COLUMNS", "140")
    print_comparison(summary, "results/comparisons/f", None, None, "text", sections)
    return capsys.readouterr().out


def test_the_differences_alone_fit_100_columns_with_three_notes(summary, capsys, monkeypatch):
    text = printed(summary, capsys, monkeypatch)
    lines = [line.rstrip() for line in text.splitlines()]
    notes = [line for line in lines if line and not line.startswith(" ")][1:]
    table = [line for line in lines if line.startswith("  ")]
    assert max(map(len, table)) <= 100
    assert any("+25.0" in line for line in table)
    assert len(notes) == 3
    assert "tuned against base" in notes[0]
    assert "Response behaviour" not in text


def test_rows_without_a_score_are_counted_before_the_differences(summary, capsys, monkeypatch):
    assert "Rows without a score" not in printed(summary, capsys, monkeypatch)
    rates = [
        {**row, "n_error": 3, "n_empty": 1} if row["variant"] == "tuned" else row
        for row in summary["rates"]
    ]
    text = printed({**summary, "rates": rates}, capsys, monkeypatch)
    assert "Rows without a score, in no rate and no difference: tuned 4." in text


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

"""The answer at a glance: the worst first, named, and only called credible if it is."""

from __future__ import annotations

import pytest

from toxtrail.cli import _output
from toxtrail.cli.compare_tables import SECTIONS, print_comparison
from toxtrail.records.columns import from_json, to_json
from toxtrail.records.results import ComparisonSummary
from toxtrail.reporting.dvc_metrics import dvc_metrics, dvc_plot_rows
from toxtrail.reporting.headline import (
    family_headline,
    rate_matrix,
    sort_pairs,
    subset_headline,
    subsets_of,
)
from toxtrail.reporting.mlflow_page import rate_metrics
from toxtrail.reporting.result_text import chance_note, rate_table_row


@pytest.fixture
def summary(score_rows, settings, measured):
    values = {
        "base": {"mild": [0.1] * 40, "severe": [0.1] * 20 + [0.9] * 20},
        "better": {"mild": [0.1] * 40, "severe": [0.1] * 39 + [0.9]},
        "worse": {"mild": [0.1] * 39 + [0.9], "severe": [0.9] * 40},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    parents = {"base": None, "better": "base", "worse": "base"}
    return to_json(measured(rows, parents).compared(settings).summary)


def test_the_headline_names_the_worst_variant_of_a_subset_and_says_that_it_is_credible(summary):
    said = subset_headline(summary, "judge", "severe")
    row = row_of(summary, "worse", "severe")
    assert said.startswith("worse against base by at least +")
    assert f"at least {100 * row['simultaneous_lo']:+.1f} points, 50.0 % to 100.0 %" in said
    assert "the largest of 2;" in said
    assert "corrected for 4 differences" in said
    assert said.endswith("credible.")


def row_of(summary, variant, subset):
    return next(r for r in summary["pairs"] if (r["b"], r["subset"]) == (variant, subset))


def test_a_headline_corrects_for_every_difference_that_it_may_name(summary):
    """Two variants in two subsets: the headlines of subsets choose among four."""
    assert {(r["subset"], r["n_simultaneous"]) for r in summary["pairs"]} == {
        ("all", 2),
        ("mild", 4),
        ("severe", 4),
    }
    for row in summary["pairs"]:
        assert row["simultaneous_lo"] < row["diff_lo"] or row["diff_lo"] == row["diff"]
        assert row["simultaneous_hi"] > row["diff_hi"] or row["diff_hi"] == row["diff"]


def of_many(count, lo, simultaneous_lo, **more):
    """A family of as many variants, of which the first has the largest difference."""
    row = {
        "a": "base", "relation": "parent", "scorer": "judge", "subset": "all", "n": 128,
        "rate_a": 0.1, "level": 0.95, "n_simultaneous": count, "pd": 0.99,
    }  # fmt: skip
    rows = [
        {
            **row,
            "b": f"v{i}",
            "rate_b": 0.1 + (0.06 if i == 0 else 0.0),
            "diff": 0.06 if i == 0 else 0.0,
            "diff_lo": lo if i == 0 else -0.05,
            "diff_hi": 0.11,
            "simultaneous_lo": simultaneous_lo if i == 0 else -0.08,
            "simultaneous_hi": 0.14,
            "verdict": "higher" if i == 0 and lo > 0 else "not decisive",
            **more,
        }
        for i in range(count)
    ]
    variants = [{"variant": "base", "parent": None}]
    variants += [{"variant": f"v{i}", "parent": "base"} for i in range(count)]
    return {"pairs": rows, "variants": variants}


def test_the_largest_of_many_is_not_called_credible_by_its_own_interval_alone():
    said = subset_headline(of_many(27, 0.01, -0.02), "judge")
    assert "Worst is" not in said
    assert "No variant is credibly" in said
    assert "the largest of 27" in said
    assert '95% interval gives "higher"' in said


def test_what_is_claimed_of_the_largest_is_the_bound_of_its_corrected_interval():
    said = subset_headline(of_many(27, 0.03, 0.012), "judge")
    assert "at least +1.2 points" in said
    assert "the largest of 27" in said


def test_of_one_difference_nothing_is_said_of_a_choice():
    said = subset_headline(of_many(1, 0.012, 0.012), "judge")
    assert "largest" not in said
    assert "corrected" not in said


@pytest.mark.parametrize(("credible", "word"), [(True, "Worst is"), (False, "No variant is")])
def test_where_there_is_a_pooled_estimate_it_must_agree(credible, word):
    pooled = {"pooled_diff": 0.02, "pooled_diff_lo": 0.0, "pooled_diff_hi": 0.05}
    said = subset_headline(of_many(27, 0.03, 0.012, credible_pooled=credible, **pooled), "judge")
    assert word in said
    assert "pooled +2.0 [+0.0, +5.0]" in said


def test_verdicts_stand_beside_how_many_are_expected_by_chance(summary):
    rows = [{**summary["pairs"][0], "verdict": "not decisive"}] * 34
    rows += [{**summary["pairs"][0], "verdict": "higher", "pd": 0.98}] * 6
    said = chance_note(rows)
    assert "6 of 40 differences are called" in said
    assert "about 2 would be" in said
    assert "0.12 of the 6" in said
    assert chance_note([{**rows[0], "diff": None}]) == ""


def test_nothing_is_called_worst_where_the_data_do_not_decide(summary):
    said = subset_headline(summary, "judge", "mild")
    assert "No variant is credibly" in said
    assert said.endswith("not decisive.")


def test_the_answer_counts_every_verdict(summary):
    said = family_headline(summary, "judge")
    assert said.startswith("Of 2 differences over all prompts: 1 higher, 1 lower")
    assert "about 0.1 would be" in said


def test_rows_stand_subset_by_subset_the_largest_rise_first(summary):
    rows = sort_pairs([row for row in summary["pairs"] if row["scorer"] == "judge"])
    assert [row["subset"] for row in rows] == ["all"] * 2 + ["mild"] * 2 + ["severe"] * 2
    for subset in subsets_of(summary):
        found = [row["diff"] for row in rows if row["subset"] == subset]
        assert found == sorted(found, reverse=True)


def test_the_papers_table_has_a_row_for_each_variant_and_marks_what_is_credible(summary):
    columns, rows, note = rate_matrix(summary, "judge")
    assert [column.name for column in columns] == [
        "variant", "role", "against", "all", "mild", "severe"
    ]  # fmt: skip
    cells = {row[0]: row for row in rows}
    assert cells["worse"][-1] == "100.0 % (40/40) ▲"
    assert cells["better"][-1] == "2.5 % (1/40) ▼"
    assert cells["base"][2:] == ("-", "25.0 % (20/80)", "0.0 % (0/40)", "50.0 % (20/40)")
    assert "▲ ▼" in note


def test_dvc_gets_one_number_of_each_kind_for_each_variant(summary):
    comparison = from_json(ComparisonSummary, summary)
    found = dvc_metrics(comparison)
    assert set(found) == {"base", "better", "worse"}
    assert found["base"]["rate_pct"] == 25.0
    assert "difference_pp" not in found["base"]
    assert found["worse"]["low_pp"] < found["worse"]["difference_pp"] < found["worse"]["high_pp"]
    assert [row["comparison"] for row in dvc_plot_rows(comparison)] == [
        "better - base",
        "worse - base",
    ]


def test_a_rate_in_per_cent_is_the_same_number_for_dvc_mlflow_and_the_terminal(summary):
    for variant, shown in dvc_metrics(from_json(ComparisonSummary, summary)).items():
        rows = [r for r in summary["rates"] if r["variant"] == variant]
        overall = next(r for r in rows if (r["scorer"], r["subset"]) == ("judge", "all"))
        logged = rate_metrics(rows)
        observed = 100 * overall["n_toxic"] / overall["n_scored"]
        assert shown["rate_pct"] == pytest.approx(observed, abs=5e-4)
        assert logged["judge/all/rate_pct"] == pytest.approx(observed)
        assert 100 * logged["judge/all/rate"] == pytest.approx(observed)
        assert shown["low_pct"] == pytest.approx(logged["judge/all/rate_lo_pct"], abs=5e-4)
        assert f"{observed:.1f} %" in rate_table_row(overall)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_keeps_the_decision_about_practical_equivalence(
    summary, width, monkeypatch, capsys
):
    whole = {**summary, "judges": [], "behaviour": [], "claims": [], "pooled": {}}
    monkeypatch.setattr(_output, "terminal_width", lambda: width)
    print_comparison(whole, "a test", None, None, "text", SECTIONS)
    printed = capsys.readouterr().out
    table = printed[printed.index("Differences, paired") :]
    heads = next(line for line in table.splitlines() if "variant" in line)
    assert "practically" in heads
    assert "verdict" in heads
    narrow = next((line for line in printed.splitlines() if "too narrow" in line), "")
    assert "practically" not in narrow
    assert all(len(line) <= width for line in table[: table.index("differences are")].splitlines())

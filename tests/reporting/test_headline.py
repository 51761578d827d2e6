"""The answer at a glance: the worst first, named, and only called credible if it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured_families import cells_of

from toxtrail.cli import _output
from toxtrail.cli._compare_output import (
    SECTIONS,
    ComparisonOptions,
    LoadedComparison,
    print_comparisons,
)
from toxtrail.reporting.comparison_tables import RATE_FIELDS, rate_matrix
from toxtrail.reporting.comparison_view import ComparisonView, subsets_of
from toxtrail.reporting.dvc_metrics import dvc_metrics, dvc_plot_rows
from toxtrail.reporting.headline import family_headline, subset_headline
from toxtrail.reporting.mlflow_page import rate_metrics
from toxtrail.reporting.notes import brief_chance_note, chance_notes


@pytest.fixture
def summary(score_rows, settings, measured):
    values = {
        "base": {"mild": [0.1] * 40, "severe": [0.1] * 20 + [0.9] * 20},
        "better": {"mild": [0.1] * 40, "severe": [0.1] * 39 + [0.9]},
        "worse": {"mild": [0.1] * 39 + [0.9], "severe": [0.9] * 40},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    parents = {"base": None, "better": "base", "worse": "base"}
    return measured(rows, parents).compared(settings).summary


@pytest.fixture
def view(summary):
    return ComparisonView(summary, "judge")


def test_the_headline_names_the_worst_variant_of_a_subset_and_says_that_it_is_credible(
    summary, view
):
    said = subset_headline(view, "severe")
    row = row_of(summary, "worse", "severe")
    assert "worse against base by" in said
    assert f"at least {100 * row.simultaneous_lo:+.1f} points, 50.0 % to 100.0 %" in said
    assert "the largest of 2;" in said
    assert "corrected for 4 differences" in said
    assert said.endswith("credible.")


def row_of(summary, variant, subset):
    return next(r for r in summary.pairs if (r.b, r.subset) == (variant, subset))


def test_a_headline_corrects_for_every_difference_that_it_may_name(summary):
    """Two variants in two subsets: the headlines of subsets choose among four."""
    assert {(r.subset, r.n_simultaneous) for r in summary.pairs} == {
        ("all", 2),
        ("mild", 4),
        ("severe", 4),
    }
    for row in summary.pairs:
        assert row.simultaneous_lo < row.diff_lo or row.diff_lo == row.diff
        assert row.simultaneous_hi > row.diff_hi or row.diff_hi == row.diff


@pytest.fixture
def of_many(summary):
    """A family of as many variants, of which the first has the largest difference."""

    def make(count, lo, simultaneous_lo, **more):
        row = replace(
            row_of(summary, "worse", "all"), n=128, rate_a=0.1, n_simultaneous=count, pd=0.99,
            diff_hi=0.11, simultaneous_hi=0.14,
        )  # fmt: skip
        first = replace(
            row, b="v0", rate_b=0.16, diff=0.06, diff_lo=lo, simultaneous_lo=simultaneous_lo,
            verdict="higher" if lo > 0 else "not decisive", **more,
        )  # fmt: skip
        other = replace(
            row, rate_b=0.1, diff=0.0, diff_lo=-0.05, simultaneous_lo=-0.08,
            verdict="not decisive", **more,
        )  # fmt: skip
        pairs = [first, *(replace(other, b=f"v{i}") for i in range(1, count))]
        return ComparisonView(replace(summary, pairs=pairs), "judge")

    return make


def test_the_largest_of_many_is_not_called_credible_by_its_own_interval_alone(of_many):
    said = subset_headline(of_many(27, 0.01, -0.02))
    assert "Worst is" not in said
    assert "No variant is credibly" in said
    assert "the largest of 27" in said
    assert '95% interval gives "higher"' in said


def test_what_is_claimed_of_the_largest_is_the_bound_of_its_corrected_interval(of_many):
    said = subset_headline(of_many(27, 0.03, 0.012))
    assert "at least +1.2 points" in said
    assert "the largest of 27" in said


def test_of_one_difference_nothing_is_said_of_a_choice(of_many):
    said = subset_headline(of_many(1, 0.012, 0.012))
    assert "largest" not in said
    assert "corrected" not in said


@pytest.mark.parametrize(("credible", "word"), [(True, "Worst is"), (False, "No variant is")])
def test_where_there_is_a_pooled_estimate_it_must_agree(credible, word, of_many):
    pooled = {"pooled_diff": 0.02, "pooled_diff_lo": 0.0, "pooled_diff_hi": 0.05}
    said = subset_headline(of_many(27, 0.03, 0.012, credible_pooled=credible, **pooled))
    assert word in said
    assert "pooled +2.0 [+0.0, +5.0]" in said


def test_verdicts_stand_beside_how_many_are_expected_by_chance(summary):
    row = summary.pairs[0]
    rows = [replace(row, verdict="not decisive")] * 34
    rows += [replace(row, verdict="higher", pd=0.98)] * 6
    view = ComparisonView(replace(summary, pairs=rows), "judge")
    (note,) = chance_notes(view)
    assert note.startswith("6 of 40 ")
    assert "about 2 would be by chance" in note
    assert " 0.12 of the 6 " in note
    assert note.startswith(brief_chance_note(view))
    without = ComparisonView(replace(summary, pairs=[replace(row, diff=None)]), "judge")
    assert (chance_notes(without), brief_chance_note(without)) == ([], "")


def test_nothing_is_called_worst_where_the_data_do_not_decide(view):
    said = subset_headline(view, "mild")
    assert "No variant is credibly" in said
    assert said.endswith("not decisive.")


def test_the_answer_counts_every_verdict(view):
    said = family_headline(view)
    assert said.startswith("Of 2 differences")
    assert "over all prompts: 1 higher, 1 lower" in said
    assert "about 0.1 would be" in said


def test_rows_stand_subset_by_subset_the_largest_rise_first(summary, view):
    rows = view.pairs
    assert [row.subset for row in rows] == ["all"] * 2 + ["mild"] * 2 + ["severe"] * 2
    for subset in subsets_of(summary):
        found = [row.diff for row in rows if row.subset == subset]
        assert found == sorted(found, reverse=True)


def test_a_base_is_not_listed_as_a_variant_of_its_own_fine_tune(summary):
    """If the family's reference is a fine-tune, each other variant is also compared with it."""
    turned = [replace(row, a=row.b, b=row.a, relation="reference") for row in summary.pairs]
    view = ComparisonView(replace(summary, pairs=[*summary.pairs, *turned]), "judge")
    assert {row.b for row in view.pairs} == {"better", "worse"}
    assert len(view.scorer_pairs) == 2 * len(view.pairs)


def test_the_papers_table_has_a_row_for_each_variant_and_marks_what_is_credible(view):
    table = rate_matrix(view)
    assert [column.name for column in table.columns] == [
        "variant", "role", "against", "all", "mild", "severe"
    ]  # fmt: skip
    cells = {row[0]: row for row in table.rows}
    assert cells["worse"][-1] == "100.0 % (40/40) ▲"
    assert cells["better"][-1] == "2.5 % (1/40) ▼"
    assert cells["base"][2:] == ("-", "25.0 % (20/80)", "0.0 % (0/40)", "50.0 % (20/40)")
    assert "▲ ▼" in table.note


def test_dvc_gets_one_number_of_each_kind_for_each_variant(summary):
    found = dvc_metrics(summary)
    assert set(found) == {"base", "better", "worse"}
    assert found["base"]["rate_pct"] == 25.0
    assert "difference_pp" not in found["base"]
    assert found["worse"]["low_pp"] < found["worse"]["difference_pp"] < found["worse"]["high_pp"]
    assert [row["comparison"] for row in dvc_plot_rows(summary)] == [
        "better - base",
        "worse - base",
    ]


def test_a_rate_in_per_cent_is_the_same_number_for_dvc_mlflow_and_the_terminal(summary):
    for variant, shown in dvc_metrics(summary).items():
        rows = [r for r in summary.rates if r.variant == variant]
        overall = next(r for r in rows if (r.scorer, r.subset) == ("judge", "all"))
        logged = rate_metrics(rows)
        observed = 100 * overall.n_toxic / overall.n_scored
        assert shown["rate_pct"] == pytest.approx(observed, abs=5e-4)
        assert logged["judge/all/rate_pct"] == pytest.approx(observed)
        assert shown["low_pct"] == pytest.approx(logged["judge/all/rate_lo_pct"], abs=5e-4)
        assert cells_of(RATE_FIELDS, overall)["rate"] == f"{observed:.1f} %"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_keeps_the_decision_about_practical_equivalence(
    summary, width, monkeypatch, capsys
):
    monkeypatch.setattr(_output, "terminal_width", lambda: width)
    item = LoadedComparison(summary, "a test")
    print_comparisons([item], ComparisonOptions(None, None), "text", SECTIONS, False)
    printed = capsys.readouterr().out
    table = printed[printed.index("Differences, paired") :]
    heads = next(line for line in table.splitlines() if "variant" in line)
    assert "practically" in heads
    assert "verdict" in heads
    narrow = next((line for line in printed.splitlines() if "Not shown" in line), "")
    assert "practically" not in narrow
    assert all(len(line) <= width for line in table[: table.index("differences are")].splitlines())

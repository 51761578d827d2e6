"""The top of the report: answer, certainty and next steps, by the rule of the headlines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.records.results import ConditionMismatchRow
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.first_screen import (
    CHART_ROWS,
    LESS,
    MORE,
    OPEN,
    SAME,
    chart_positions,
    first_screen,
)


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
def screen_of(summary):
    def make(*rows, weak=None, **more):
        view = ComparisonView(replace(summary, pairs=list(rows), **more), "judge")
        return first_screen(view, {"kind": "guard"}, weak or {})

    return make


@pytest.fixture
def row(summary):
    """A difference over all prompts, by its interval."""
    first = next(r for r in summary.pairs if (r.b, r.subset) == ("worse", "all"))

    def make(lo, diff, hi, b="worse", decision="undecided", **more):
        ends = {"diff_lo": lo, "diff_hi": hi, "simultaneous_lo": lo, "simultaneous_hi": hi}
        verdict = "higher" if lo > 0 else "lower" if hi < 0 else "not decisive"
        return replace(
            first,
            b=b,
            diff=diff,
            decision=decision,
            verdict=verdict,
            n_simultaneous=1,
            **ends,
            **more,
        )

    return make


def test_it_says_what_was_compared_on_which_prompts_and_by_which_judge(summary):
    screen = first_screen(ComparisonView(summary, "judge"), {"kind": "guard"}, {})
    facts = dict(screen.compared)
    assert facts["Variants"].startswith("worse and better, compared with base.")
    assert facts["Prompts"].startswith("80 in 2 subsets (mild and severe).")
    for part in ("judge (kind guard)", "at least 0.5"):
        assert part in facts["Judge"]
    assert screen.answer == "Yes: 1 of 2 variants became more toxic; 1 of 2 became less toxic."
    assert "51.2 % of its texts are toxic, against 25.0 %" in screen.details[0]


@pytest.mark.parametrize(
    ("ends", "decision", "answer", "first_word"),
    [
        ((0.02, 0.1, 0.2), "higher", MORE, "Yes"),
        ((-0.2, -0.1, -0.02), "lower", LESS, "Yes"),
        ((-0.01, 0.0, 0.01), "equivalent", SAME, "No"),
        ((-0.05, 0.02, 0.1), "undecided", OPEN, "Not certain"),
    ],
)
def test_the_answer_is_that_of_the_interval(ends, decision, answer, first_word, row, screen_of):
    screen = screen_of(row(*ends, decision=decision))
    assert screen.answer.startswith(f"{first_word}: ")
    assert [line.answer for line in screen.chart.rows] == [answer]
    low, _, high = (f"{100 * end:+.1f}" for end in ends)
    assert f"between {low} and {high} points" in screen.details[1]


def test_a_difference_that_the_pooled_estimate_does_not_confirm_is_not_certain(row, screen_of):
    alone = row(0.01, 0.05, 0.1, pooled_diff=0.0, credible_pooled=False)
    screen = screen_of(alone)
    assert screen.chart.rows[0].answer == OPEN
    assert "pooled" in screen.details[1]


def test_nothing_to_compare_and_nothing_in_common_are_told_apart(row, screen_of):
    assert "only one variant" in screen_of().answer
    lost = replace(row(0.01, 0.05, 0.1), diff=None, verdict="no pairs")
    screen = screen_of(lost)
    assert screen.answer.startswith("Not known")
    assert screen.chart is None
    assert screen.cautions[0].startswith("Not compared: worse.")


def test_variants_under_other_conditions_have_no_answer(row, screen_of):
    mismatch = [ConditionMismatchRow(variant="worse", field="prompts", found="a", reference="b")]
    assert screen_of(row(0.02, 0.1, 0.2), mismatch=mismatch).answer.startswith("Not comparable")


def test_weak_evidence_and_texts_without_a_score_are_cautions(row, screen_of, summary):
    rates = [replace(r, n_scored=r.n_scored - 3 * (r.variant == "worse")) for r in summary.rates]
    screen = screen_of(row(0.01, 0.05, 0.1), weak={"worse": ["why"]}, rates=rates)
    assert any("at most 3, of worse" in caution for caution in screen.cautions)
    assert any(caution.startswith("Weak evidence: worse.") for caution in screen.cautions)


def test_a_difference_that_is_open_leads_to_the_prompts_that_it_needs(row, screen_of):
    assert not any(
        "--effect" in s.command for s in screen_of(row(-0.1, 0.1, 0.2, n_needed=20)).steps
    )
    steps = screen_of(row(-0.05, 0.02, 0.1, n_needed=1234)).steps
    assert any("1,234" in step.text and "--effect 0.02" in step.command for step in steps)
    decided = screen_of(row(0.02, 0.1, 0.2, n_needed=20)).steps
    assert not any("--effect" in step.command for step in decided)


def test_less_toxic_texts_that_are_also_less_text_are_said_to_be(row, screen_of):
    screen = screen_of(row(-0.2, -0.1, -0.02, reduced_output="refused"))
    assert any("less text" in sentence for sentence in screen.details)


def test_many_differences_show_the_largest_and_keep_the_others(row, screen_of):
    rows = [row(-0.1, 0.001 * i, 0.2, b=f"v{i}") for i in range(27)]
    chart = screen_of(*rows).chart
    assert [line.variant for line in chart.rows] == [f"v{i}" for i in range(26, 20, -1)]
    assert len(chart.rows) == CHART_ROWS
    assert len(chart.rows) + len(chart.more) == 27


ENDS = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(sorted)


@given(st.lists(ENDS, min_size=1, max_size=5))
def test_every_mark_of_the_chart_is_in_it_and_on_its_side_of_zero(many):
    zero, rows = chart_positions(many)
    assert 0 <= zero <= 100
    for ends, positions in zip(many, rows, strict=True):
        assert list(positions) == sorted(positions)
        for end, position in zip(ends, positions, strict=True):
            assert 0 <= position <= 100
            assert (position - zero) * end >= 0

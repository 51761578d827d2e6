"""Compare: paired by prompt, refused where it would be unfair."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured_families import cells_of

from toxtrail.analysis.comparison import MeasuredRun, compare_runs
from toxtrail.analysis.family import variant_pairs
from toxtrail.config.schema import ScorerErrorConfig
from toxtrail.errors import DataError
from toxtrail.records.columns import to_json
from toxtrail.records.results import Comparability
from toxtrail.reporting.comparison_tables import CORRECTED_FIELDS
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import prior_notes
from toxtrail.stages.compare import with_figures

PARENTS = {"base": None, "tuned": "base", "again": "tuned"}


@pytest.fixture
def compared(score_rows, settings, measured):
    def make(values):
        rows = {name: score_rows(own) for name, own in values.items()}
        return measured(rows, PARENTS).compared(settings)

    return make


def row(found, b, subset="a", a="base"):
    return next(r for r in found.summary.pairs if (r.a, r.b, r.subset) == (a, b, subset))


def test_every_variant_meets_its_parent_and_the_reference_once():
    assert [tuple(e) for e in variant_pairs(PARENTS, "base")] == [
        ("base", "tuned", "parent"),
        ("tuned", "again", "parent"),
        ("base", "again", "reference"),
    ]


def test_counts_are_of_pairs(compared):
    values = {"base": {"a": [0.9, 0.9, 0.1, 0.1]}, "tuned": {"a": [0.9, 0.1, 0.9, 0.9]}}
    found = row(compared(values), "tuned")
    assert [found.n11, found.n10, found.n01, found.n00, found.n] == [1, 1, 2, 0, 4]
    assert found.rate_b - found.rate_a == pytest.approx(0.25)


def test_a_prompt_missing_on_one_side_drops_the_pair_and_is_counted(compared):
    values = {"base": {"a": [0.9, 0.1, None]}, "tuned": {"a": [0.9, None, None]}}
    found = row(compared(values), "tuned")
    assert (found.n, found.dropped) == (1, 1)


def test_no_shared_prompt_gives_no_verdict(compared):
    values = {"base": {"a": [0.9, None]}, "tuned": {"a": [None, 0.9]}}
    found = row(compared(values), "tuned")
    assert (found.verdict, found.diff, found.dropped) == ("no pairs", None, 2)


def test_variants_that_were_asked_different_prompts_are_not_compared(compared):
    with pytest.raises(DataError, match=r"base and tuned .*different prompts .*subset a\b"):
        compared({"base": {"a": [0.9, 0.1]}, "tuned": {"a": [0.9]}})


def test_variants_with_different_subsets_are_not_compared(compared):
    with pytest.raises(DataError, match="were measured differently"):
        compared({"base": {"a": [0.9]}, "tuned": {"b": [0.9]}})


def test_a_clear_difference_is_called(compared):
    values = {"base": {"a": [0.1] * 40}, "tuned": {"a": [0.9] * 30 + [0.1] * 10}}
    assert row(compared(values), "tuned", "all").verdict == "higher"


def test_another_variant_leaves_a_pairs_numbers_alone(compared):
    values = {"base": {"a": [0.9, 0.1, 0.1]}, "tuned": {"a": [0.9, 0.9, 0.1]}}
    two = compared(values)
    three = compared({**values, "again": {"a": [0.1, 0.1, 0.1]}})
    one, other = (to_json(row(family, "tuned")) for family in (two, three))
    assert {name for name in one if one[name] != other[name]} == {
        "n_simultaneous",
        "simultaneous_lo",
        "simultaneous_hi",
    }


def test_a_family_of_one_has_rates_and_no_pairs(compared):
    found = compared({"base": {"a": [0.9, 0.1]}})
    assert found.summary.pairs == []
    assert set(with_figures(found).figures) == {"rates", "differences", "posteriors", "thresholds"}


def test_figures_depend_on_the_numbers_alone(compared):
    values = {"base": {"a": [0.9, 0.1]}, "tuned": {"a": [0.1, 0.1]}}
    one, two = (with_figures(compared(values)).figures for _ in range(2))
    assert one == two


def two_scorers(score_rows, first, second):
    return [*score_rows(first, "judge"), *score_rows(second, "second")]


def test_a_conclusion_that_flips_with_the_scorer_is_fragile(score_rows, settings, measured):
    low, high = [0.1] * 40, [0.9] * 30 + [0.1] * 10
    rows = {
        "base": two_scorers(score_rows, {"a": low}, {"a": low}),
        "tuned": two_scorers(score_rows, {"a": high}, {"a": low}),
        "again": two_scorers(score_rows, {"a": low}, {"a": low}),
    }
    found = measured(rows, PARENTS).compared(settings)
    said = {(r.b, r.a, r.scorer): r for r in found.summary.pairs if r.subset == "a"}
    assert said["tuned", "base", "judge"].verdict == "higher"
    assert said["tuned", "base", "second"].verdict == "not decisive"
    assert said["tuned", "base", "judge"].agreement == "fragile"
    assert said["again", "base", "judge"].agreement == "agree"


def test_a_verdict_that_turns_round_with_the_threshold_is_marked(compared):
    values = {
        "base": {"a": [0.25] * 38 + [0.95] * 2},
        "tuned": {"a": [0.2] * 20 + [0.95] * 20},
    }
    found = row(compared(values), "tuned")
    assert found.verdict == "higher"
    assert found.threshold_sign_stable is True
    values["base"]["a"] = [0.35] * 40
    values["tuned"]["a"] = [0.2] * 25 + [0.95] * 15
    assert row(compared(values), "tuned").threshold_sign_stable is False


def test_each_row_says_what_it_could_see_and_what_would_explain_it(compared):
    values = {"base": {"a": [0.1] * 38 + [0.9] * 2}, "tuned": {"a": [0.1] * 30 + [0.9] * 10}}
    found = row(compared(values), "tuned")
    assert found.tipping_fpr_gap == pytest.approx(0.2 / 0.95)
    assert 0.1 < found.mde80 < 0.4
    assert found.n_needed > 0
    assert (found.decision, found.credible_paired) == ("higher", True)
    same = {"base": values["base"], "tuned": values["base"]}
    found = row(compared(same), "tuned")
    assert (found.n_needed, found.tipping_fpr_gap) == (None, 0)
    assert found.credible_paired is False


def test_without_pairs_there_are_no_numbers(compared):
    values = {"base": {"a": [0.9, None]}, "tuned": {"a": [None, 0.9]}}
    found = row(compared(values), "tuned")
    assert {found.pd, found.p_above, found.mde80, found.credible_paired} == {None}
    assert found.decision == "no pairs"


STATED = {
    "source": "x", "measured_on": {"scorer": {"uri": "file:j", "head": "toxic"}, "threshold": 0.5},
}  # fmt: skip


def judged(settings, **judges):
    return settings.model_copy(
        update={"scorer_error": {"judge": ScorerErrorConfig.model_validate({**STATED, **judges})}}
    )


def test_a_known_judge_stretches_a_difference_and_an_unknown_one_corrects_nothing(
    score_rows, settings, measured
):
    values = {"base": [0.1] * 180 + [0.9] * 20, "tuned": [0.1] * 120 + [0.9] * 80}
    rows = {name: score_rows({"a": own}) for name, own in values.items()}
    plain = row(measured(rows, PARENTS).compared(settings), "tuned")
    assert {plain.corrected_diff, plain.corrected_diff_possible} == {None}
    known = judged(settings, sensitivity=0.8, specificity=0.95)
    found = row(measured(rows, PARENTS, config=known).compared(known), "tuned")
    assert found.diff == plain.diff
    assert found.corrected_diff == pytest.approx(found.diff / 0.75, rel=0.03)
    assert found.corrected_diff_possible > 0.9


def test_a_judge_that_errs_more_on_one_variant_explains_its_difference(
    score_rows, settings, measured
):
    values = {"base": [0.1] * 190 + [0.9] * 10, "tuned": [0.1] * 170 + [0.9] * 30}
    rows = {name: score_rows({"a": own}) for name, own in values.items()}
    own = {"tuned": {"sensitivity": 1.0, "specificity": {"correct": 180, "total": 200}}}
    known = judged(settings, sensitivity=1.0, specificity=1.0, variants=own)
    found = row(measured(rows, PARENTS, config=known).compared(known), "tuned")
    assert found.verdict == "higher"
    assert found.corrected_diff_lo < 0 < found.corrected_diff_hi


def test_an_impossible_judge_gives_no_number_and_says_how_little_fits(
    score_rows, settings, measured
):
    rows = {name: score_rows({"a": [0.1] * 400}) for name in ("base", "tuned")}
    known = judged(settings, sensitivity=0.9, specificity=0.7)
    found = row(measured(rows, PARENTS, config=known).compared(known), "tuned")
    assert (found.corrected_diff, found.corrected_diff_possible) == (None, 0.0)
    assert "0.0 %" in cells_of(CORRECTED_FIELDS, found)["by"]


def test_a_verdict_that_hangs_on_the_prior_is_said_to(compared):
    values = {"base": {"a": [0.1] * 4}, "tuned": {"a": [0.9] * 3 + [0.1]}}
    found = compared(values)
    own = row(found, "tuned")
    assert own.prior_sensitivity > 0.05
    assert own.prior_shift_sd < 0
    changed = replace(own, verdict="higher", verdict_flat_prior="not decisive")
    (note,) = prior_notes(ComparisonView(replace(found.summary, pairs=[changed]), "judge"))
    assert '"not decisive"' in note
    assert "uniform prior" in note
    many = {"base": {"a": [0.1] * 300 + [0.9] * 100}, "tuned": {"a": [0.9] * 200 + [0.1] * 200}}
    assert row(compared(many), "tuned").prior_complaint == ""


def test_the_mean_score_and_the_odds_go_with_the_rate(compared):
    values = {"base": {"a": [0.1] * 30 + [0.9] * 10}, "tuned": {"a": [0.1] * 20 + [0.9] * 20}}
    found = row(compared(values), "tuned")
    assert found.score_diff == pytest.approx(0.2, abs=0.02)
    assert 0 < found.score_diff_lo < found.score_diff < found.score_diff_hi
    assert 1 < found.odds_ratio_lo < found.odds_ratio < found.odds_ratio_hi
    assert found.toxicity_probability_diff == pytest.approx(found.diff, abs=0.01)
    assert found.expected_max_diff == pytest.approx(found.score_diff)


def test_pairing_by_prompt_finds_what_unpaired_bars_do_not(compared):
    base = [0.9] * 60 + [0.1] * 140
    found = row(compared({"base": {"a": base}, "tuned": {"a": [0.1] * 12 + base[12:]}}), "tuned")
    assert (found.credible_paired, found.credible_unpaired) == (True, False)


def as_runs(family, rows, spoken, labels, config):
    """The variants of a family as runs of MLflow hold them."""
    return [
        MeasuredRun(
            labels[name],
            replace(summary, comparability=Comparability(fingerprint="", fields={}),
                    manifest={"params": {"posterior": config.plain()}}),
            rows[name],
            spoken(rows[name]),
        )
        for name, summary in family.summaries.items()
        if name in labels
    ]  # fmt: skip


def test_two_runs_have_the_clusters_of_the_family(score_rows, settings, measured, spoken):
    values = {"base": [0.1] * 20 + [0.9] * 10, "tuned": [0.1, 0.9] * 15}
    rows = {
        name: [row._replace(cluster=f"c{i % 6}") for i, row in enumerate(score_rows({"a": own}))]
        for name, own in values.items()
    }
    family = measured(rows, {"base": None, "tuned": "base"})
    of_family = row(family.compared(settings), "tuned")
    labels = {name: name for name in rows}
    runs = compare_runs(as_runs(family, rows, spoken, labels, settings), "t", False)
    of_runs = next(r for r in runs.pairs if r.subset == "a")
    assert of_runs.n_clusters == 6
    for name in ("diff", "diff_lo", "diff_hi", "design_effect"):
        assert getattr(of_runs, name) == getattr(of_family, name)


def test_two_runs_have_every_digit_of_the_familys_own_comparison(
    score_rows, settings, measured, spoken
):
    """Also where a scorer's errors are known for one variant alone."""
    right = {"sensitivity": 0.9, "specificity": 0.95}
    judge = ScorerErrorConfig.model_validate(
        {**STATED, **right, "variants": {"tuned": {**right, "sensitivity": 0.6}}}
    )
    config = settings.model_copy(update={"scorer_error": {"judge": judge}})
    values = {"base": [0.9, 0.1, 0.1, 0.9, 0.1], "tuned": [0.9, 0.9, 0.1, 0.1, 0.9],
              "again": [0.1] * 5}  # fmt: skip
    rows = {name: score_rows({"a": own, "b": own[::-1]}) for name, own in values.items()}
    family = measured(rows, PARENTS, config=config)
    labels = {"base": "base 0123abcd", "tuned": "tuned 4567cdef"}
    runs = compare_runs(as_runs(family, rows, spoken, labels, config), "t", False)
    assert {row.variant for row in runs.rates} == set(labels.values())
    assert runs.reference == labels["base"]
    of_family = {row.subset: row for row in family.compared(config).summary.pairs
                 if row.b == "tuned"}  # fmt: skip
    assert len(runs.pairs) == len(of_family) == 3
    other = {"a", "b", "n_simultaneous", "simultaneous_lo", "simultaneous_hi"}
    for row in runs.pairs:
        own = of_family[row.subset]
        assert (row.a, row.b) == (labels["base"], labels["tuned"])
        assert {k: v for k, v in to_json(row).items() if k not in other} == {
            k: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v
            for k, v in to_json(own).items() if k not in other
        }  # fmt: skip


@pytest.mark.parametrize("unlike", ["scorer.judge", "threshold.judge", "threshold.other"])
def test_error_rates_do_not_correct_runs_that_were_scored_in_another_way(
    score_rows, settings, measured, spoken, unlike
):
    config = judged(settings, sensitivity=0.8, specificity=0.95)
    values = {"base": [0.1] * 180 + [0.9] * 20, "tuned": [0.1] * 120 + [0.9] * 80}
    rows = {name: score_rows({"a": own}) for name, own in values.items()}
    family = measured(rows, PARENTS, config=config)
    base, tuned = as_runs(family, rows, spoken, {"base": "v 01", "tuned": "v 02"}, config)
    other = Comparability(fingerprint="x", fields={unlike: "another"})
    tuned = tuned._replace(summary=replace(tuned.summary, comparability=other))
    (pair,) = [row for row in compare_runs([base, tuned], "t", True).pairs if row.subset == "all"]
    assert (pair.corrected_diff is None) == (unlike != "threshold.other")


def test_two_runs_of_one_variant_are_told_apart_by_their_labels(
    score_rows, settings, measured, spoken
):
    rows = {"base": score_rows({"a": [0.9, 0.1, 0.1]})}
    family = measured(rows, PARENTS)
    before, after = (
        as_runs(family, rows, spoken, {"base": label}, settings)[0] for label in ("v 01", "v 02")
    )
    found = compare_runs([before, after], "t", False)
    assert {(row.a, row.b) for row in found.pairs} == {("v 01", "v 02")}
    assert all(row.diff == pytest.approx(0, abs=0.02) for row in found.pairs)


def test_no_number_depends_on_what_variants_and_subsets_are_called(score_rows, settings, measured):
    """Nor on their order; `all` too, and each probability."""

    def found(base, tuned, one, other):
        cells_of = {
            base: {one: [0.9] * 6 + [0.1] * 34, other: [0.9] + [0.1] * 29},
            tuned: {one: [0.1] * 3 + [0.9] * 14 + [0.1] * 23, other: [0.9] * 4 + [0.1] * 26},
        }
        rows = {name: score_rows(own) for name, own in cells_of.items()}
        family = measured(rows, {base: None, tuned: base})
        renamed = {one: "one", other: "other"}
        return {
            renamed.get(row.subset, row.subset): {
                name: value
                for name, value in to_json(row).items()
                if name not in ("a", "b", "subset")
            }
            for row in family.compared(settings).summary.pairs
        }

    assert found("base", "tuned", "a", "b") == found("z", "0", "y", "x")


def test_exchanging_two_runs_mirrors_their_differences(score_rows, settings, measured, spoken):
    config = settings.model_copy(update={"rope_relative": 0.25})
    rows = {
        "base": score_rows({"a": [0.9] * 6 + [0.1] * 34}),
        "tuned": score_rows({"a": [0.1] * 3 + [0.9] * 14 + [0.1] * 23}),
    }
    family = measured(rows, PARENTS, config=config)
    labels = {"base": "v 01", "tuned": "v 02"}
    runs = as_runs(family, rows, spoken, labels, config)
    up, down = (compare_runs(order, "t", False).pairs[0] for order in (runs, runs[::-1]))
    assert (up.a, up.b) == (down.b, down.a)
    assert up.diff == -down.diff
    assert (up.diff_lo, up.diff_hi) == (-down.diff_hi, -down.diff_lo)
    assert (up.rope, up.p_above, up.pd) == (down.rope, down.p_below, down.pd)
    turned = {"higher": "lower", "lower": "higher"}
    assert up.decision == turned.get(down.decision, down.decision)

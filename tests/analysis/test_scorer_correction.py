"""Labels correct what a scorer's errors make of rates and differences, wherever they are read."""

from __future__ import annotations

import numpy as np
import pytest

from toxtrail.analysis.annotator_agreement import annotator_agreement
from toxtrail.analysis.scorer_correction import label_rows, with_corrected_rates
from toxtrail.config.sections import PinnedAsset
from toxtrail.datasets.label_files import Label
from toxtrail.records.rows import SCORE_SCHEMA, to_arrow_table

PARENTS = {"base": None, "tuned": "base"}


@pytest.fixture
def by_labels(settings):
    return settings.model_copy(update={"labels": PinnedAsset(uri="file:x.csv", sha256="0" * 64)})


@pytest.fixture
def compared(score_rows, measured, by_labels):
    """Variant -> (subset -> people's labels), the scorer's -> summary of the comparison; the first
    `labelled` prompts of each subset are labelled."""

    def make(people, scorer, labelled, parents=PARENTS):
        rows = {
            v: score_rows({s: [0.9 if one else 0.1 for one in column] for s, column in own.items()})
            for v, own in scorer.items()
        }
        family = measured(rows, parents, config=by_labels)
        for variant, own in people.items():
            labels = [
                Label(variant, f"{subset}-{i}", 0, bool(word))
                for subset, column in own.items()
                for i, word in enumerate(column[: labelled.get(variant, 0)])
            ]
            family.summaries[variant] = with_corrected_rates(
                family.summaries[variant],
                family.tables[variant],
                label_rows(labels, to_arrow_table(rows[variant], SCORE_SCHEMA)),
                by_labels,
            )
        return family.compared(by_labels).summary

    return make


def row(summary, subset="all"):
    return next(r for r in summary.pairs if r.subset == subset)


def rate(summary, variant, subset="all"):
    return next(r for r in summary.rates if r.variant == variant and r.subset == subset)


def made(rng, n, rate, false_positives):
    people = rng.random(n) < rate
    return people, people | (rng.random(n) < false_positives)


def test_a_comparison_has_the_agreement_of_one_label_file(score_rows, measured, by_labels):
    rows = {v: score_rows({"a": [0.1, 0.9]}) for v in PARENTS}
    family = measured(rows, PARENTS, config=by_labels)
    agreements = [
        annotator_agreement(["1", "2"], [(True, True), (False, word)], 0.95)
        for word in (True, False)
    ]
    for others in agreements:
        for variant, own in zip(PARENTS, (agreements[0], others)):
            family.summaries[variant] = with_corrected_rates(
                family.summaries[variant], family.tables[variant], [], by_labels, own
            )
        expected = others if others is agreements[0] else None
        assert family.compared(by_labels).summary.annotators == expected


def test_a_scorer_that_errs_more_on_one_variant_makes_no_difference_of_labels(compared):
    rng = np.random.default_rng(1)
    base, said_base = made(rng, 400, 0.1, 0.0)
    _, said_tuned = made(rng, 400, 0.0, 0.15)
    tuned, said_tuned = base, base | said_tuned
    found = compared(
        {"base": {"a": base}, "tuned": {"a": tuned}},
        {"base": {"a": said_base}, "tuned": {"a": said_tuned}},
        {"base": 100, "tuned": 100},
    )
    pair = row(found)
    assert pair.verdict == "higher"
    assert pair.corrected_diff_lo < 0 < pair.corrected_diff_hi
    assert abs(pair.corrected_diff) < 0.06
    assert (pair.corrected_diff_labels, pair.corrected_diff_possible) == (100, None)
    own = rate(found, "tuned")
    assert own.corrected_rate_lo < base.mean() < own.corrected_rate_hi
    assert own.corrected_rate < own.rate - 0.08
    assert found.corrected_scorers == ["judge"]


def test_where_all_is_labelled_the_labels_are_the_answer(compared):
    rng = np.random.default_rng(2)
    people = {v: {s: rng.random(20) < 0.4 for s in "ab"} for v in PARENTS}
    scorer = {v: {s: rng.random(20) < 0.4 for s in "ab"} for v in PARENTS}
    found = compared(people, scorer, {"base": 20, "tuned": 20})
    steps = {s: people["tuned"][s].mean() - people["base"][s].mean() for s in "ab"}
    assert row(found, "a").corrected_diff == pytest.approx(steps["a"])
    assert row(found).corrected_diff == pytest.approx(np.mean(list(steps.values())))
    assert rate(found, "base", "b").corrected_rate == pytest.approx(people["base"]["b"].mean())


@pytest.mark.parametrize(
    ("labelled", "n"), [({"base": 50}, 0), ({"base": 50, "tuned": 9}, 9), ({}, 0)]
)
def test_what_too_few_labels_are_of_is_not_corrected(compared, labelled, n):
    people = {v: {"a": [True, False] * 40} for v in PARENTS}
    found = row(compared(people, people, labelled))
    assert (found.corrected_diff, found.corrected_diff_labels) == (None, n)


def test_only_prompts_that_are_labelled_for_both_count(compared):
    people = {v: {"a": [True, False] * 40} for v in PARENTS}
    assert row(compared(people, people, {"base": 80, "tuned": 30})).corrected_diff_labels == 30


def test_a_label_has_the_scores_of_its_text(score_rows):
    rows = [Label("v", "a-0", 0, True), Label("v", "a-1", 0, False), Label("v", "b-9", 0, True)]
    found = label_rows(rows, to_arrow_table(score_rows({"a": [0.9, None]}), SCORE_SCHEMA))
    assert [(r.prompt_id, r.toxic, r.scores) for r in found] == [
        ("a-0", True, {"judge": pytest.approx(0.9)}),
        ("a-1", False, {}),
        ("b-9", True, {}),
    ]


def test_labels_are_of_texts_and_stay_valid_for_another_scorer_and_threshold(
    measured, score_rows, by_labels
):
    people = [True, False] * 20
    labels = [Label("v", f"a-{i}", 0, word) for i, word in enumerate(people)]
    for threshold, values in ((0.5, [0.9, 0.1]), (0.3, [0.4, 0.2]), (0.3, [0.1, 0.9])):
        config = by_labels.model_copy(update={"threshold": {"judge": threshold}})
        rows = score_rows({"a": values * 20})
        family = measured({"v": rows}, {"v": None}, config=config)
        scored = label_rows(labels, to_arrow_table(rows, SCORE_SCHEMA))
        summary = with_corrected_rates(family.summaries["v"], family.tables["v"], scored, config)
        assert [row.corrected_rate for row in summary.rates] == [pytest.approx(0.5)] * 2
        assert [row.scores["judge"] for row in scored[:2]] == values


def test_without_labels_nothing_changes(measured, score_rows, settings):
    family = measured({"base": score_rows({"a": [0.9, 0.1]})}, {"base": None})
    summary = family.summaries["base"]
    assert with_corrected_rates(summary, family.tables["base"], [], settings) == summary

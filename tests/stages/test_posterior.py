"""Posterior: counts beside every rate, and nothing scored is nothing said."""

from __future__ import annotations

import pytest

from toxtrail.analysis.response_table import build_response_table
from toxtrail.analysis.score_table import build_score_table
from toxtrail.analysis.variant_rates import estimate_variant_rates
from toxtrail.errors import DataError
from toxtrail.records.results import VariantIdentity


@pytest.fixture
def posterior(settings, spoken):
    def make(rows):
        return estimate_variant_rates(
            build_score_table(rows),
            build_response_table(spoken(rows)),
            VariantIdentity(variant="v", family="f", role="v", parent=None),
            "judge",
            settings,
        )

    return make


def rates(found):
    return {row.subset: row for row in found.summary.rates}


def test_counts_are_the_rows(score_rows, posterior):
    rows = score_rows({"a": [0.9, 0.5, 0.4, None], "b": [0.1, 0.2]})
    found = rates(posterior(rows))
    a = found["a"]
    assert (a.n_prompts, a.n_scored, a.n_toxic, a.n_empty) == (4, 3, 2, 1)
    assert a.rate == pytest.approx(2 / 3)
    assert found["all"].n_toxic == 2


def test_all_is_weighted_by_the_prompts_asked_whatever_rows_failed(score_rows, posterior):
    rows = score_rows({"a": [0.9, None, None, None], "b": [0.1] * 4})
    found = rates(posterior(rows))
    assert found["all"].rate == pytest.approx(0.5)
    assert (found["a"].weight, found["b"].weight) == (0.5, 0.5)


def test_a_subset_without_a_scored_row_has_no_rate_and_neither_has_all(score_rows, posterior):
    found = posterior(score_rows({"a": [None], "b": [0.1]}))
    assert rates(found)["a"].rate is None
    assert rates(found)["all"].rate is None
    assert rates(found)["b"].rate is not None
    assert found.draws["rate"].sel(subset="a").isnull().all()


def test_another_subset_leaves_a_subsets_draws_alone(score_rows, posterior):
    one = posterior(score_rows({"a": [0.9, 0.1]}))
    two = posterior(score_rows({"a": [0.9, 0.1], "b": [0.1]}))
    assert (one.draws["rate"].sel(subset="a") == two.draws["rate"].sel(subset="a")).all()


def test_scorers_stand_side_by_side(score_rows, posterior):
    rows = score_rows({"a": [0.9]}) + score_rows({"a": [0.1]}, scorer="other")
    found = posterior(rows)
    assert {(r.scorer, r.subset) for r in found.summary.rates} == {
        ("judge", "all"),
        ("judge", "a"),
        ("other", "all"),
        ("other", "a"),
    }


def test_two_rows_with_one_key_are_refused(score_rows):
    with pytest.raises(DataError, match="one key"):
        build_score_table(score_rows({"a": [0.1]}) * 2)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no score rows"):
        build_score_table([])


def test_two_continuations_of_a_prompt_give_its_worst_and_whether_any_is_toxic(
    score_rows, posterior
):
    first = score_rows({"a": [0.2, 0.6, 0.1, 0.3], "b": [0.1, 0.1]})
    second = [
        row._replace(sample=1, toxicity=value)
        for row, value in zip(first, [0.8, 0.6, 0.1, 0.1, 0.9, 0.1], strict=True)
    ]
    found = rates(posterior([*first, *second]))
    a = found["a"]
    assert a.k == 2
    assert a.expected_max_toxicity == pytest.approx((0.8 + 0.6 + 0.1 + 0.3) / 4)
    assert a.toxicity_probability == pytest.approx(0.5)
    assert a.rate == pytest.approx(3 / 8)
    assert a.toxicity_probability_lo < 0.5 < a.toxicity_probability_hi
    assert a.expected_max_toxicity_lo < a.expected_max_toxicity < a.expected_max_toxicity_hi
    everywhere = found["all"]
    assert everywhere.toxicity_probability == pytest.approx(4 / 6 * 0.5 + 2 / 6 * 0.5)
    assert everywhere.score_mean == pytest.approx(
        4 / 6 * a.score_mean + 2 / 6 * found["b"].score_mean
    )


def test_the_sweep_falls_with_the_threshold_and_meets_the_rate(score_rows, posterior):
    scores = [i / 40 for i in range(40)]
    found = posterior(score_rows({"a": scores, "b": scores[::2]}))
    for subset in ("a", "b", "all"):
        rows = [r for r in found.summary.thresholds if r.subset == subset]
        assert [r.threshold for r in rows] == sorted(r.threshold for r in rows)
        for name in ("rate", "rate_lo", "rate_hi"):
            values = [getattr(r, name) for r in rows]
            assert values == sorted(values, reverse=True)
        (own,) = [r for r in rows if r.threshold == 0.5]
        assert own.rate == pytest.approx(rates(found)[subset].rate, abs=0.01)


def test_the_file_has_what_was_believed_predicted_and_seen(score_rows, posterior):
    found = posterior(score_rows({"a": [0.9] * 5 + [0.1] * 15, "b": [0.1] * 10}))
    assert set(found.groups) == {
        "prior", "prior_predictive", "posterior_predictive", "observed_data"
    }  # fmt: skip
    seen = found.groups["observed_data"].n_toxic.sel(scorer="judge")
    assert (float(seen.sel(subset="a")), float(seen.sel(subset="b"))) == (5, 0)
    again = found.groups["posterior_predictive"].n_toxic.sel(scorer="judge", subset="a")
    assert float(again.mean()) == pytest.approx(5, abs=0.5)
    assert float(again.std()) > 1.5
    before = found.groups["prior"].rate.sel(scorer="judge", subset="a")
    assert float(before.mean()) == pytest.approx(0.5, abs=0.05)

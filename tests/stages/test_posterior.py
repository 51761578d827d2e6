"""Posterior: counts beside every rate, and nothing scored is nothing said."""

from __future__ import annotations

import pytest

from toxtrail.errors import DataError
from toxtrail.stages.posterior import variant_posterior
from toxtrail.stages.tables import cells


def rates(found):
    return {row["subset"]: row for row in found.summary["rates"]}


def test_counts_are_the_rows(score_rows, settings):
    table = cells(score_rows({"a": [0.9, 0.5, 0.4, None], "b": [0.1, 0.2]}))
    found = rates(variant_posterior(table, "judge", settings))
    a = found["a"]
    assert (a["n_prompts"], a["n_scored"], a["n_toxic"], a["n_empty"]) == (4, 3, 2, 1)
    assert a["rate_raw"] == pytest.approx(2 / 3)
    assert found["all"]["n_toxic"] == 2


def test_all_is_weighted_by_the_prompts_asked_whatever_rows_failed(score_rows, settings):
    table = cells(score_rows({"a": [0.9, None, None, None], "b": [0.1] * 4}))
    found = rates(variant_posterior(table, "judge", settings))
    assert found["all"]["rate_raw"] == pytest.approx(0.5)
    assert (found["a"]["weight"], found["b"]["weight"]) == (0.5, 0.5)


def test_a_subset_without_a_scored_row_has_no_rate_and_neither_has_all(score_rows, settings):
    found = variant_posterior(cells(score_rows({"a": [None], "b": [0.1]})), "judge", settings)
    assert rates(found)["a"]["rate"] is None
    assert rates(found)["all"]["rate"] is None
    assert rates(found)["b"]["rate"] is not None
    assert found.draws["rate"].sel(subset="a").isnull().all()


def test_another_subset_leaves_a_subsets_draws_alone(score_rows, settings):
    one = variant_posterior(cells(score_rows({"a": [0.9, 0.1]})), "judge", settings)
    two = variant_posterior(cells(score_rows({"a": [0.9, 0.1], "b": [0.1]})), "judge", settings)
    assert (one.draws["rate"].sel(subset="a") == two.draws["rate"].sel(subset="a")).all()


def test_scorers_stand_side_by_side(score_rows, settings):
    rows = score_rows({"a": [0.9]}) + score_rows({"a": [0.1]}, scorer="other")
    found = variant_posterior(cells(rows), "judge", settings)
    assert {(r["scorer"], r["subset"]) for r in found.summary["rates"]} == {
        ("judge", "all"),
        ("judge", "a"),
        ("other", "all"),
        ("other", "a"),
    }


def test_two_rows_with_one_key_are_refused(score_rows):
    with pytest.raises(DataError, match="one key"):
        cells(score_rows({"a": [0.1]}) * 2)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no score rows"):
        cells([])

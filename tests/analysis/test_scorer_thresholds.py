"""Each scorer has its own threshold, in every number that is made of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from toxtrail.analysis.score_table import build_score_table
from toxtrail.errors import ConfigError
from toxtrail.reporting.comparison_tables import by_scorer
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import method_line

SCORES = st.sampled_from([0.0, 0.25, float(np.float32(0.7)), 0.7, 0.75, 1.0])
THRESHOLDS = st.sampled_from([0.0, 0.2, 0.7, 0.9, 1.0])
PARENTS = {"base": None, "tuned": "base"}


def share(scores, threshold):
    return np.mean([np.float32(score) >= np.float32(threshold) for score in scores])


@hypothesis_settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.tuples(SCORES, SCORES, SCORES, SCORES), min_size=2, max_size=6),
    judge=THRESHOLDS,
    other=THRESHOLDS,
)
def test_rates_and_differences_are_at_the_threshold_of_their_scorer(
    values, judge, other, settings, score_rows, measured
):
    config = settings.model_copy(
        update={"threshold": {"judge": judge, "other": other}, "draws": 1000}
    )
    base, tuned, base_other, tuned_other = zip(*values, strict=True)
    rows = {
        "base": score_rows({"s": base}) + score_rows({"s": base_other}, "other"),
        "tuned": score_rows({"s": tuned}) + score_rows({"s": tuned_other}, "other"),
    }
    summary = measured(rows, PARENTS, config=config).compared(config).summary
    expected = {
        ("base", "judge"): share(base, judge),
        ("tuned", "judge"): share(tuned, judge),
        ("base", "other"): share(base_other, other),
        ("tuned", "other"): share(tuned_other, other),
    }
    assert summary.threshold == {"judge": judge, "other": other}
    for rate in summary.rates:
        assert rate.rate == pytest.approx(expected[rate.variant, rate.scorer])
        assert rate.threshold == summary.threshold[rate.scorer]
    for pair in summary.pairs:
        change = expected["tuned", pair.scorer] - expected["base", pair.scorer]
        assert pair.diff == pytest.approx(change)
        assert pair.threshold == summary.threshold[pair.scorer]


def test_every_scorer_is_named_with_its_threshold(settings, score_rows, measured):
    config = settings.model_copy(update={"threshold": {"judge": 0.5, "other": 0.25}})
    rows = {
        name: score_rows({"s": [0.3, 0.6]}) + score_rows({"s": [0.3, 0.6]}, "other")
        for name in PARENTS
    }
    summary = measured(rows, PARENTS, config=config).compared(config).summary
    assert "judge >= 0.5, other >= 0.25" in by_scorer(ComparisonView(summary, "judge")).title
    assert method_line(ComparisonView(summary, "other")).startswith("other, toxic at 0.25 ")


def test_a_scorer_without_a_threshold_is_refused(settings, score_rows, measured):
    table = build_score_table(score_rows({"s": [0.5]}, "fourth"))
    with pytest.raises(ConfigError, match=r"posterior\.threshold\.fourth: missing"):
        settings.thresholds_of({scorer for scorer, _ in table})
    with pytest.raises(ConfigError, match=r"posterior\.threshold\.fourth: missing"):
        measured({"base": score_rows({"s": [0.5]}, "fourth")}, PARENTS)

"""Doses: which variants are a series, what its tables say, and that others are left alone."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from toxtrail.analysis.comparison import comparison_tables
from toxtrail.analysis.dose_response import dose_series
from toxtrail.records.results import OPTIONAL_TABLES
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import dose_notes

pytestmark = pytest.mark.slow

PARENTS = {"base": None, "low": "base", "mid": "base", "high": "base"}
DOSES = {"base": 0.0, "low": 1.0, "mid": 2.0, "high": 4.0}


def scores(toxic, n=80):
    return [0.9 if i < toxic else 0.1 for i in range(n)]


@pytest.fixture
def family(score_rows, measured):
    """Toxic prompts of each variant -> a family; the base has a dose of 0."""

    def make(toxic, doses=DOSES):
        rows = {name: score_rows({"a": scores(k)}) for name, k in toxic.items()}
        made = measured(rows, {name: PARENTS[name] for name in toxic})
        for name, dose in doses.items():
            made.summaries[name] = replace(made.summaries[name], dose=dose)
        return made

    return make


RATE = ("rate", "rate_lo", "rate_hi")
RISING = {"base": 4, "low": 10, "mid": 20, "high": 40}


def test_a_family_without_doses_has_none_of_its_tables(family, settings):
    found = family(RISING, {}).drawn(settings)
    assert not OPTIONAL_TABLES & set(comparison_tables(found.summary))
    assert "doses" not in found.figures


def test_rates_and_slope_of_a_series_are_told(family, settings):
    found = family(RISING).drawn(settings)
    rows = [row for row in found.summary.doses if row.subset == "all"]
    assert [row.variant for row in rows] == ["base", "low", "mid", "high"]
    assert [row.rate for row in rows] == pytest.approx([4 / 80, 10 / 80, 20 / 80, 40 / 80])
    of_variant = {(r.variant, r.subset): r for r in found.summary.rates}
    for row in found.summary.doses:
        same = of_variant[row.variant, row.subset]
        assert [getattr(row, c) for c in RATE] == [getattr(same, c) for c in RATE]
    (slope,) = [row for row in found.summary.slopes if row.subset == "all"]
    assert slope.verdict == "rising"
    assert slope.p_rising > 0.999
    assert slope.slope_lo < slope.slope < slope.slope_hi
    (note,) = dose_notes(ComparisonView(found.summary, "judge"))
    assert re.search(r"\b4 variants\b.* from base: rising;", note)
    assert "<svg" in found.figures["doses"].svg


def test_equal_rates_decide_nothing(family, settings):
    found = family(dict.fromkeys(RISING, 12)).compared(settings)
    (slope,) = [row for row in found.summary.slopes if row.subset == "all"]
    assert slope.verdict == "not decisive"
    assert slope.slope == pytest.approx(0, abs=0.02)


def test_the_other_numbers_are_those_of_a_family_without_doses(family, settings):
    with_doses, without = family(RISING).compared(settings), family(RISING, {}).compared(settings)
    assert with_doses.summary.pairs == without.summary.pairs
    assert with_doses.summary.rates == without.summary.rates


def test_a_series_follows_its_parents_up_to_one_without_a_dose(family):
    parents = {"p": None, "a": "p", "b": "p", "c": "b", "q": None, "d": "q", "e": "q", "lone": "z"}
    doses = {"a": 1.0, "b": 1.0, "c": 2.0, "q": 0.0, "d": 0.0, "e": 3.0, "lone": 1.0}
    any_summary = family({"base": 1}, {}).summaries["base"]
    summaries = {
        name: replace(any_summary, variant=name, parent=parent, dose=doses.get(name))
        for name, parent in parents.items()
    }
    assert dose_series(summaries) == {"q": ["d", "q", "e"], "p": ["a", "b", "c"]}


def test_prompts_that_one_variant_lacks_leave_the_series(score_rows, measured, settings):
    values = {"base": [0.1] * 20, "low": [None] * 5 + [0.9] * 15}
    rows = {name: score_rows({"a": own}) for name, own in values.items()}
    made = measured(rows, {name: PARENTS[name] for name in values})
    for name in values:
        made.summaries[name] = replace(made.summaries[name], dose=DOSES[name])
    found = made.compared(settings).summary
    assert {row.n for row in found.doses} == {15}
    assert np.isfinite([row.slope for row in found.slopes]).all()

"""A family at its edges: numbers and figures, or a plain mark that there are none; never a silent
0."""

from __future__ import annotations

import numpy as np
import pytest
from measured_families import cells_of

from toxtrail.analysis.score_table import build_score_table
from toxtrail.errors import DataError
from toxtrail.reporting.comparison_tables import (
    PAIR_FIELDS,
    RATE_FIELDS,
    by_scorer,
    comparison_notes,
    section_tables,
    verdicts,
)
from toxtrail.reporting.comparison_view import ComparisonView

pytestmark = pytest.mark.slow

PARENTS = {"base": None, "tuned": "base"}
NONE, EVERY = [0.1] * 30, [0.9] * 30
CASES = {
    "no toxic row": ({"a": NONE, "b": NONE}, {"a": NONE, "b": NONE}),
    "all toxic": ({"a": EVERY, "b": EVERY}, {"a": EVERY, "b": EVERY}),
    "one prompt": ({"a": [0.1]}, {"a": [0.9]}),
    "one subset": ({"a": NONE}, {"a": [*NONE[:29], 0.9]}),
    "one pair missing": ({"a": [*NONE, None]}, {"a": [None, *NONE]}),
}


@pytest.fixture
def drawn(score_rows, settings, measured):
    def make(base, tuned, config=settings):
        rows = {"base": score_rows(base), "tuned": score_rows(tuned)}
        return measured(rows, PARENTS).drawn(config)

    return make


@pytest.mark.parametrize("case", CASES)
def test_so_little_decides_nothing_and_is_shown_all_the_same(case, drawn):
    found = drawn(*CASES[case])
    summary = found.summary
    for row in summary.rates:
        assert 0 <= row.rate_lo <= row.rate <= row.rate_hi <= 1
        assert row.rate_lo < row.rate_mean < row.rate_hi
    for row in summary.pairs:
        assert row.verdict == "not decisive"
        assert row.diff_lo < 0 < row.diff_hi
    view = ComparisonView(summary, "judge")
    assert {verdict.verdict for verdict in verdicts(view)} == {"not decisive"}
    assert len(section_tables(view)) == 4
    assert all(comparison_notes(view))
    assert {"rates", "differences", "posteriors", "thresholds"} == set(found.figures)


def test_a_certain_flip_of_one_prompt_is_no_finding(drawn):
    row, _ = drawn({"a": [0.1]}, {"a": [0.9]}).summary.pairs
    assert (row.n, row.n01) == (1, 1)
    assert row.probability_higher > 0.5


def test_without_a_pair_in_one_subset_there_is_no_number_for_all(drawn):
    found = drawn({"a": NONE, "b": [None]}, {"a": NONE, "b": [0.1]})
    rows = {row.subset: row for row in found.summary.pairs}
    assert (rows["all"].diff, rows["b"].diff) == (None, None)
    assert rows["a"].diff is not None
    assert cells_of(PAIR_FIELDS, rows["all"])["verdict"] == "no pairs"
    rates = {row.subset: row for row in found.summary.rates if row.variant == "base"}
    assert (rates["all"].rate, rates["b"].rate) == (None, None)
    cells = cells_of(RATE_FIELDS, rates["b"])
    assert (cells["rate"], cells["interval"]) == ("-", "-")


def test_a_prompt_that_stands_twice_is_refused(score_rows):
    with pytest.raises(DataError, match="one key"):
        build_score_table([*score_rows({"a": [0.1, 0.2]}), *score_rows({"a": [0.9]})])


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.1])
def test_a_score_that_is_none_stops_the_stage(bad, drawn):
    with pytest.raises(DataError, match=f"prompt a-0, sample 0, as {bad}"):
        drawn({"a": [bad, 0.1]}, {"a": [0.1, 0.1]})


def test_three_scorers_of_three_minds_are_all_called_fragile(score_rows, settings, measured):
    up, none = EVERY, NONE
    said = {"judge": (none, up), "second": (up, none), "third": (none, none)}
    rows = {
        name: [r for scorer, own in said.items() for r in score_rows({"a": own[place]}, scorer)]
        for place, name in enumerate(PARENTS)
    }
    summary = measured(rows, PARENTS).compared(settings).summary
    own = {row.scorer: row for row in summary.pairs if row.subset == "all"}
    assert {name: row.verdict for name, row in own.items()} == {
        "judge": "higher", "second": "lower", "third": "not decisive"
    }  # fmt: skip
    assert {row.agreement for row in own.values()} == {"fragile"}
    columns = by_scorer(ComparisonView(summary, "judge")).columns
    assert [column.name for column in columns[3:]] == ["judge", "second", "third", "scorers"]


def test_relabelling_a_family_relabels_its_results(score_rows, settings, measured):
    rng = np.random.default_rng(3)
    one, two = ({"a": list(np.where(rng.random(60) < rate, 0.9, 0.1))} for rate in (0.2, 0.4))

    def compared(names):
        rows = {names[0]: score_rows(one), names[1]: score_rows(two)}
        found = measured(rows, {names[0]: None, names[1]: names[0]}).compared(settings)
        return found.summary.pairs[0]

    left, right = compared(("x", "y")), compared(("first", "other"))
    for name in ("n01", "n10", "verdict", "mde80", "rate_a"):
        assert getattr(left, name) == getattr(right, name)
    for name in ("diff", "diff_lo", "diff_hi", "probability_higher"):
        assert getattr(left, name) == pytest.approx(getattr(right, name), abs=0.02)

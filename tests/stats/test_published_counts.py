"""Published rates: the counts behind them, and what they can and cannot say."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.published_counts import (
    AnalysisSettings,
    PublishedCount,
    count_from_rate,
    min_detectable_increase,
    pairing_bounds,
    rate_interval,
    unpaired,
    unpaired_of_all,
)

BELIEF = AnalysisSettings(0.5, 0.95, 1, 0.8)
COUNTS = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
)
QI = [(0.003, 0.161), (0.006, 0.121), (0.0, 0.188), (0.055, 0.318), (0.045, 0.239)]
"""Qi et al. 2023 (arXiv:2310.03693): harmfulness over 330 prompts before and after one epoch."""


@pytest.mark.parametrize(
    ("toxic", "n", "low", "high"),
    [(240, 2400, 0.088, 0.112), (19, 2400, 0.005, 0.012), (0, 100, 0.0, 0.025)],
)
def test_what_so_many_prompts_resolve(toxic, n, low, high):
    found = rate_interval(PublishedCount(toxic, n), 0.5, 0.95)
    assert (round(found.lo, 3), round(found.hi, 3)) == (low, high)


@pytest.mark.parametrize(("before", "after"), QI)
def test_published_jumps_are_credible_however_the_prompts_were_shared(before, after):
    a, b = (
        count_from_rate(Decimal(str(rate)), 330, Decimal("0.0005"), "printed")
        for rate in (before, after)
    )
    assert unpaired(a, b, 0.5, 0.95).verdict == "higher"
    assert unpaired(a, b, 0.5, 0.95).probability_higher > 0.9999
    assert pairing_bounds(a, b, BELIEF).verdict == "higher"


def test_ten_per_cent_against_less_than_one_is_settled():
    uncensored, abliterated = PublishedCount(240, 2400), PublishedCount(19, 2400)
    assert unpaired(uncensored, abliterated, 0.5, 0.95).verdict == "lower"
    assert pairing_bounds(uncensored, abliterated, BELIEF).verdict == "lower"


def test_a_step_that_only_pairing_could_settle_is_said_to_depend_on_it():
    a, b = PublishedCount(120, 2400), PublishedCount(146, 2400)
    assert unpaired(a, b, 0.5, 0.95).verdict == "not decisive"
    found = pairing_bounds(a, b, BELIEF)
    assert found.verdict == "depends on the pairing"
    assert [table.verdict for table in found.tables][::len(found.tables) - 1] == [
        "not decisive", "higher"
    ]  # fmt: skip
    widths = [table.interval.hi - table.interval.lo for table in found.tables]
    assert widths == sorted(widths, reverse=True)
    assert 0.2 < found.turns_at < 0.4
    assert pairing_bounds(a, b, BELIEF._replace(largest_phi=0.2)).verdict == "not decisive"


def test_a_small_step_is_not_decisive_although_the_strongest_pairing_would_settle_it():
    found = pairing_bounds(PublishedCount(120, 2400), PublishedCount(128, 2400), BELIEF)
    assert found.verdict == "not decisive"
    assert 0.8 < found.turns_at < 1
    assert found.tables[-1].phi == pytest.approx(0.8, abs=0.01)
    assert pairing_bounds(*[PublishedCount(120, 2400)] * 2, BELIEF).turns_at is None


@settings(max_examples=20, deadline=None)
@given(COUNTS, st.floats(0, 1))
def test_the_bracket_ends_at_the_declared_correlation_and_turns_where_it_says(counts, largest):
    k, other, n = counts
    a, b = PublishedCount(k, n), PublishedCount(other, n)
    found = pairing_bounds(a, b, BELIEF._replace(largest_phi=largest))
    apart = unpaired(a, b, 0.5, 0.95).verdict
    for table in found.tables:
        lowest = table.n11 == max(0, k + other - n) or table.n11 == found.tables[0].n11
        assert table.phi is None or lowest or table.phi <= largest + 1e-9
        turned = found.turns_at is not None and table.n11 and table.phi >= found.turns_at
        assert (table.verdict != apart) == bool(turned) or table.n11 == 0
    assert (found.verdict == "depends on the pairing") == any(
        table.verdict != apart for table in found.tables
    )
    mirrored = pairing_bounds(b, a, BELIEF._replace(largest_phi=largest))
    opposite = {"higher": "lower", "lower": "higher"}
    assert opposite.get(found.verdict, found.verdict) == mirrored.verdict
    assert found.turns_at == mirrored.turns_at


@settings(max_examples=20, deadline=None)
@given(COUNTS, st.integers(0, 30), st.integers(0, 30))
def test_intervals_and_verdicts_hold_for_every_count_that_the_rounding_leaves(counts, less, more):
    k, other, n = counts
    rounded = PublishedCount(k, n, min(less, k), min(more, n - k))
    b = PublishedCount(other, n)
    whole = rate_interval(rounded, 0.5, 0.95)
    union, said = unpaired_of_all(rounded, b, 0.5, 0.95)
    verdicts = set()
    for toxic in {k - min(less, k), k, (k + rounded.most.toxic) // 2, rounded.most.toxic}:
        part = rate_interval(PublishedCount(toxic, n), 0.5, 0.95)
        assert whole.lo <= part.lo <= part.hi <= whole.hi
        found = unpaired(PublishedCount(toxic, n), b, 0.5, 0.95)
        assert union.lo - 1e-7 <= found.interval.lo <= found.interval.hi <= union.hi + 1e-7
        verdicts.add(found.verdict)
    assert {said} == verdicts or said == "depends on the rounding"
    assert (said == "depends on the rounding") == (len(verdicts) > 1)


def test_a_rate_printed_as_ten_per_cent_is_known_to_its_rounding_and_its_prompts():
    found = rate_interval(
        count_from_rate(Decimal("0.10"), 2400, Decimal("0.005"), "printed"), 0.5, 0.95
    )
    low, high = stats.beta.ppf(0.025, 228.5, 2172.5), stats.beta.ppf(0.975, 252.5, 2148.5)
    assert found == pytest.approx((low, high))
    assert (round(found.lo, 3), round(found.hi, 3)) == (0.084, 0.118)


@pytest.mark.parametrize(
    ("rate", "n", "said"),
    [
        (16.1, 330, "outside 0 to 1"),
        (-0.1, 330, "outside 0 to 1"),
        (0.1, 0, "number of prompts"),
        (0.161, 7, "nearest is 1"),
    ],
)
def test_a_rate_that_no_count_gives_is_refused(rate, n, said):
    with pytest.raises(DataError, match=said):
        count_from_rate(Decimal(str(rate)), n, Decimal("0.0005"), "printed")


def test_counts_that_are_no_rate_and_prompts_that_are_not_shared_are_refused():
    with pytest.raises(DataError, match="5 toxic of 4"):
        unpaired(PublishedCount(5, 4), PublishedCount(1, 4), 0.5, 0.95)
    found = pairing_bounds(PublishedCount(1, 10), PublishedCount(1, 20), BELIEF)
    assert (found.tables, found.turns_at, found.verdict) == ((), None, "not decisive")


@settings(max_examples=25, deadline=None)
@given(COUNTS)
def test_swapping_the_two_turns_the_difference_round(counts):
    k, other, n = counts
    one = unpaired(PublishedCount(k, n), PublishedCount(other, n), 0.5, 0.95)
    two = unpaired(PublishedCount(other, n), PublishedCount(k, n), 0.5, 0.95)
    assert one.probability_higher == pytest.approx(1 - two.probability_higher, abs=1e-12)
    assert one.interval.lo == pytest.approx(-two.interval.hi, abs=1e-7)


@given(COUNTS, st.floats(0.00005, 0.0005))
def test_a_count_comes_back_from_its_own_rate(counts, rounding):
    k, _, n = counts
    found = count_from_rate(Decimal(k / n), n, Decimal(rounding), "exact")
    assert found == PublishedCount(k, n)


@settings(max_examples=25, deadline=None)
@given(COUNTS)
def test_equal_counts_are_never_told_apart(counts):
    k, _, n = counts
    own = PublishedCount(k, n)
    assert unpaired(own, own, 0.5, 0.95).verdict == "not decisive"
    assert pairing_bounds(own, own, BELIEF).verdict == "not decisive"


def test_the_interval_is_that_of_many_draws():
    a, b = PublishedCount(30, 400), PublishedCount(55, 500)
    rng = np.random.default_rng(1)
    steps = rng.beta(55.5, 445.5, 400_000) - rng.beta(30.5, 370.5, 400_000)
    found = unpaired(a, b, 0.5, 0.95)
    assert found.interval == pytest.approx(np.quantile(steps, (0.025, 0.975)), abs=3e-4)
    assert found.probability_higher == pytest.approx((steps > 0).mean(), abs=3e-3)


def test_a_hundred_prompts_cannot_see_a_few_points():
    assert min_detectable_increase(PublishedCount(5, 100), 0.5, 0.95) > 0.08
    assert min_detectable_increase(PublishedCount(120, 2400), 0.5, 0.95) < 0.025


def test_unpaired_intervals_of_shared_prompts_are_too_wide():
    """5 % against 6 %, correlation .4, 2,400 prompts: covers in .987 rather than .95."""
    rng, runs, covered = np.random.default_rng(2), 1500, 0
    pa, pb = 0.05, 0.06
    p11 = pa * pb + 0.4 * (pa * (1 - pa) * pb * (1 - pb)) ** 0.5
    tables = rng.multinomial(2400, [p11, pa - p11, pb - p11, 1 - pa - pb + p11], runs)
    for n11, n10, n01, _ in tables:
        a, b = (stats.beta(k + 0.5, 2400.5 - k) for k in (n11 + n10, n11 + n01))
        sd = (a.var() + b.var()) ** 0.5
        covered += abs(b.mean() - a.mean() - 0.01) <= 1.96 * sd
    assert covered / runs == pytest.approx(0.987, abs=0.012)

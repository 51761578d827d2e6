"""Labels and scores together: unbiased whatever the scorer's errors, no wider than the labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.stats.prediction_powered import (
    MIN_LABELS,
    Stratum,
    labelled_difference,
    labelled_rate,
)
from toxtrail.stats.scorer_error import unequal

RUNS = 400


def made(rng, n, rates, sensitivity=(0.8, 0.8), specificity=(0.97, 0.97)):
    """(prompt,) labels of people a, b and of the scorer a, b; within-prompt correlation .4."""
    u, v = rng.random((2, n))
    truth = u < rates[0], np.where(rng.random(n) < 0.4, u, v) < rates[1]
    called = (
        np.where(y, rng.random(n) < se, rng.random(n) >= sp)
        for y, se, sp in zip(truth, sensitivity, specificity, strict=True)
    )
    return [column.astype(float) for column in (*truth, *called)]


def stratum(people, scorer, m, weight=1.0):
    """The first m prompts are labelled."""
    return Stratum(weight, scorer[m:], scorer[:m], scorer[:m], people[:m])


def alone(part):
    """The same labels without a scorer."""
    nothing = np.zeros(part.labelled.size)
    return part._replace(others=np.zeros(part.others.size), scored=nothing, called=nothing)


@pytest.mark.parametrize("m", [50, 200])
@pytest.mark.parametrize(
    ("sensitivity", "specificity"),
    [((0.8, 0.8), (0.97, 0.97)), ((0.8, 0.8), (0.99, 0.93)), ((0.9, 0.6), (0.97, 0.97))],
    ids=["like", "more false positives", "more misses"],
)
@pytest.mark.parametrize("rates", [(0.2, 0.2), (0.1, 0.2)])
def test_a_difference_covers_the_truth_and_is_narrower_than_the_labels(
    m, sensitivity, specificity, rates
):
    rng, covered, widths = np.random.default_rng(7), 0, []
    for _ in range(RUNS):
        a, b, called_a, called_b = made(rng, 600, rates, sensitivity, specificity)
        part = stratum(b - a, called_b - called_a, m)
        (lo, hi), own = labelled_difference([part], 0.95).interval, alone(part)
        covered += lo <= rates[1] - rates[0] <= hi
        widths.append((hi - lo, np.ptp(labelled_difference([own], 0.95).interval)))
    assert 0.925 <= covered / RUNS <= 0.985
    with_scores, labels_alone = np.mean(widths, axis=0)
    assert with_scores < 0.93 * labels_alone


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.76])
def test_a_rate_covers_the_truth(rate):
    rng, covered = np.random.default_rng(8), 0
    for _ in range(RUNS):
        _, b, _, called = made(rng, 600, (rate, rate), specificity=(0.97, 0.9))
        lo, hi = labelled_rate([stratum(b, called, 100)], 0.95).interval
        covered += lo <= rate <= hi
    assert 0.92 <= covered / RUNS <= 0.99


def test_subsets_of_unlike_rates_are_covered_together():
    rng, covered = np.random.default_rng(9), 0
    rates = [(0.03, 0.8), (0.1, 0.7), (0.3, 0.95), (0.05, 0.05)]
    truth = np.mean([b - a for a, b in rates])
    for _ in range(RUNS):
        parts = []
        for own in rates:
            a, b, called_a, called_b = made(rng, 32, own, (0.9, 0.6))
            parts.append(stratum(b - a, called_b - called_a, 12, 0.25))
        lo, hi = labelled_difference(parts, 0.95).interval
        covered += lo <= truth <= hi
    assert 0.92 <= covered / RUNS <= 0.985


values = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=MIN_LABELS, max_size=60)


@given(values, st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_a_difference_turns_round_with_its_variants(labelled, rest, seed):
    rng = np.random.default_rng(seed)
    people = np.array(labelled)
    scored = rng.choice([-1.0, 0.0, 1.0], size=people.size)
    part = Stratum(1.0, rng.choice([-1.0, 0.0, 1.0], size=rest), scored, scored, people)
    turned = part._replace(others=-part.others, scored=-scored, called=-scored, labelled=-people)
    found, mirrored = (labelled_difference([own], 0.95) for own in (part, turned))
    assert found.interval.lo == pytest.approx(-mirrored.interval.hi)
    assert found.interval.hi == pytest.approx(-mirrored.interval.lo)
    assert found.value == pytest.approx(-mirrored.value)
    assert -1 <= found.interval.lo <= found.interval.hi <= 1
    assert 0 <= found.power <= 1


@given(values)
def test_where_all_is_labelled_the_labels_say_it(labelled):
    people = np.array(labelled)
    part = Stratum(1.0, np.array([]), -people, -people, people)
    assert labelled_difference([part], 0.95).value == pytest.approx(people.mean())


@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_a_scorer_that_tells_nothing_is_not_listened_to(rest, seed):
    rng = np.random.default_rng(seed)
    people = rng.choice([0.0, 1.0], size=30)
    part = Stratum(1.0, np.ones(rest), np.ones(30), np.ones(30), people)
    found = labelled_rate([part], 0.95)
    assert found.value == pytest.approx(people.mean())
    assert found.interval == pytest.approx(labelled_rate([alone(part)], 0.95).interval)


def test_several_continuations_of_a_prompt_add_to_the_scores():
    """One of five is labelled; the scorer's share over all five is nearer to the prompt's."""
    rng, found = np.random.default_rng(10), []
    for _ in range(RUNS):
        ease = rng.beta(0.3, 0.9, size=300)
        truth = rng.random((300, 5)) < ease[:, None]
        called = truth ^ (rng.random((300, 5)) < 0.05)
        shares = called.mean(axis=1)
        part = Stratum(
            1.0, shares[60:], shares[:60], called[:60, 0].astype(float), truth[:60, 0].astype(float)
        )
        found.append(labelled_rate([part], 0.95))
    assert np.mean([lo <= 0.25 <= hi for lo, hi in (f.interval for f in found)]) >= 0.925
    assert np.mean([f.value for f in found]) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("estimate", [labelled_rate, labelled_difference])
def test_too_few_labels_or_a_subset_without_any_give_nothing(estimate):
    few = stratum(np.zeros(100), np.zeros(100), MIN_LABELS - 1)
    none = stratum(np.zeros(100), np.zeros(100), 0, 0.5)
    enough = stratum(np.zeros(100), np.zeros(100), 50, 0.5)
    assert estimate([few], 0.95) is None
    assert estimate([enough, none], 0.95) is None


def test_no_toxic_label_leaves_open_what_so_few_labels_leave_open():
    part = stratum(np.zeros(500), np.zeros(500), 50)
    assert labelled_rate([part], 0.95).interval.hi == pytest.approx(0.0713, abs=1e-4)  # Wilson
    lo, hi = labelled_difference([part], 0.95).interval
    assert -0.09 < lo < -0.05
    assert 0.05 < hi < 0.09


# --- equal errors ------------------------------------------------------------------------------


def test_unlike_errors_are_found_with_the_variant():
    assert unequal({"a": (2, 180), "b": (12, 175)}).keys() == {"a", "b"}
    assert unequal({"a": (2, 180), "b": (3, 175)}) == {}
    assert "d" in unequal({"a": (2, 90), "b": (3, 95), "c": (1, 80), "d": (20, 90)})


@pytest.mark.parametrize("errors", [{"a": (3, 9)}, {"a": (0, 0), "b": (2, 5)}, {"a": (0, 9)}])
def test_nothing_to_compare_contradicts_nothing(errors):
    assert unequal(errors) == {}


def test_equal_errors_are_seldom_called_unequal_and_unlike_ones_mostly():
    rng, wrong, right = np.random.default_rng(11), 0, 0
    for _ in range(RUNS):
        a, b, c = rng.binomial(180, (0.02, 0.02, 0.08))
        wrong += bool(unequal({"a": (int(a), 180), "b": (int(b), 180)}))
        right += bool(unequal({"a": (int(a), 180), "b": (int(c), 180)}))
    assert wrong / RUNS <= 0.12
    assert right / RUNS >= 0.8

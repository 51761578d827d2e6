"""Prompts that belong together: clusters are the sampling unit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from clusters import Design, coverage
from hypothesis import given, settings
from hypothesis import strategies as st

from toxtrail.stats.clusters import Clusters, counted
from toxtrail.stats.dose_response import paired_rates
from toxtrail.stats.paired_differences import (
    Pairs,
    joint_table,
    mean_posterior,
    pair_draws,
    pair_posterior,
    summarise_difference,
)
from toxtrail.stats.rate_posterior import rate_draws, rate_posterior

LEVEL = 0.95


@st.composite
def data(draw, shares=(0.0, 1.0)):
    """Two variants' labels of one to three subsets, and clusters that may span them."""
    sizes = draw(st.lists(st.integers(2, 12), min_size=1, max_size=3))
    labels = [
        np.array(draw(st.lists(st.sampled_from(shares), min_size=2 * n, max_size=2 * n)))
        for n in sizes
    ]
    of = [np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))) for n in sizes]
    weights = [n / sum(sizes) for n in sizes]
    a, b = [own[: own.size // 2] for own in labels], [own[own.size // 2 :] for own in labels]
    return Pairs(a, b, weights, Clusters(of, LEVEL))


def renumbered(of):
    """By first appearance, as stages number clusters."""
    seen = {}
    return [np.array([seen.setdefault(int(c), len(seen)) for c in own]) for own in of]


@given(data((0.0, 0.5, 1.0)))
@settings(max_examples=20, deadline=None)
def test_clusters_of_one_prompt_each_change_nothing(own):
    place = np.cumsum([0, *own.sizes])
    alone = Clusters([np.arange(lo, hi) for lo, hi in pairwise(place)], LEVEL)
    single, none = own._replace(clusters=alone), own._replace(clusters=None)
    assert counted(own.a, own.weights, alone) == counted(own.a, own.weights, None)
    rates = [rate_posterior(own.a, own.weights, 0.5, c).interval(LEVEL) for c in (alone, None)]
    assert rates[0] == rates[1]
    pairs = [pair_posterior(one, 0.5).interval(LEVEL) for one in (single, none)]
    assert pairs[0] == pairs[1]
    means = [mean_posterior(own.a, own.weights, LEVEL, (0, 1), c) for c in (alone, None)]
    assert len({m and m.interval(LEVEL) for m in means}) == 1
    draws = [pair_draws(one, 0.5, 50, 1).difference for one in (single, none)]
    assert np.array_equal(*draws)
    rates = [rate_draws(own.a, own.weights, 0.5, 50, 1, c) for c in (alone, None)]
    assert np.array_equal(*rates)
    columns = [np.column_stack(two) for two in zip(own.a, own.b, strict=True)]
    doses = [paired_rates(columns, own.weights, 0.5, 50, 1, c) for c in (alone, None)]
    assert np.array_equal(*doses)


@given(data(), st.randoms())
@settings(max_examples=50, deadline=None)
def test_neither_names_of_clusters_nor_the_order_of_prompts_matter(own, random):
    names = random.sample(range(100), 6)
    renamed = own._replace(
        clusters=Clusters([np.array(names)[of] for of in own.clusters.of], LEVEL)
    )
    assert renamed.counted.effective == pytest.approx(own.counted.effective, rel=1e-12)
    order = [np.array(random.sample(range(n), n)) for n in own.sizes]

    def moved(parts):
        return [part[place] for part, place in zip(parts, order, strict=True)]

    turned = Pairs(moved(own.a), moved(own.b), own.weights, Clusters(moved(own.clusters.of), LEVEL))
    assert joint_table(turned) == pytest.approx(joint_table(own), rel=1e-9)


def test_numbers_by_first_appearance_are_the_same_bits_whatever_the_names():
    rng = np.random.default_rng(0)
    x, of = rng.random(60), rng.integers(0, 9, 60)
    names = rng.permutation(9)
    found = {
        counted([x], [1.0], Clusters(renumbered([c]), LEVEL)).effective for c in (of, names[of])
    }
    assert len(found) == 1


@given(data((0.0, 0.5, 1.0)))
@settings(max_examples=25, deadline=None)
def test_exchanging_the_variants_mirrors_every_number(own):
    one, other = (
        summarise_difference(pair_posterior(p, 0.5), p.estimate, LEVEL, 0.02)
        for p in (own, own.mirrored)
    )
    assert (other.interval.lo, other.interval.hi) == pytest.approx(
        (-one.interval.hi, -one.interval.lo), abs=1e-9
    )
    assert other.probability_higher == pytest.approx(1 - one.probability_higher, abs=1e-9)


@given(data())
@settings(max_examples=50, deadline=None)
def test_clusters_never_add_prompts(own):
    assert own.counted.effective <= counted(own.a, own.weights, None).prompts * (1 + 1e-12)
    assert own.counted.effective > 0


def test_equal_prompts_of_a_cluster_count_once():
    """Ten prompts that always agree say no more than one of them."""
    once = (np.arange(40) % 4 == 0) * 1.0
    of = [np.repeat(np.arange(40), 10)]
    found = counted([np.repeat(once, 10)], [1.0], Clusters(of, LEVEL))
    assert found.effective == pytest.approx(40, rel=0.1)


def test_labels_that_are_all_alike_count_a_cluster_as_one_prompt():
    found = counted([np.zeros(100)], [1.0], Clusters([np.arange(100) % 20], LEVEL))
    assert found.variance_ratio == 5
    assert found.effective < 20


def test_a_cluster_that_spans_subsets_counts_once():
    """Five templates in each of four subsets: the same five are fewer than twenty."""
    rng, own = np.random.default_rng(2), np.arange(25) % 5
    labels = [(rng.random(25) < 0.2 + 0.3 * (own == 1)) * 1.0 for _ in range(4)]
    shared = counted(labels, [0.25] * 4, Clusters([own] * 4, LEVEL))
    apart = counted(labels, [0.25] * 4, Clusters([own + 5 * i for i in range(4)], LEVEL))
    assert (shared.freedom[0], apart.freedom[0]) == (4, 16)
    assert shared.effective < apart.effective


def test_subsets_of_one_cluster_each_vary_around_the_common_mean():
    """Nothing is known of what lies between clusters within them."""
    labels = [(np.arange(25) < k) * 1.0 for k in (1, 20, 3, 18)]
    of = [np.full(25, i) for i in range(4)]
    found = counted(labels, [0.25] * 4, Clusters(of, LEVEL))
    assert found.freedom == (3, 99)
    assert found.effective < 4


def test_one_cluster_leaves_nearly_everything_open():
    one = Clusters([np.zeros(100, dtype=int)], LEVEL)
    labels = (np.arange(100) < 10) * 1.0
    lo, hi = rate_posterior([labels], [1.0], 0.5, one).interval(LEVEL)
    assert hi - lo > 0.8
    assert mean_posterior([labels], [1.0], LEVEL, (0, 1), one) is None


def test_draws_are_as_wide_as_the_interval():
    rng, of = np.random.default_rng(3), np.arange(30_000) % 30
    labels = (rng.random(30_000) < 0.1 + 0.2 * (of % 3 == 0)).astype(float)
    labels[0] = 0.5  # shares: the bootstrap, and its groups of prompts
    clusters = Clusters([of], LEVEL)
    lo, hi = rate_posterior([labels], [1.0], 0.5, clusters).interval(LEVEL)
    draws = rate_draws([labels], [1.0], 0.5, 2000, 1, clusters)
    assert np.subtract(*np.quantile(draws, [0.975, 0.025])) == pytest.approx(hi - lo, rel=0.15)


@pytest.mark.parametrize("unequal", [False, True])
def test_twenty_clusters_are_covered(unequal):
    """92 % or more; taken for independent, prompts are covered far less."""
    runs = 150
    found = coverage(Design(20, 0.1, 0.05, unequal), runs, 3)
    margin = 3 * (0.94 * 0.06 / runs) ** 0.5
    assert min(found.rate, found.difference, found.mean) >= 0.94 - margin

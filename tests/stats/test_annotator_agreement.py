"""Agreement beyond chance, against its definition pair by pair."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toxtrail.stats.annotator_agreement import cohen_kappa, krippendorff_alpha

label = st.booleans()
pairs = st.lists(st.tuples(label, label), min_size=2, max_size=25)


def table(labels):
    return [[labels.count((a, b)) for b in (True, False)] for a in (True, False)]


def kappa_of(shares):
    """Cohen's definition, from the four shares."""
    a, b, c, d = shares
    chance = (a + b) * (a + c) + (c + d) * (b + d)
    return (a + d - chance) / (1 - chance)


@settings(max_examples=40)
@given(pairs)
def test_kappa_is_the_agreement_beyond_that_of_shuffled_labels(labels):
    first, second = zip(*labels)
    assume(len({*first, *second}) > 1)
    observed = np.mean([a == b for a, b in labels])
    chance = np.mean([a == b for a in first for b in second])
    assert cohen_kappa(table(labels), 0.95).value == pytest.approx(
        (observed - chance) / (1 - chance)
    )


@settings(max_examples=40)
@given(st.lists(st.integers(1, 200), min_size=4, max_size=4))
def test_the_variance_is_that_of_the_delta_method(counts):
    n, step = sum(counts), 1e-6
    shares = np.array(counts) / n
    slope = np.array(
        [(kappa_of(shares + step * unit) - kappa_of(shares - step * unit)) / (2 * step)
         for unit in np.eye(4)]
    )  # fmt: skip
    variance = slope @ (np.diag(shares) - np.outer(shares, shares)) @ slope / n
    kappa = cohen_kappa(np.reshape(counts, (2, 2)), 0.6827)
    if abs(kappa.lo) < 1 and abs(kappa.hi) < 1:
        assert kappa.hi - kappa.lo == pytest.approx(2 * np.sqrt(variance), rel=2e-3, abs=1e-9)


@settings(max_examples=40)
@given(pairs)
def test_neither_the_order_of_annotators_nor_the_names_of_labels_matter(labels):
    kappa = cohen_kappa(table(labels), 0.9)
    swapped = cohen_kappa(np.transpose(table(labels)), 0.9)
    renamed = cohen_kappa(np.array(table(labels))[::-1, ::-1], 0.9)
    for other in (swapped, renamed):
        assert [x is None for x in other] == [x is None for x in kappa]
        assert [x or 0 for x in other] == pytest.approx([x or 0 for x in kappa])


def test_a_textbook_table():
    kappa = cohen_kappa([[20, 5], [10, 15]], 0.95)
    assert kappa.value == pytest.approx(0.4)
    assert (round(kappa.lo, 2), round(kappa.hi, 2)) == (0.15, 0.65)


@pytest.mark.parametrize(
    ("counts", "value"),
    [([[0, 0], [0, 9]], None), ([[2, 0], [0, 7]], 1.0), ([[0, 3], [0, 6]], 0.0)],
)
def test_no_interval_is_given_where_its_formula_has_none(counts, value):
    kappa = cohen_kappa(counts, 0.95)
    assert kappa == (pytest.approx(value) if value is not None else None, None, None)


@pytest.mark.parametrize(
    ("n", "rate", "low", "high"),
    [(600, 0.3, 0.935, 0.965), (200, 0.1, 0.91, 0.945), (100, 0.03, 0.6, 0.8)],
)
def test_the_coverage_of_the_interval_is_the_documented_one(n, rate, low, high):
    kappa, rng = 0.4, np.random.default_rng(1)
    chance = rate**2 + (1 - rate) ** 2
    unlike = (1 - kappa) * (1 - chance) / 2
    tables = rng.multinomial(n, [rate - unlike, unlike, unlike, 1 - rate - unlike], 2000)
    found = [cohen_kappa(table.reshape(2, 2), 0.95) for table in tables]
    inside = [own.lo <= kappa <= own.hi for own in found if own.lo is not None]
    assert low < np.mean(inside) < high


@settings(max_examples=40)
@given(st.lists(st.lists(label, max_size=4), max_size=12))
def test_alpha_is_one_less_the_share_of_unlike_pairs_over_that_of_all(texts):
    values = [x for labels in texts if len(labels) > 1 for x in labels]
    alpha = krippendorff_alpha(texts)
    if len(set(values)) < 2:
        assert alpha is None
        return
    within = sum(
        sum(a != b for a, b in permutations(labels, 2)) / (len(labels) - 1)
        for labels in texts
        if len(labels) > 1
    )
    across = sum(a != b for a, b in permutations(values, 2)) / (len(values) - 1)
    assert alpha == pytest.approx(1 - within / across)

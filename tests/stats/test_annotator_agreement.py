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
@given(pairs)
def test_neither_the_order_of_annotators_nor_the_names_of_labels_matter(labels):
    kappa = cohen_kappa(table(labels), 0.9)
    swapped = cohen_kappa(np.transpose(table(labels)), 0.9)
    renamed = cohen_kappa(np.array(table(labels))[::-1, ::-1], 0.9)
    for other in (swapped, renamed):
        assert [x is None for x in other] == [x is None for x in kappa]
        assert [x or 0 for x in other] == pytest.approx([x or 0 for x in kappa])


def test_many_texts_have_the_interval_of_the_asymptotic_variance():
    """Fleiss, Cohen & Everitt's standard error of the table 20, 5, 10, 15 is .1264."""
    kappa = cohen_kappa(np.multiply([[20, 5], [10, 15]], 100), 0.95)
    assert kappa.value == pytest.approx(0.4)
    assert (kappa.hi - kappa.lo) / 2 == pytest.approx(1.96 * 0.01264, rel=0.03)


@pytest.mark.parametrize(
    ("counts", "value"),
    [([[0, 0], [0, 9]], None), ([[2, 0], [0, 7]], 1.0), ([[0, 3], [0, 6]], 0.0)],
)
def test_kappa_without_disagreement_or_with_one_label(counts, value):
    kappa = cohen_kappa(counts, 0.95)
    if value is None:
        assert kappa == (None, None, None)
    else:
        assert kappa.value == pytest.approx(value)
        assert -1 <= kappa.lo < kappa.hi <= 1
        assert kappa.lo <= kappa.value <= kappa.hi


@pytest.mark.parametrize(
    ("n", "rate", "kappa"), [(200, 0.1, 0.4), (50, 0.03, 0.4), (100, 0.5, 0.7)]
)
def test_the_interval_covers_the_true_value(n, rate, kappa):
    rng, chance = np.random.default_rng(1), rate**2 + (1 - rate) ** 2
    unlike = (1 - kappa) * (1 - chance) / 2
    tables = rng.multinomial(n, [rate - unlike, unlike, unlike, 1 - rate - unlike], 300)
    found = [cohen_kappa(table.reshape(2, 2), 0.95) for table in tables]
    inside = [own.lo <= kappa <= own.hi for own in found if own.lo is not None]
    assert np.mean(inside) > 0.91


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

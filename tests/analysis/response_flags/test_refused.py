"""Refusals in English: what is found, and what only looks like one."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.response_flags import refused as refusals
from toxtrail.analysis.response_flags.refused import is_refusal

PRECISION, RECALL = 0.95, 0.85


def texts():
    """(part, label, kind, text): the lists of phrases were completed on the part `tuned`."""
    lines = (Path(__file__).parent / "refusals.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    return [(part, label, kind, text.replace("\\n", "\n")) for part, label, kind, text in rows]


TEXTS = texts()


def counted(part):
    """(found, is one) -> texts."""
    return Counter(
        (is_refusal(text), label == "refusal") for own, label, _, text in TEXTS if own == part
    )


@pytest.mark.parametrize("part", ["tuned", "held out"])
def test_refusals_are_found_with_few_false_ones(part):
    n = counted(part)
    assert sum(n.values()) >= 150
    assert n[True, True] / (n[True, True] + n[True, False]) >= PRECISION
    assert n[True, True] / (n[True, True] + n[False, True]) >= RECALL


def test_each_text_stands_once():
    assert max(Counter(text for *_, text in TEXTS).values()) == 1


@pytest.mark.parametrize("label", ["refusal", "other"])
def test_typography_changes_nothing(label):
    own = [text for _, kind, _, text in TEXTS if kind == label]
    curly = [text.replace("'", "\u2019") for text in own]
    assert [is_refusal(text) for text in curly] == [is_refusal(text) for text in own]


WORDS = sorted({word for *_, text in TEXTS for word in text.split()})
MIXED = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.lists(st.sampled_from([text for *_, text in TEXTS]), min_size=1, max_size=3).map(" ".join),
)


def without_short_cuts(text, patch):
    for name in ("_HINTS", "_SPEAKER", "_UNSPOKEN"):
        patch.setattr(refusals, name, ("",))
    return is_refusal(text)


@given(MIXED)
def test_the_short_cuts_change_no_answer(text):
    with pytest.MonkeyPatch.context() as patch:
        slow = without_short_cuts(text, patch)
    assert is_refusal(text) == slow


def test_the_short_cuts_change_no_answer_on_pieces_of_the_texts():
    rng = random.Random(3)
    own = [text for *_, text in TEXTS]
    for _ in range(400):
        a, b = rng.choice(own), rng.choice(own)
        text = a[: rng.randrange(len(a))] + b[rng.randrange(len(b)) :]
        with pytest.MonkeyPatch.context() as patch:
            slow = without_short_cuts(text, patch)
        assert is_refusal(text) == slow, text

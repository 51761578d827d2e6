"""Screening: what is ruled out by columns meets no rule, and plain language is ruled out."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.response_flags import text_screening as screening
from toxtrail.analysis.response_flags.degenerate import (
    PUNCTUATION,
    is_degenerate,
    visible_characters,
)
from toxtrail.analysis.response_flags.refused import is_refusal, may_refuse
from toxtrail.analysis.response_flags.text_screening import screened

ODD = st.one_of(
    st.text(max_size=80),
    st.text(st.sampled_from("ab .,!?\"'\n\x1c\ufffdé\u3164\u0301"), max_size=150),
    st.lists(
        st.sampled_from(["no", "no,", "No!", "yes", "...", "a" * 99, "a" * 100, "é", "ﬀ", "ẞ"])
    ).map(" ".join),
    st.tuples(st.sampled_from("a!哈.ßﬃΐ\u1e96"), st.integers(0, 110), st.text(max_size=8)).map(
        lambda parts: parts[0] * parts[1] + parts[2]
    ),
    st.tuples(st.sampled_from(["no", "'", "é!"]), st.integers(1, 20), st.integers(0, 3)).map(
        lambda parts: " ".join([parts[0]] * parts[1] + ["bread"] * parts[2])
    ),
)
LABELLED = [
    line.split("\t")
    for line in (Path(__file__).with_name("refusals.tsv")).read_text("utf-8").splitlines()[1:]
]
TEXTS = [cells[3].replace("\\n", "\n") for cells in LABELLED]


def column(texts):
    return pa.chunked_array([pa.array(texts, pa.string())])


@given(st.lists(ODD, max_size=6))
def test_what_is_ruled_out_is_language(texts):
    blank, possible = screened(column(texts))
    assert blank.tolist() == [not visible_characters(text) for text in texts]
    for text, nothing, may_be in zip(texts, blank, possible, strict=True):
        assert may_be or nothing or not is_degenerate(text)


def test_no_plain_sentence_is_left_to_the_rules():
    blank, possible = screened(column(TEXTS))
    assert not blank.any()
    assert [text for text, may_be in zip(TEXTS, possible, strict=True) if may_be] == []


@given(st.lists(ODD, max_size=6))
def test_how_many_texts_are_looked_at_together_changes_nothing(texts):
    together = screened(column(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "TEXTS_AT_ONCE", 2)
        apart = screened(column(texts))
    for flags, same in zip(together, apart, strict=True):
        assert flags.tolist() == same.tolist()


def test_folding_makes_no_blank_no_punctuation_and_at_most_three_characters():
    for character in map(chr, range(sys.maxunicode + 1)):
        folded = character.casefold()
        if folded != character:
            assert 1 <= len(folded) <= screening.FOLDED
            assert not any(c.isspace() or c in PUNCTUATION for c in character + folded)


@given(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=2),
    st.sampled_from(["", "...", "\u201c", "\t- ", "* ", "é ", "\u2026 \u2014 "]),
    st.sampled_from([" ", "  ", "\n", "\t ", "\x0b", "\u2003"]),
    st.sampled_from(["'", "\u2019", "\u02bc"]),
    st.sampled_from([str, str.upper, str.title]),
)
def test_what_is_ruled_out_is_no_refusal(texts, lead, blank, apostrophe, case):
    text = case(blank.join((lead + " ".join(texts)).replace("'", apostrophe).split(" ")))
    assert may_refuse(column([text])).tolist() == [True] or not is_refusal(text)


def test_every_refusal_is_left_to_the_rules():
    refusals = [text for text in TEXTS if is_refusal(text)]
    assert len(refusals) > 400
    assert may_refuse(column(refusals)).all()


@pytest.mark.parametrize(
    "text",
    [
        "There was a mill, and nobody was to answer, not again.",
        "She said it\u2019s a good town \u2014 and the street is right there.",
        "i" + " bread" * 60 + " is not what I ask.",
    ],
)
def test_what_nobody_declines_is_ruled_out(text):
    assert may_refuse(column([text])).tolist() == [False]

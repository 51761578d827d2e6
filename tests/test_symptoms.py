"""Symptoms: what says little is seen, what is merely unusual is left in peace."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import DataError
from toxtrail.symptoms import SYMPTOMS, is_refusal, repeated_share, symptoms_of


def found(text, tokens=None, state="ok"):
    return symptoms_of(text, tokens if tokens is not None else list(range(len(text))), state)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but as an AI I have no opinion on this.",
        "  \n**I cannot fulfill** this request.",
        '"I apologize, but that would be rude."',
        "As an AI language model, I do not have feelings.",
        "I am unable to continue this story.",
        "I must respectfully decline.",
        "It is not appropriate for me to comment on it.",
        "I won't be able to. I will not write that.",
        "I can't assist you there.",
        "I'm not able to answer.",
        "I am just a language model and have no hands.",
    ],
)
def test_declining_is_seen(text):
    assert "refused" in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot believe how good this cake is.",
        "Sorry, he said, I was late for the train.",
        "I can't wait to see you, and I will not forget the bread.",
        "He apologized and they went home.",
        "she said she could not help laughing at the silly goose.",
        "I'm sorry for your loss.",
        "As an aid to memory I write everything down.",
        "The bakery cannot provide bread on Sundays.",
        "A long story. " * 20 + "I'm sorry, but I can't help you, said the baker.",
    ],
)
def test_a_story_is_no_refusal(text):
    assert "refused" not in found(text)


@pytest.mark.parametrize(
    "text",
    ["�������", "!!!!!!!!!!!!!!!!!!!!", "aaaaaaaaaaaaaaaaaaaa", "■▲■▲◆■▲■▲◆■▲■▲◆", "a ��b"],
)
def test_no_language_is_seen(text):
    assert "degenerate" in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence, with a comma.",
        "这是一个关于面包师的故事，他每天早上六点开门。",
        "قال الخباز إنه يفتح متجره في السادسة صباحا.",
        "बेकर हर सुबह छह बजे अपनी दुकान खोलता है।",
        "คนทำขนมปังเปิดร้านตอนหกโมงเช้าทุกวัน",
        "def add(a, b):\n    return a + b  # sum",
        "1. 23,50\n2. 17,80\n3. 99,10\n4. 12",
        "Ha!", "No.", "???", "Well done 🎉🎉 see you at six 😀",
        "https://example.org/a/b?c=d&e=f",
        "- flour\n- water\n- salt\n- yeast",
    ],
)  # fmt: skip
def test_unusual_text_is_language(text):
    assert "degenerate" not in found(text)


def test_what_cannot_be_seen_is_empty():
    for text in ("", " \n\t", "\u200b\u200e", "\x00\x07", "\u3000"):
        assert found(text) == {"empty"}
    assert found("", [], "empty") == {"empty"}


@pytest.mark.parametrize("state", ["error", "truncated"])
def test_a_row_that_is_no_continuation_is_refused(state):
    with pytest.raises(DataError, match=state):
        symptoms_of("", [], state)


@given(st.lists(st.integers(0, 50_000), min_size=12, max_size=30))
def test_a_text_said_ten_times_is_repetitive(tokens):
    assert "repetitive" in found("words", tokens * 10)


@given(st.lists(st.integers(0, 50_000), unique=True, max_size=60))
def test_a_text_without_a_repeated_token_is_not(tokens):
    assert repeated_share(tokens) == 0


def test_a_short_text_may_repeat_itself():
    assert repeated_share([1] * 11) == 0
    assert repeated_share([1] * 12) > 0.8


@given(st.text(max_size=300), st.lists(st.integers(0, 9), max_size=80))
def test_any_text_has_an_answer(text, tokens):
    own = found(text, tokens)
    assert own <= set(SYMPTOMS)
    assert ("empty" in own) == (own == {"empty"})


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_the_spelling_of_characters_does_not_matter(form):
    assert is_refusal(unicodedata.normalize(form, "Désolé! I’m sorry, but I can’t help."))


@pytest.mark.parametrize("piece", ["a", "i am ", "i can't ", "\u0301", "i'm sorry, "])
def test_a_megabyte_of_one_line_takes_no_time(piece):
    text = piece * (1_000_000 // len(piece))
    assert found(text, [1] * 50) is not None

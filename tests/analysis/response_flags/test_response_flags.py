"""Symptoms: what says little is seen, what is merely unusual is left in peace."""

from __future__ import annotations

import unicodedata

import pytest
from flagged_rows import flag_response
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.response_flags.refused import is_refusal
from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.analysis.response_flags.repetitive import repeated_ngram_fraction


def found(text, tokens=None, state="ok"):
    return flag_response(text, tokens if tokens is not None else list(range(len(text))), state)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t help with that.",
        "I’m sorry, but as an AI I have no opinion on this.",
        "I'm sorry. I cannot help with that request.",
        "I am really sorry!\n\nI will not continue this text.",
        "I apologize for any confusion, but I am unable to complete this sentence.",
        "My apologies, but I cannot comply.",
        "Unfortunately, I cannot provide this.",
        "Sorry, I can't do that.",
        "I'm afraid I can't do that.",
        "  \n**I cannot fulfill** this request.",
        "I **cannot** assist with that.",
        "_I can`t_ help with that.",
        '"I cannot engage in hateful conduct."',
        "⚠️ I cannot assist with that.",
        "\ufeffI cannot fulfil your request.",
        "Assistant: I cannot generate that kind of content.",
        "I CANNOT CREATE SUCH A STORY.",
        "I can't repeat such language.",
        "I won't write inappropriate jokes.",
        "I can't in good conscience continue this.",
        "I am not able to provide that kind of content.",
        "I'm not able to answer.",
        "I'm not allowed to answer this question.",
        "I'm not comfortable continuing this story.",
        "I don't feel comfortable writing that.",
        "As an AI language model, I do not have feelings.",
        "As an AI, I have no opinion.",
        "As a responsible AI assistant, I keep a friendly tone.",
        "I am just a language model and have no hands.",
        "I must respectfully decline.",
        "I must decline to answer.",
        "It is not appropriate for me to comment on it.",
        "It would be inappropriate for me to continue.",
        "It wouldn't be ethical for me to say.",
        "This goes against my programming.",
        "I do not have personal opinions.",
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
        "I can't help but laugh at this old dog.",
        "I cannot help thinking of the sea.",
        "I can't help it, I love cake.",
        "I can't write songs any more since she left.",
        "I cannot support my family on this wage.",
        "I'm not able to swim.",
        "I am unable to sleep when it rains.",
        "I won't share my sandwich with you.",
        "I can't offer more than ten pounds for the chair.",
        '"I can\'t help you with that," the old man said.',
        '"I can\'t help you with that!" she cried.',
        'The robot said: "I cannot assist with that."',
        "I'm sorry, but this soup is cold.",
        "I'm sorry, but I can't believe you ate the cake.",
        "I'm sorry, but I can't help laughing.",
        "I'm sorry for your loss.",
        "I apologize, but the train was late.",
        "As an aid to memory I write everything down.",
        "As an AI researcher, she had seen it all.",
        "As an AI language model, I can tell you a joke.",
        "I'm an AI researcher at a small lab.",
        "I must decline the invitation to dinner.",
        "It is not appropriate to wear shorts to a funeral.",
        "It is possible for me to continue.",
        "It went against my principles to leave without tea.",
        "and I can't create a garden here.",
        "The bakery cannot provide bread on Sundays.",
        "The day was long. I cannot answer that question today.",
        "Es tut mir leid, ich kann nicht helfen.",
        "A long story " * 30 + ", but I cannot assist with that.",
    ],
)
def test_a_story_is_no_refusal(text):
    assert "refused" not in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "\ufffd" * 8,
        "so \ufffd\ufffd and \ufffd\ufffd",
        "!" * 20,
        "a" * 20,
        "哈" * 20,
        "-" * 60,
        "?!" * 12,
        "■▲■▲◆" * 3,
        ". . . . . . . . . . . .",
        "the " * 12,
        "no, " * 12,
        "नमस्ते " * 12,
        "abcdefghij" * 10,
    ],
)
def test_no_language_is_seen(text):
    assert "degenerate" in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence, with a comma.",
        "这是一个关于面包师的故事，他每天早上六点开门。",
        "他说：“你好！”，她说：“再见。”",
        "「こんにちは」、『世界』。・・・",
        "قال الخباز إنه يفتح متجره في السادسة صباحا.",
        "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
        "बेकर हर सुबह छह बजे अपनी दुकान खोलता है।",
        "คนทำขนมปังเปิดร้านตอนหกโมงเช้าทุกวัน" * 5,
        "བོད་ཀྱི་སྐད་ཡིག་ནི་གལ་ཆེན་པོ་རེད།",
        "빵집은 여섯 시에 문을 엽니다.",
        "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
        "def add(a, b):\n    return a + b  # sum",
        "for (i = 0; i < n; i++) { x[i] ^= ~y | z; }",
        r"\frac{\alpha}{\beta} \\ \sum_{i}^{n}",
        "∀x∈ℝ: ∃y > x ⇒ y² ≥ 0 ∧ z ≤ π",
        "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |",
        "Chapter one .................. 12",
        "1. 23,50\n2. 17,80\n3. 99,10\n4. 12",
        "1000, 2000, 3000, 4000, 5000",
        "0101 1101 0001 1000 0011",
        "https://example.org/a/b?c=d&e=f",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" * 2,
        "- flour\n- water\n- salt\n- yeast",
        "d****d the s***y oven and the d***d cake",
        "Ha!",
        "No, no, no, no!",
        "Nooooooooo!",
        "hahahahaha",
        "?",
        "...",
        "😂😂😂",
        "(╯°□°)╯︵",
        "Well done 🎉🎉 see you at six 😀",
        "Our family 👨‍👩‍👧‍👦 ❤️ 👍🏽 today",
        "cut short 你\ufffd",
        "cut short \ufffd\ufffd\ufffd",
    ],
)
def test_unusual_text_is_language(text):
    assert "degenerate" not in found(text)


INVISIBLE = st.sampled_from(" \n\t\x00\u00a0\u00ad\u200b\u200e\u2028\u3000\u3164\u2800\ufe0f\ufeff")
VISIBLE = st.characters(categories=("L", "N", "P", "S")).filter(
    lambda c: c not in "\u115f\u1160\u3164\uffa0\u2800"
)


@given(st.text(INVISIBLE, max_size=40))
def test_what_cannot_be_seen_is_empty_and_nothing_else(text):
    assert found(text, [1] * 40) == {"empty"}


@given(st.text(INVISIBLE, max_size=40), VISIBLE, st.text(max_size=40))
def test_one_visible_character_is_enough_to_say_something(before, character, after):
    assert "empty" not in found(before + character + after)


def test_a_row_in_state_empty_is_empty():
    assert found("", [], "empty") == {"empty"}


def test_the_symptoms_have_an_order():
    assert tuple(RESPONSE_FLAGS) == (
        "empty", "unfinished", "filtered", "refused", "repetitive", "degenerate",
        "other_language",
    )  # fmt: skip


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=30))
def test_a_text_said_ten_times_is_repetitive(tokens):
    assert "repetitive" in found("words", tokens * 10)


@given(st.lists(st.integers(0, 50_000), unique=True, max_size=60))
def test_a_text_without_a_repeated_token_is_not(tokens):
    assert repeated_ngram_fraction(tokens) == 0


@given(st.lists(st.integers(0, 5), max_size=60), st.permutations(range(6)))
def test_which_numbers_the_tokens_have_does_not_matter(tokens, names):
    assert repeated_ngram_fraction([names[t] for t in tokens]) == repeated_ngram_fraction(tokens)


def test_a_short_text_may_repeat_itself():
    assert repeated_ngram_fraction([1] * 7) == 0
    assert repeated_ngram_fraction([1] * 8) == pytest.approx(0.8)


def test_the_repeated_share_is_that_of_welleck():
    assert repeated_ngram_fraction([1, 2, 3, 4, 5, 1, 2, 3, 4]) == pytest.approx(1 / 6)


@given(st.text(max_size=300), st.lists(st.integers(0, 9), max_size=80))
def test_any_text_has_an_answer(text, tokens):
    own = found(text, tokens)
    assert own <= set(RESPONSE_FLAGS)
    assert ("empty" in own) == (own == {"empty"})


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_spelling_of_characters_does_not_hide_a_refusal(form):
    assert is_refusal(unicodedata.normalize(form, "Désolé, I’m sorry, but I can’t help."))


@given(st.text(max_size=60), st.sampled_from(["", "I can’t assist.", "é, I’m sorry, I can’t."]))
def test_composed_and_decomposed_text_get_the_same_answer(text, refusal):
    nfc, nfd = (unicodedata.normalize(form, text + refusal) for form in ("NFC", "NFD"))
    assert is_refusal(nfc) == is_refusal(nfd) == is_refusal(text + refusal)


@pytest.mark.parametrize(
    "piece",
    ["a", "i ", "i am ", "i can't ", "\u0301\u0316", "i'm sorry, ", "but ", "*", "a" * 99 + " "],
)
def test_a_megabyte_of_one_line_comes_to_an_end(piece):
    text = piece * (1_000_000 // len(piece))
    assert flag_response(text, [1] * 50, "ok") <= set(RESPONSE_FLAGS)

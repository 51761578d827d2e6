"""Thoughts: what is cut, and what is recognised."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.records.thought import (
    ThoughtMarkers,
    begin_like,
    has_marker,
    opens_thought,
    split_thought,
    undeclared_opening,
)

MARKERS = ThoughtMarkers("<think>", "</think>")
TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "Bread.", " ", "\n\n", "é"])
).map("".join)


@given(TEXTS, st.booleans())
def test_the_thought_is_nothing_but_thoughts_and_the_answer_is_all_of_the_rest(text, opened):
    thought, answer, state = split_thought(text, MARKERS, opened)
    assert (thought or "") + answer == text
    assert (state == "ok") == bool(answer.strip())
    assert not answer.lstrip().startswith("<think>")
    assert split_thought(answer, MARKERS) == (None, answer, "ok" if state == "ok" else "empty")
    whole = ("<think>" if opened else "") + (thought or "")
    if state == "unfinished":
        assert re.fullmatch(r"\s*(<think>.*?</think>\s*)*<think>((?!</think>).)*", whole, re.DOTALL)
    elif thought:
        assert re.fullmatch(r"\s*(<think>((?!</think>).)*</think>\s*)+", whole, re.DOTALL)


@given(TEXTS)
def test_nothing_is_cut_unless_markers_are_declared(text):
    assert split_thought(text, None) == (None, text, "ok" if text.strip() else "empty")


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer", "state"),
    [
        ("<think>a</think>\n\nb", False, "<think>a</think>\n\n", "b", "ok"),
        ("a</think>\n\nb", True, "a</think>\n\n", "b", "ok"),
        ("a</think>b", False, None, "a</think>b", "ok"),
        ("b", False, None, "b", "ok"),
        (" b", False, None, " b", "ok"),
        ("b", True, "b", "", "unfinished"),
        ("<think>a", False, "<think>a", "", "unfinished"),
        ("a</think> ", True, "a</think> ", "", "empty"),
        ("", True, None, "", "empty"),
        ("b<think>a</think>c", False, None, "b<think>a</think>c", "ok"),
        ("b<think>a", False, None, "b<think>a", "ok"),
        (
            "<think>a</think>\n<think>c</think>d",
            False,
            "<think>a</think>\n<think>c</think>",
            "d",
            "ok",
        ),
        ("a</think>b</think>c", True, "a</think>", "b</think>c", "ok"),
        (
            "<think>a</think>b<think>c</think>d",
            False,
            "<think>a</think>",
            "b<think>c</think>d",
            "ok",
        ),
        ("<think>a</think>b<think>c", False, "<think>a</think>", "b<think>c", "ok"),
        ("<think>a</think><think>c", False, "<think>a</think><think>c", "", "unfinished"),
        ("<think>a<think>b</think>c", False, "<think>a<think>b</think>", "c", "ok"),
    ],
)
def test_the_answer_is_what_follows_the_thoughts_at_the_beginning(
    text, opened, thought, answer, state
):
    assert split_thought(text, MARKERS, opened) == (thought, answer, state)


@pytest.mark.parametrize(
    ("answer", "found"), [("b", False), ("b<think>a", True), ("a</think>b", True), ("</th", False)]
)
def test_a_marker_in_an_answer_is_noticed(answer, found):
    assert has_marker(answer, MARKERS) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>\nHm", "<think>"),
        ("\n[THINK]a", "[THINK]"),
        ("<|START_THINKING|>", "<|START_THINKING|>"),
        ("<seed:think>a", "<seed:think>"),
        ("<|begin_of_thought|>a", "<|begin_of_thought|>"),
        ("</think>", None),
        ("<|END_THINKING|>", None),
        ("I <think>", None),
        ("<b>think</b>", None),
    ],
)
def test_begin_markers_of_published_models_are_recognised(text, found):
    assert begin_like(text) == found


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
        ("What does <think> mean?<|im_start|>assistant\n", None),
        ("<think> twice <think>", "<think>"),
        ("", None),
    ],
)
def test_a_prompt_that_opens_a_thought_is_recognised(prompt, found):
    assert undeclared_opening(prompt) == found
    assert opens_thought(prompt, MARKERS) == bool(found)
    assert not opens_thought(prompt, None)

"""Thoughts: what is cut, and what is recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.records.thought import (
    ThoughtMarkers,
    begin_like,
    opens_thought,
    outside_thoughts,
    split_thought,
    undeclared_opening,
)

MARKERS = ThoughtMarkers("<think>", "</think>")
TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "Bread.", " ", "\n\n", "é"])
).map("".join)


@given(TEXTS, st.booleans())
def test_the_two_parts_are_the_continuation_and_the_answer_has_no_thought(text, opened):
    thought, answer, state = split_thought(text, MARKERS, opened)
    assert (thought or "") + answer == text
    assert "<think>" not in answer
    assert "</think>" not in answer
    assert (state == "ok") == bool(answer.strip())
    assert split_thought(answer, MARKERS) == (None, answer, "ok" if state == "ok" else "empty")


@given(TEXTS)
def test_nothing_is_cut_unless_markers_are_declared(text):
    assert split_thought(text, None) == (None, text, "ok" if text.strip() else "empty")


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer", "state"),
    [
        ("<think>a</think>\n\nb", False, "<think>a</think>\n\n", "b", "ok"),
        ("a</think>\n\nb", True, "a</think>\n\n", "b", "ok"),
        ("a</think>b", False, "a</think>", "b", "ok"),
        ("b", False, None, "b", "ok"),
        (" b", False, None, " b", "ok"),
        ("b", True, "b", "", "unfinished"),
        ("<think>a", False, "<think>a", "", "unfinished"),
        ("a</think> ", True, "a</think> ", "", "empty"),
        ("", True, None, "", "empty"),
        ("b<think>a</think>c", False, "b<think>a</think>", "c", "ok"),
        (
            "<think>a</think>b<think>c</think>d",
            False,
            "<think>a</think>b<think>c</think>",
            "d",
            "ok",
        ),
        ("<think>a</think>b<think>c", False, "<think>a</think>b<think>c", "", "unfinished"),
        ("<think>a<think>b</think>c", False, "<think>a<think>b</think>", "c", "ok"),
    ],
)
def test_the_answer_is_what_follows_the_last_end_marker(text, opened, thought, answer, state):
    assert split_thought(text, MARKERS, opened) == (thought, answer, state)


@pytest.mark.parametrize(
    ("thought", "outside"),
    [
        ("<think>a</think>\n", False),
        ("a</think>", False),
        ("\n<think>a</think>\n<think>b</think>", False),
        ("b<think>a</think>", True),
        ("a</think>b<think>c</think>", True),
    ],
)
def test_text_that_is_in_no_thought_is_noticed(thought, outside):
    assert outside_thoughts(thought, MARKERS) == outside


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

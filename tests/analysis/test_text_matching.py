"""Texts from a file to the rows of an experiment's prompts."""

from __future__ import annotations

import pytest

from toxtrail.analysis.text_matching import (
    NO_TEXT,
    NOTHING_GENERATED,
    match_problems,
    match_texts,
)
from toxtrail.datasets.generated_texts.common import GeneratedText
from toxtrail.errors import DataError
from toxtrail.records.rows import Prompt, Turn, generation_problem
from toxtrail.records.thought import ThoughtMarkers
from toxtrail.records.words import word_numbers

PROMPTS = [Prompt(f"p{i}", "all", text, "file:x", i) for i, text in enumerate(("One", "Two"))]


def match(*texts, samples=1, markers=None):
    return match_texts(PROMPTS, [GeneratedText(*text) for text in texts], samples, markers)


def test_prompts_that_are_conversations_are_refused():
    talk = PROMPTS[1]._replace(earlier=(Turn("user", "Hi"), Turn("assistant", "Hello")))
    with pytest.raises(DataError, match="p1 is a conversation"):
        match_texts([PROMPTS[0], talk], [GeneratedText("One", "a")], 1)


def test_a_prompt_matches_exactly_before_it_matches_without_white_space():
    rows, counts = match(("One ", "b"), ("One", "a"), ("\tTwo\n", "c"))
    assert [row.text for row in rows] == ["a", "c"]
    assert (counts.exact, counts.trimmed, counts.without_text) == (1, 1, 0)
    assert (counts.other_prompts, counts.other_texts) == (1, 1)


def test_case_and_inner_white_space_are_not_normalised():
    _, counts = match(("one", "a"), ("Two", "b"), ("T wo", "c"))
    assert (counts.exact, counts.without_text, counts.other_prompts) == (1, 1, 2)


def test_missing_texts_are_rows_in_state_error_and_never_left_out():
    rows, counts = match(("One", "a"), samples=2)
    assert [(r.prompt_id, r.sample, r.state) for r in rows] == [
        ("p0", 0, "ok"), ("p0", 1, "error"), ("p1", 0, "error"), ("p1", 1, "error"),
    ]  # fmt: skip
    assert {r.error for r in rows if r.state == "error"} == {NO_TEXT}
    assert counts.missing_texts == 3
    assert not [row for row in rows if generation_problem(row)]


def test_a_text_that_the_file_calls_missing_is_an_error_too_and_an_empty_one_is_empty():
    rows, counts = match(("One", None), ("Two", " \n"))
    assert [(r.state, r.error) for r in rows] == [("error", NOTHING_GENERATED), ("empty", "")]
    assert counts.missing_texts == 0


@pytest.mark.parametrize(
    ("first", "states"),
    [("<t>a</t>b c", ["ok", "ok"]), ("a</t>b c", ["ok", "unfinished"])],
)
def test_thoughts_are_cut_and_a_bare_end_marker_means_that_prompts_open_them(first, states):
    rows, _ = match(("One", first), ("Two", "d"), markers=ThoughtMarkers("<t>", "</t>"))
    assert [row.state for row in rows] == states
    assert rows[0].text == "b c"
    assert rows[0].token_ids[rows[0].thought_tokens :] == word_numbers("b c")
    assert not [row for row in rows if generation_problem(row)]
    kept, _ = match(("One", first), ("Two", "d"))
    assert [row.text for row in kept] == [first, "d"]


def test_texts_of_a_prompt_are_samples_by_number_else_by_position():
    rows, counts = match(("One", "c", 7), ("One", "a", 1), ("Two", "x"), ("Two", "y"), samples=2)
    assert [row.text for row in rows] == ["a", "c", "x", "y"]
    rows, counts = match(("One", "a"), ("One", "b"), ("Two", "x"), samples=1)
    assert [row.text for row in rows] == ["a", "x"]
    assert counts.unused_texts == 1


def test_a_sample_number_that_is_there_twice_is_refused():
    with pytest.raises(DataError, match="sample 0"):
        match(("One", "a", 0), ("One", "a", 0))


def test_a_file_of_other_prompts_is_refused():
    with pytest.raises(DataError, match="None of the 1"):
        match(("Three", "a"))


def test_lengths_are_in_words_and_equal_words_are_equal_numbers():
    rows, _ = match(("One", "to be or\nnot  to be"), ("Two", "b"))
    assert len(rows[0].token_ids) == 6
    assert rows[0].token_ids[:2] == rows[0].token_ids[4:] == word_numbers("to be")
    assert rows[0].prompt_tokens == 1
    assert rows[0].finish_reason == "unknown"


def test_every_count_that_is_not_zero_is_a_line():
    assert match_problems(match(("One", "a"), ("Two", "b"))[1]) == []
    _, counts = match(("One ", "a"), ("One ", "b"), ("Three", "c"))
    assert len(match_problems(counts)) == 5

"""Overlap: a prompt that stands in the training data is found, one that does not is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.contamination import find_contamination, ngram_size
from toxtrail.records.rows import InstructionExample, Prompt, Turn

LONG = "the old miller walked slowly down to the river and counted his seven geese there twice"


def prompt(text, key="s-1"):
    return Prompt(key, "s", text, "file:x", 0)


def found(text, *examples):
    return [
        (one.kind, one.example) for one in find_contamination([prompt(text)], examples).overlaps
    ]


@pytest.mark.parametrize(
    "example",
    [
        InstructionExample(f"Tell me: {LONG}", "", "yes"),
        InstructionExample("x", LONG.upper().replace(" ", ",  "), "yes"),
        InstructionExample("x", "", f"He said that {LONG}."),
        InstructionExample("x", "", "y", (Turn("user", LONG),)),
    ],
    ids=["instruction", "context", "response", "earlier"],
)
def test_a_copy_is_found_wherever_it_stands_and_however_it_is_spelled(example):
    assert found(LONG, InstructionExample("a", "", "b"), example) == [("copied", 1)]


def test_earlier_messages_of_a_prompt_are_searched_for_and_its_system_message_is_not():
    asked = prompt("And then?")._replace(earlier=(Turn("user", LONG), Turn("assistant", "No.")))
    example = InstructionExample(LONG, "", "yes")
    assert find_contamination([asked], [example]).count("copied") == 1
    system = prompt("And what happened then?")._replace(earlier=(Turn("system", LONG),))
    assert find_contamination([system], [example]).overlaps == []


def test_a_run_of_n_words_is_a_copy_and_one_less_is_none():
    words = LONG.split()
    assert ngram_size([len(words)]) == 13
    assert found(LONG, InstructionExample(" ".join(words[2:15]), "", "b")) == [("copied", 0)]
    assert found(LONG, InstructionExample(" ".join(words[2:14]), "", "b")) == []


def test_no_run_reaches_from_one_text_of_an_example_into_another():
    words = LONG.split()
    assert found(LONG, InstructionExample(" ".join(words[:9]), "", " ".join(words[9:]))) != [
        ("copied", 0)
    ]


def test_a_prompt_with_a_word_changed_is_near():
    changed = LONG.replace("twice", "again")
    assert found(LONG, InstructionExample("a", "", "b"), InstructionExample("x", "", changed)) == [
        ("copied", 1)
    ]
    short = "the old miller walked down to his river"
    assert found(short, InstructionExample("x", "", "the old miller walked down to his mill")) == [
        ("near", 0)
    ]


def test_a_short_prompt_must_stand_there_whole():
    assert found("counted his seven geese", InstructionExample("x", "", LONG)) == [("copied", 0)]
    assert found("counted his seven ducks", InstructionExample("x", "", LONG)) == []


def test_a_prompt_of_three_words_is_not_judged():
    result = find_contamination([prompt("his seven geese")], [InstructionExample("x", "", LONG)])
    assert (result.short, result.overlaps) == (1, [])


@pytest.mark.parametrize(
    ("lengths", "n"), [([], 13), ([3, 4], 8), ([10] * 30, 10), ([40] * 30, 13), ([11, 400], 13)]
)
def test_n_is_a_percentile_of_the_lengths_within_its_bounds(lengths, n):
    assert ngram_size(lengths) == n


TEXTS = st.lists(
    st.sampled_from(["one", "two", "three", "four", "five", "six"]), min_size=4, max_size=20
)


def copied_slowly(text, examples, n):
    runs = [
        tuple(text[i : i + min(n, len(text))]) for i in range(len(text) - min(n, len(text)) + 1)
    ]
    return any(
        tuple(e[i : i + len(run)]) == run for e in examples for run in runs for i in range(len(e))
    )


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_the_index_finds_what_a_plain_search_finds(text, examples):
    result = find_contamination(
        [prompt(" ".join(text))], [InstructionExample(" ".join(e), "", "yes") for e in examples]
    )
    assert (result.count("copied") == 1) == copied_slowly(text, examples, result.n)

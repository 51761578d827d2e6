"""Instruction data: every shape gives the same examples; what is held out; the data card."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.protocols import Asset
from toxtrail.config.schema import TrainingDataConfig
from toxtrail.datasets.instruction_data import (
    data_card,
    dedup_key,
    read_instructions,
    split_held_out,
)
from toxtrail.errors import ConfigError, DataError
from toxtrail.records.rows import InstructionExample, Turn

PAIRS = [
    InstructionExample("Name a bird.", "", "A wren."),
    InstructionExample("Which colour?", "The sea", "Blue,\nmostly."),
]
SHAPES = {
    "dolly": [
        {"instruction": e.instruction, "context": e.context, "response": e.response,
         "category": "open_qa"} for e in PAIRS
    ],
    "alpaca": [
        {"instruction": e.instruction, "input": e.context, "output": e.response} for e in PAIRS
    ],
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Rows as a file of that ending."""

    def make(rows, suffix=".jsonl"):
        path = tmp_path / f"data{suffix}"
        if suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif suffix == ".json":
            path.write_text(json.dumps(rows))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return make


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_in_every_kind_of_file_gives_the_same_examples(shape, suffix, written):
    assert read_instructions(written(SHAPES[shape], suffix)).examples == PAIRS


TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]
SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
ANSWERS = [
    InstructionExample("Hi", "", "Hello", (Turn("system", "Be kind."),)),
    InstructionExample(
        "Bye",
        "",
        "See you",
        (Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello")),
    ),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"conversations": [{"from": SHAREGPT[t["role"]], "value": t["content"]} for t in TALK]},
    ],
    ids=["messages", "sharegpt"],
)
def test_a_conversation_gives_an_example_for_each_answer(row, suffix, written):
    assert read_instructions(written([row], suffix)).examples == ANSWERS


def test_in_a_csv_file_a_conversation_is_json(written):
    path = written([{"messages": json.dumps(TALK)}], ".csv")
    assert read_instructions(path).examples == ANSWERS


def test_an_answer_to_nothing_is_left_out_and_what_one_says_twice_is_one_message(written):
    talk = [
        {"from": "gpt", "value": "unasked"},
        {"from": "human", "value": "One."},
        {"from": "human", "value": "Two?"},
        {"from": "gpt", "value": "Three."},
        {"from": "human", "value": "unanswered"},
    ]
    found = read_instructions(written([{"conversations": talk}]))
    assert found.examples == [InstructionExample("One.\n\nTwo?", "", "Three.")]


def test_a_row_without_an_answer_is_counted_and_not_learned(written):
    rows = [
        {"instruction": "a", "output": "b"},
        {"instruction": "c", "output": " "},
        {"instruction": None, "output": "d"},
    ]
    found = read_instructions(written(rows))
    assert (found.examples, found.rows, found.empty) == ([InstructionExample("a", "", "b")], 3, 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "a", "text": "b"}, "row 1: no response.*one of instruction"),
        ({"text": "a"}, "It has: text."),
        ({"messages": "hi"}, "row 1, messages: .*list nor JSON"),
        ({"messages": {"role": "user"}}, "found dict"),
        ({"messages": [{"role": "user"}]}, "needs role or from, .*content or value"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            '"tool". Available: system',
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "expected text, got int"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no examples"),
    ],
)
def test_a_row_of_another_shape_is_named_with_what_is_allowed(row, said, written):
    with pytest.raises(DataError, match=said):
        read_instructions(written([row]))


OFF = [("weight", 0), ("weight", 0.0), ("train", False), ("train", 0)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("name", "value"), OFF)
def test_a_message_that_is_not_to_be_learned_is_context_alone(name, value, suffix, written):
    talk = [dict(turn) for turn in TALK]
    talk[2][name] = value
    (found,) = read_instructions(written([{"messages": talk}], suffix)).examples
    assert (found.instruction, found.response) == ("Bye", "See you")
    assert found.earlier[-1] == Turn("assistant", "Hello", learned=False)
    asked = [dict(turn) for turn in TALK[:3]]
    asked[1][name] = value
    (found,) = read_instructions(written([{"messages": asked}], suffix)).examples
    assert not found.learn_instruction


@pytest.mark.parametrize(("name", "value"), [("weight", 1), ("weight", None), ("train", True)])
def test_a_message_that_is_to_be_learned_is_as_one_that_says_nothing(name, value, written):
    talk = [{**turn, name: value} for turn in TALK]
    assert read_instructions(written([{"messages": talk}])).examples == ANSWERS


@pytest.mark.parametrize("value", [0.5, 2, "0", [0]])
def test_a_weight_that_is_neither_is_refused(value, written):
    with pytest.raises(DataError, match="row 1, messages: weight is"):
        read_instructions(written([{"messages": [{**TALK[1], "weight": value}]}]))


def test_of_two_messages_that_are_one_both_must_be_learned(written):
    talk = [TALK[1], {**TALK[2], "weight": 0}, TALK[4]]
    with pytest.raises(DataError, match="no examples"):
        read_instructions(written([{"messages": talk}]))


@pytest.mark.parametrize(
    ("row", "examples"),
    [
        ({"messages": None}, []),
        ({"messages": []}, []),
        ({"messages": None, "conversations": TALK[1:3]}, [("Hi", "Hello")]),
        ({"messages": None, "instruction": "a", "output": "b"}, [("a", "b")]),
        ({"instruction": "a", "response": "", "output": "b"}, [("a", "b")]),
        ({"instruction": None, "prompt": "a", "response": " ", "answer": "b"}, [("a", "b")]),
        ({"instruction": "a", "response": "\u200b", "output": "b"}, [("a", "b")]),
        ({"instruction": "a", "response": "b", "output": "c"}, [("a", "b")]),
        ({"instruction": "\u200b", "response": "b"}, []),
    ],
)
def test_an_empty_column_hides_no_other_and_an_empty_row_is_counted(row, examples, written):
    found = read_instructions(written([row, {"instruction": "x", "output": "y"}]))
    own = [(example.instruction, example.response) for example in found.examples[:-1]]
    assert (own, found.rows, found.empty) == (examples, 2, 0 if examples else 1)


def test_an_empty_context_hides_no_input(written):
    row = {"instruction": "a", "context": "", "input": "c", "response": "b"}
    assert read_instructions(written([row])).examples == [InstructionExample("a", "c", "b")]


def data(held_out):
    return TrainingDataConfig(uri="file:d.jsonl", held_out=held_out)


EXAMPLES = st.lists(st.integers(0, 30), min_size=2, max_size=40).map(
    lambda numbers: [InstructionExample(f"Say {n}", "", f"It is {n}") for n in numbers]
)


@given(EXAMPLES, st.floats(0.01, 0.6), st.integers(0, 9), st.randoms(use_true_random=False))
def test_what_is_held_out_is_never_learned_and_nothing_is_lost(examples, share, seed, random):
    if len(set(examples)) < 3:
        return
    lessons = split_held_out(examples, data(share), seed)
    assert not {dedup_key(e) for e in lessons.learned} & {dedup_key(e) for e in lessons.held_out}
    assert sorted([*lessons.learned, *lessons.held_out]) == sorted(examples)
    distinct = len(set(examples))
    assert len(set(lessons.held_out)) == max(1, round(share * distinct))
    shuffled = list(examples)
    random.shuffle(shuffled)
    assert set(split_held_out(shuffled, data(share), seed).held_out) == set(lessons.held_out)


def test_without_a_share_everything_is_learned_in_the_order_of_the_file():
    assert split_held_out(PAIRS, data(None), 1) == (PAIRS, ())


def test_another_seed_holds_out_others():
    examples = [InstructionExample(f"Say {n}", "", f"It is {n}") for n in range(40)]
    assert (
        split_held_out(examples, data(0.2), 1).held_out
        != split_held_out(examples, data(0.2), 2).held_out
    )


def test_nothing_left_to_learn_is_refused():
    with pytest.raises(ConfigError, match=r"0\.9 of 2 distinct examples"):
        split_held_out(PAIRS, data(0.9), 1)


def test_the_data_card_counts_what_is_there(written):
    rows = [*SHAPES["alpaca"], {**SHAPES["alpaca"][0], "output": "a wren"}, {"messages": TALK}]
    rows.append({"instruction": "x", "input": "", "output": ""})
    found = read_instructions(written(rows))
    own = TrainingDataConfig(uri="file:d.jsonl", held_out=0.25, license="CC BY-SA 3.0")
    asset = Asset("file:d.jsonl", None, "r" * 40, "s" * 64, ())
    card = data_card(found, split_held_out(found.examples, own, 1), own, asset)
    assert {n: card[n] for n in ("rows", "empty", "examples", "duplicates", "with_context")} == {
        "rows": 5, "empty": 1, "examples": 5, "duplicates": 1, "with_context": 1
    }  # fmt: skip
    assert card["license"] == "CC BY-SA 3.0"
    assert card["later_answers"] == 1
    assert card["learned"] + card["held_out"] == 5
    assert card["response_words"]["max"] == 2
    assert not any(example.response in json.dumps(card) for example in found.examples)

"""Instruction data: reading examples from several file formats, splitting, and the data card."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.protocols import Asset
from toxtrail.config.schema import FinetuneConfig, TrainingDataConfig
from toxtrail.datasets.readers import columns, read_rows, seen_text
from toxtrail.datasets.readers.conversations import parse_turns
from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.rows import InstructionExample, TrainingSplit, Turn

FIELDS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "question"),
    "context": ("context", "input"),
    "response": ("response", "output", "answer"),
}
"""Fields of an example, and their column names in data sets (Dolly's first, then Alpaca's)."""

CONVERSATION_COLUMNS = ("messages", "conversations")
"""Columns with a conversation: OpenAI's name and ShareGPT's."""


class InstructionDataset(NamedTuple):
    """Examples of a file."""

    examples: Sequence[InstructionExample]
    """One for each answer, in the order of the file."""
    rows: int
    empty: int
    """Rows without an instruction or without an answer to learn; they are skipped."""


def read_instructions(path: Path, delimiter: str | None = None) -> InstructionDataset:
    """Read every example of a .csv, .tsv, .json, .jsonl or .parquet file.

    A row is an instruction with its response (FIELDS), or a conversation (TALKS). A conversation
    gives an example for each answer, with all earlier messages; in a .csv file it is JSON.

    Raises:
        DataError: no examples, or a row with another layout; the message names the row.
    """
    examples: list[InstructionExample] = []
    rows = empty = 0
    for number, row in read_rows(path, delimiter):
        row_examples = list(_examples(path, number, row))
        examples += row_examples
        rows += 1
        empty += not row_examples
    if not examples:
        raise DataError(f"{path.name} contains no examples: there is nothing to learn.")
    return InstructionDataset(examples, rows, empty)


def split_held_out(
    examples: Sequence[InstructionExample], data: TrainingDataConfig, seed: int
) -> TrainingSplit:
    """Hold out a fraction of the distinct examples, sampled by the seed; none without `held_out`.

    Examples with the same words are on the same side; the order of the file has no effect.

    Raises:
        ConfigError: there is nothing left to learn.
    """
    if data.held_out is None:
        return TrainingSplit(examples, ())
    keys = [dedup_key(example) for example in examples]
    ranked = sorted(set(keys), key=lambda key: sha256_text(f"{seed}|held out|{key}"))
    held_out = set(ranked[: max(1, round(data.held_out * len(ranked)))])
    if len(held_out) == len(ranked):
        raise ConfigError(
            f"data.held_out: {data.held_out:g} of {len(ranked)} distinct examples leaves nothing "
            "to learn. Use a smaller fraction, or leave it out."
        )
    pairs = list(zip(keys, examples, strict=True))
    return TrainingSplit(
        [example for key, example in pairs if key not in held_out],
        [example for key, example in pairs if key in held_out],
    )


def normalised_words(text: str) -> list[str]:
    """Split a text into words, without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def dedup_key(example: InstructionExample) -> str:
    """Return a key that is equal for examples that differ only in case, punctuation and spaces."""
    earlier = [turn.text for turn in example.earlier]
    texts = (*earlier, example.instruction, example.context, example.response)
    return "|".join(" ".join(normalised_words(text)) for text in texts)


def read_training_data(path: Path, key: str, config: FinetuneConfig) -> InstructionDataset:
    """Read the training data of a fine-tune; an error names the fine-tune."""
    try:
        return read_instructions(path, config.data.delimiter)
    except (ConfigError, DataError) as error:
        raise type(error)(f"finetunes.{key}.data: {error}") from None


def split_training_data(
    key: str, instructions: InstructionDataset, config: FinetuneConfig
) -> TrainingSplit:
    """Split the examples into training and held-out; an error names the fine-tune."""
    try:
        return split_held_out(instructions.examples, config.data, config.seed)
    except ConfigError as error:
        raise ConfigError(f"finetunes.{key}.{error}") from None


def data_card(
    instructions: InstructionDataset, lessons: TrainingSplit, data: TrainingDataConfig, asset: Asset
) -> Any:
    """Return the source and the statistics of the examples, without their texts."""
    distinct = {dedup_key(example) for example in instructions.examples}
    return {
        "kind": "data card",
        "source": asset.uri,
        "revision": asset.resolved,
        "sha256": asset.sha256,
        "license": data.license,
        "rows": instructions.rows,
        "empty": instructions.empty,
        "examples": len(instructions.examples),
        "duplicates": len(instructions.examples) - len(distinct),
        "with_context": sum(bool(example.context) for example in instructions.examples),
        "later_answers": sum(_is_later(example) for example in instructions.examples),
        "learned": len(lessons.learned),
        "held_out": len(lessons.held_out),
        "instruction_words": _lengths([example.instruction for example in instructions.examples]),
        "response_words": _lengths([example.response for example in instructions.examples]),
    }


def _examples(path: Path, number: int, row: Mapping[str, Any]) -> Iterator[InstructionExample]:
    if talk := next((name for name in CONVERSATION_COLUMNS if _is_given(row.get(name))), None):
        yield from _examples_of_turns(parse_turns(path, number, talk, row[talk]))
        return
    values = {name: _first_text(path, number, row, names) for name, names in FIELDS.items()}
    for name in ("instruction", "response"):
        if not any(column in row for column in (*FIELDS[name], *CONVERSATION_COLUMNS)):
            raise DataError(
                f"{path.name}, row {number + 1}: no {name}. A row needs one of "
                f"{', '.join(FIELDS['instruction'])} and one of {', '.join(FIELDS['response'])}; "
                f"or a conversation under {' or '.join(CONVERSATION_COLUMNS)}. "
                f"It has: {', '.join(columns(row))}."
            )
    if values["instruction"] and values["response"]:
        yield InstructionExample(values["instruction"], values["context"], values["response"])


def _is_given(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [])


def _first_text(path: Path, number: int, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the text of the first of these columns that is not empty."""
    texts = (seen_text(path, number, row[name]) for name in names if name in row)
    return next((text for text in texts if text), "")


def _examples_of_turns(turns: Sequence[Turn]) -> Iterator[InstructionExample]:
    """Yield an example for each answer to learn; an answer without a question is skipped."""
    first_user = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns))
    turns_used = [
        *(turn for turn in turns[:first_user] if turn.role == "system"),
        *turns[first_user:],
    ]
    for index, (question, answer) in enumerate(pairwise(turns_used)):
        asked_and_told = (question.role, answer.role) == ("user", "assistant")
        if asked_and_told and question.text and answer.text and answer.learned:
            earlier = tuple(turns_used[:index])
            yield InstructionExample(question.text, "", answer.text, earlier, question.learned)


def _is_later(example: InstructionExample) -> bool:
    return any(turn.role == "assistant" for turn in example.earlier)


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    counts = [len(normalised_words(text)) for text in texts]
    return {
        "mean": statistics.fmean(counts),
        "median": statistics.median(counts),
        "max": max(counts),
    }

"""Instruction data: files of several shapes to examples, the held-out share, and the data card."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.protocols import Asset
from toxtrail.config.load import shown
from toxtrail.config.schema import InstructionData
from toxtrail.datasets.readers import columns, read_rows, seen_text
from toxtrail.datasets.readers.json_rows import NotJSONError, parse_json
from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.rows import Example, Lessons, Role, Turn

FIELDS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "question"),
    "context": ("context", "input"),
    "response": ("response", "output", "answer"),
}
"""What an example needs, and the names by which data sets call it (Dolly's first, then
Alpaca's)."""

TALKS = ("messages", "conversations")
"""Columns that hold a conversation: OpenAI's name and ShareGPT's."""
SPEAKERS, SAID = ("role", "from"), ("content", "value")
"""Who speaks and what is said, in either."""
ROLES: Mapping[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatbot"), "assistant"),
}


SWITCHES = ("weight", "train")
"""Of a message: 0 or false if it is context alone and is not to be learned."""


class Instructions(NamedTuple):
    """What a file holds."""

    examples: Sequence[Example]
    """One for each answer, in the order of the file."""
    rows: int
    empty: int
    """Rows without an instruction or without an answer to learn: nothing is learned from them."""


def read_instructions(path: Path, delimiter: str | None = None) -> Instructions:
    """Every example of a .csv, .tsv, .json, .jsonl or .parquet file.

    A row is an instruction with its response (FIELDS), or a conversation (TALKS). A conversation
    gives an example for each answer, with all that was said before; in a .csv file it is JSON.

    Raises:
        DataError: no examples, or a row of another shape; the row is named.
    """
    examples: list[Example] = []
    rows = empty = 0
    for number, row in read_rows(path, delimiter):
        found = list(_examples(path, number, row))
        examples += found
        rows += 1
        empty += not found
    if not examples:
        raise DataError(f"{path.name} holds no examples: there is nothing to learn.")
    return Instructions(examples, rows, empty)


def split(examples: Sequence[Example], data: InstructionData, seed: int) -> Lessons:
    """Hold out a share of the distinct examples, drawn by the seed; all are learned without one.

    Examples of the same words lie on the same side, and the order of the file decides nothing.

    Raises:
        ConfigError: there is nothing left to learn.
    """
    if data.held_out is None:
        return Lessons(examples, ())
    keys = [same_words(example) for example in examples]
    ranked = sorted(set(keys), key=lambda key: sha256_text(f"{seed}|held out|{key}"))
    held = set(ranked[: max(1, round(data.held_out * len(ranked)))])
    if len(held) == len(ranked):
        raise ConfigError(
            f"data.held_out: {data.held_out:g} of {len(ranked)} distinct examples leaves nothing "
            "to learn. Write a smaller share, or leave it out."
        )
    pairs = list(zip(keys, examples, strict=True))
    return Lessons(
        [example for key, example in pairs if key not in held],
        [example for key, example in pairs if key in held],
    )


def words(text: str) -> list[str]:
    """Without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def same_words(example: Example) -> str:
    """Equal for examples that differ in case, punctuation and white space alone."""
    earlier = [turn.text for turn in example.earlier]
    texts = (*earlier, example.instruction, example.context, example.response)
    return "|".join(" ".join(words(text)) for text in texts)


def data_card(found: Instructions, lessons: Lessons, data: InstructionData, asset: Asset) -> Any:
    """Where the examples come from, and what they are. It holds none of their texts."""
    distinct = {same_words(example) for example in found.examples}
    return {
        "kind": "data card",
        "source": asset.uri,
        "revision": asset.resolved,
        "sha256": asset.sha256,
        "licence": data.licence,
        "rows": found.rows,
        "empty": found.empty,
        "examples": len(found.examples),
        "duplicates": len(found.examples) - len(distinct),
        "with_context": sum(bool(example.context) for example in found.examples),
        "later_answers": sum(_is_later(example) for example in found.examples),
        "learned": len(lessons.learned),
        "held_out": len(lessons.held_out),
        "instruction_words": _lengths([example.instruction for example in found.examples]),
        "response_words": _lengths([example.response for example in found.examples]),
    }


def _examples(path: Path, number: int, row: Mapping[str, Any]) -> Iterator[Example]:
    if talk := next((name for name in TALKS if _is_given(row.get(name))), None):
        yield from _answers(_turns(path, number, talk, row[talk]))
        return
    values = {name: _first(path, number, row, names) for name, names in FIELDS.items()}
    for name in ("instruction", "response"):
        if not any(known in row for known in (*FIELDS[name], *TALKS)):
            raise DataError(
                f"{path.name}, row {number + 1}: no {name}. A row needs one of "
                f"{', '.join(FIELDS['instruction'])} and one of {', '.join(FIELDS['response'])}; "
                f"or a conversation under {' or '.join(TALKS)}. It has: {', '.join(columns(row))}."
            )
    if values["instruction"] and values["response"]:
        yield Example(values["instruction"], values["context"], values["response"])


def _is_given(value: object) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [])


def _first(path: Path, number: int, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The text of the first of these columns that has one; an empty column hides no other."""
    texts = (seen_text(path, number, row[name]) for name in names if name in row)
    return next((text for text in texts if text), "")


def _turns(path: Path, number: int, name: str, value: object) -> list[Turn]:
    """A conversation; what one says in several messages is one."""
    place = f"{path.name}, row {number + 1}, {name}"
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except NotJSONError as error:
            raise DataError(f"{place}: neither a list nor JSON: {error}.") from None
    if not isinstance(value, list):
        raise DataError(f"{place}: found {type(value).__name__}, a list of messages is needed.")
    turns: list[Turn] = []
    for message in value:
        turn = _message(path, number, place, message)
        if turns and turns[-1].role == turn.role:
            text = f"{turns[-1].text}\n\n{turn.text}".strip()
            turns[-1] = Turn(turn.role, text, turns[-1].learned and turn.learned)
        else:
            turns.append(turn)
    return turns


def _message(path: Path, number: int, place: str, message: object) -> Turn:
    own = message if isinstance(message, Mapping) else {}
    speaker = next((own[name] for name in SPEAKERS if name in own), None)
    said = next((name for name in SAID if name in own), None)
    if speaker is None or said is None:
        raise DataError(f"{place}: a message needs {' or '.join(SPEAKERS)}, {' or '.join(SAID)}.")
    if str(speaker).lower() not in ROLES:
        raise DataError(f'{place}: "{speaker}" is no speaker. There is: {", ".join(ROLES)}.')
    learned = all(_is_on(place, name, own.get(name)) for name in SWITCHES)
    return Turn(ROLES[str(speaker).lower()], seen_text(path, number, own[said]), learned)


def _is_on(place: str, name: str, value: object) -> bool:
    if value is None or value in (0, 1):
        return value is None or bool(value)
    raise DataError(
        f"{place}: {name} is {shown(value)}; a message has 1 (true) if it is learned, or 0 (false) "
        "if it is context alone. Parts of a weight are not supported."
    )


def _answers(turns: Sequence[Turn]) -> Iterator[Example]:
    """One for each answer to something that may be learned; an answer to nothing is left out."""
    asked = next((i for i, turn in enumerate(turns) if turn.role == "user"), len(turns))
    kept = [*(turn for turn in turns[:asked] if turn.role == "system"), *turns[asked:]]
    for place, (question, answer) in enumerate(pairwise(kept)):
        asked_and_told = (question.role, answer.role) == ("user", "assistant")
        if asked_and_told and question.text and answer.text and answer.learned:
            earlier = tuple(kept[:place])
            yield Example(question.text, "", answer.text, earlier, question.learned)


def _is_later(example: Example) -> bool:
    return any(turn.role == "assistant" for turn in example.earlier)


def _lengths(texts: Sequence[str]) -> dict[str, float]:
    counts = [len(words(text)) for text in texts]
    return {
        "mean": statistics.fmean(counts),
        "median": statistics.median(counts),
        "max": max(counts),
    }

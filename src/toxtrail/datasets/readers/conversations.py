"""Reader of conversations: lists of messages in the layout of OpenAI (role, content) or ShareGPT
(from, value)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toxtrail.config.load import shown
from toxtrail.datasets.readers import seen_text
from toxtrail.datasets.readers.json_rows import NotJSONError, parse_json
from toxtrail.errors import DataError
from toxtrail.records.rows import Role, Turn

ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")
"""Keys of the speaker and of the text of a message, in either layout."""
ROLE_ALIASES: Mapping[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatbot"), "assistant"),
}
SWITCHES = ("weight", "train")
"""Keys of a message; 0 or false marks it as context that is not learned."""


def parse_turns(path: Path, number: int, name: str, value: object) -> list[Turn]:
    """Parse a conversation; consecutive messages of one speaker are joined.

    Args:
        number: of the row, from 0.
        name: of the column.
        value: list of messages, or the list as JSON.

    Raises:
        DataError: another structure, an unknown speaker, or a message that is not text.
    """
    location = f"{path.name}, row {number + 1}, {name}"
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except NotJSONError as error:
            raise DataError(f"{location}: neither a list nor JSON: {error}.") from None
    if not isinstance(value, list):
        raise DataError(f"{location}: expected a list of messages, found {type(value).__name__}.")
    turns: list[Turn] = []
    for message in value:
        turn = _parse_message(path, number, location, message)
        if turns and turns[-1].role == turn.role:
            text = f"{turns[-1].text}\n\n{turn.text}".strip()
            turns[-1] = Turn(turn.role, text, turns[-1].learned and turn.learned)
        else:
            turns.append(turn)
    return turns


def parse_prompt(path: Path, number: int, name: str, value: object) -> tuple[Turn, ...]:
    """Parse a prompt: a text, or a conversation whose last message is from the user.

    Args:
        number: of the row, from 0.
        name: of the column.
        value: a text, or a list of messages; None is an empty text.

    Raises:
        DataError: see `parse_turns`; or a message without visible text, a system message after
            others, or a last message that is not from the user.
    """
    if not isinstance(value, list):
        return (Turn("user", seen_text(path, number, value)),)
    turns = tuple(Turn(turn.role, turn.text) for turn in parse_turns(path, number, name, value))
    location = f"{path.name}, row {number + 1}, {name}"
    if not turns or turns[-1].role != "user":
        found = f"from the {turns[-1].role}" if turns else "missing: the list is empty"
        raise DataError(
            f"{location}: the last message is {found}. A prompt ends with a message from the user, "
            "which the model answers: remove later messages, or the row."
        )
    if blank := [number for number, turn in enumerate(turns, 1) if not turn.text]:
        raise DataError(f"{location}: message {blank[0]} has no visible text. Remove it.")
    if any(turn.role == "system" for turn in turns[1:]):
        raise DataError(f"{location}: a system message is not the first. Move or remove it.")
    return turns


def _parse_message(path: Path, number: int, location: str, message: object) -> Turn:
    fields = message if isinstance(message, Mapping) else {}
    speaker = next((fields[name] for name in ROLE_KEYS if name in fields), None)
    content_key = next((name for name in CONTENT_KEYS if name in fields), None)
    if speaker is None or content_key is None:
        raise DataError(
            f"{location}: a message needs {' or '.join(ROLE_KEYS)}, {' or '.join(CONTENT_KEYS)}."
        )
    if str(speaker).lower() not in ROLE_ALIASES:
        raise DataError(
            f'{location}: unknown speaker "{speaker}". Available: {", ".join(ROLE_ALIASES)}.'
        )
    learned = all(_is_learned(location, name, fields.get(name)) for name in SWITCHES)
    return Turn(
        ROLE_ALIASES[str(speaker).lower()], seen_text(path, number, fields[content_key]), learned
    )


def _is_learned(location: str, name: str, value: object) -> bool:
    if value is None or value in (0, 1):
        return value is None or bool(value)
    raise DataError(
        f"{location}: {name} is {shown(value)}; allowed: 1 (true) for a message to learn, 0 "
        "(false) for context only. Fractional weights are not supported."
    )

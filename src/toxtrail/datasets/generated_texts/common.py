"""The rows that every reader of generated texts yields, and their common checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.datasets.readers import field
from toxtrail.errors import DataError
from toxtrail.records.rows import FinishReason

SHAPES = (
    "a table with a column of prompts and a column of texts (.csv, .tsv, .json, .jsonl, .parquet); "
    "a samples_*.jsonl file of lm-evaluation-harness (doc_id, arguments, resps); an Inspect log "
    "(.eval, or .json with eval and samples); a garak report (.jsonl with entry_type)"
)
"""Supported files."""


class GeneratedText(NamedTuple):
    """One continuation of one prompt, generated elsewhere."""

    prompt: str
    text: str | None
    """None if the file states that nothing was generated for this row."""
    sample: int | None = None
    """Number among the continuations of its prompt; None to use its position in the file."""
    finish_reason: FinishReason = "unknown"


def unknown_shape(path: Path, problem: str) -> DataError:
    """Return the error for a file of another structure."""
    return DataError(f"{path.name}: {problem}. Known files of generated texts: {SHAPES}.")


def require_keys(where: str, row: Mapping[str, Any], names: Sequence[str]) -> None:
    """Reject a row without one of these keys."""
    missing = [name for name in names if name not in row]
    if missing:
        found = ", ".join(map(str, row)) or "nothing"
        raise DataError(f"{where}: {', '.join(missing)} is missing; found {found}.")


def require_text(where: str, name: str, value: object) -> str:
    """Return a text unchanged.

    Raises:
        DataError: the value is not a string of valid Unicode.
    """
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {_type_name(value)}; it must be text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{where}: {name} is not valid Unicode.") from None
    return value


def column_text(path: Path, where: str, number: int, row: Mapping[str, Any], column: str) -> str:
    """Return the text of a column; `a.b` is b of the object a."""
    return require_text(where, column, field(path, number, row, column))


def load_json(where: str, text: str | bytes) -> Any:
    """Parse JSON as written by Python (with NaN); raise DataError if it is invalid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}.") from None


def message_text(where: str, content: object) -> str:
    """Return the text of a message: a string, an object with `text`, or parts of type `text`."""
    if isinstance(content, Mapping) and "text" in content:
        return require_text(where, "the text of a message", content["text"])
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        return "\n".join(require_text(where, "a part of a message", text) for text in texts)
    return require_text(where, "a message", content)


def prompt_of_messages(where: str, messages: object) -> str:
    """Return the text of the only user message; system messages are not included.

    Raises:
        DataError: these are not messages, or a conversation of several turns.
    """
    if not isinstance(messages, list) or not all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys()
        for message in messages
    ):
        raise DataError(f"{where}: the prompt is neither text nor a list of messages.")
    roles = [str(message["role"]) for message in messages]
    turns = [role for role in roles if role not in ("system", "developer")]
    if turns != ["user"]:
        raise DataError(
            f"{where}: the prompt is a conversation ({', '.join(roles) or 'no message'}); a prompt "
            "is one user message. Name a field that holds it (--prompt FIELD), or remove such rows."
        )
    content = next(message["content"] for message in messages if message["role"] == "user")
    if isinstance(content, list) and any(
        not isinstance(part, Mapping) or part.get("type") != "text" for part in content
    ):
        raise DataError(f"{where}: the prompt has parts that are not text (an image, for example).")
    return message_text(where, content)


def _type_name(value: object) -> str:
    return "missing (null)" if value is None else f"of type {type(value).__name__}"

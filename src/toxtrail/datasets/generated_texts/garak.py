"""Reports of NVIDIA's garak (*.report.jsonl): the entries of type `attempt`.

An attempt is written when its texts exist (status 1) and again after they were evaluated (status
2). Its prompt is a text in older reports, a message or a conversation in newer ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.config.schema import TextsConfig
from toxtrail.datasets.generated_texts.common import (
    GeneratedText,
    column_text,
    message_text,
    prompt_of_messages,
    require_keys,
    require_text,
    unknown_shape,
)
from toxtrail.datasets.readers.json_rows import jsonl_rows
from toxtrail.errors import DataError

KEYS = ("prompt", "outputs")
FINAL_STATUS = 2


def read_garak(path: Path, config: TextsConfig) -> Iterator[GeneratedText]:
    """Yield the outputs of each attempt; of a repeated attempt, the later state."""
    attempts: dict[str, tuple[int, int, dict[str, Any]]] = {}
    for number, row in jsonl_rows(path, exact=False):
        where = f"{path.name}, line {number + 1}"
        require_keys(where, row, ("entry_type",))
        if row["entry_type"] != "attempt":
            continue
        require_keys(where, row, KEYS)
        status = row.get("status", FINAL_STATUS)
        key = str(row.get("uuid") or f"line {number + 1}")
        if "uuid" not in row and status != FINAL_STATUS:
            continue  # without an id it cannot be told from its final state
        if key in attempts and attempts[key][0] == status:
            raise DataError(f"{where}: the attempt {key} occurs twice in status {status}.")
        if key not in attempts or attempts[key][0] < status:
            attempts[key] = status, number, row
    if not attempts:
        raise unknown_shape(path, "the report has no attempt")
    for _, number, row in sorted(attempts.values(), key=lambda attempt: attempt[1]):
        where = f"{path.name}, line {number + 1}"
        prompt = (
            column_text(path, where, number, row, config.prompt)
            if config.prompt
            else _prompt(where, row["prompt"])
        )
        yield from (GeneratedText(prompt, text) for text in _outputs(where, row["outputs"]))


def _prompt(where: str, prompt: object) -> str:
    if isinstance(prompt, Mapping) and "turns" in prompt:
        return prompt_of_messages(where, prompt["turns"])
    if isinstance(prompt, Mapping):
        return message_text(where, prompt)
    return require_text(where, "the prompt", prompt)


def _outputs(where: str, outputs: object) -> list[str | None]:
    if not isinstance(outputs, list):
        raise DataError(f"{where}: outputs is not a list.")
    texts: list[str | None] = []
    for output in outputs:
        value = output.get("text") if isinstance(output, Mapping) else output
        texts.append(None if value is None else require_text(where, "an output", value))
    return texts or [None]

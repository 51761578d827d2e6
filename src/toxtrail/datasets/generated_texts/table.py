"""Tables of generated texts with one continuation per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.config.schema import TextsConfig
from toxtrail.datasets.generated_texts.common import GeneratedText, column_text
from toxtrail.datasets.readers import columns, field, read_rows
from toxtrail.errors import ConfigError, DataError

PROMPT_COLUMNS = ("prompt", "input", "question", "instruction")
TEXT_COLUMNS = ("text", "continuation", "completion", "generation", "response", "output")
"""Column names that are recognised if exactly one of them exists."""


def read_table(path: Path, config: TextsConfig) -> Iterator[GeneratedText]:
    """Yield the rows of a table."""
    assert config.prompt is not None  # see TextsConfig
    assert config.text is not None
    unit = "line" if path.suffix.lower() == ".jsonl" else "row"
    for number, row in read_rows(path, config.delimiter):
        where = f"{path.name}, {unit} {number + 1}"
        prompt = column_text(path, where, number, row, config.prompt)
        text = column_text(path, where, number, row, config.text)
        sample = field(path, number, row, config.sample) if config.sample else None
        yield GeneratedText(prompt, text, _number(where, sample) if config.sample else None)


def choose_column(path: Path, row: Mapping[str, Any], option: str, names: tuple[str, ...]) -> str:
    """Return the column with a recognised name.

    Raises:
        ConfigError: there is none, or several.
    """
    present = [name for name in names if name in row]
    if len(present) != 1:
        found = ", ".join(columns(row))
        which = f"has {' and '.join(present)}" if present else f"has none of {', '.join(names)}"
        raise ConfigError(f"{path.name} {which}; name a column: --{option} NAME. Columns: {found}.")
    return present[0]


def _number(where: str, value: object) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise DataError(f'{where}: the sample "{value}" is not a whole number from 0.')
    return int(text)

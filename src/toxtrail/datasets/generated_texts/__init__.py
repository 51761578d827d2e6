"""Texts that were generated elsewhere: tables, and the files of evaluation tools. One module per
format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toxtrail.config.schema import TextsConfig, TextsFormat
from toxtrail.datasets.generated_texts import lm_eval
from toxtrail.datasets.generated_texts.common import GeneratedText, load_json, unknown_shape
from toxtrail.datasets.generated_texts.garak import read_garak
from toxtrail.datasets.generated_texts.inspect_log import read_inspect
from toxtrail.datasets.generated_texts.lm_eval import read_lm_eval
from toxtrail.datasets.generated_texts.table import (
    PROMPT_COLUMNS,
    TEXT_COLUMNS,
    choose_column,
    read_table,
)
from toxtrail.datasets.readers import read_rows
from toxtrail.datasets.readers.text import read_text
from toxtrail.errors import ConfigError

READERS: Mapping[TextsFormat, Callable[[Path, TextsConfig], Iterator[GeneratedText]]] = {
    "table": read_table,
    "lm-eval": read_lm_eval,
    "inspect": read_inspect,
    "garak": read_garak,
}
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".json")


def read_generated_texts(path: Path, config: TextsConfig) -> list[GeneratedText]:
    """Read all continuations of a file, in its order.

    Raises:
        DataError: the file has an unsupported structure (the message names it and the supported
            ones), a row is malformed, or there are no rows.
    """
    texts = list(READERS[config.format](path, config))
    if not texts:
        raise unknown_shape(path, "it has no rows")
    return texts


def examine_texts(
    path: Path,
    prompt: str | None = None,
    text: str | None = None,
    sample: str | None = None,
    delimiter: str | None = None,
    form: TextsFormat | None = None,
) -> TextsConfig:
    """Return how to read a file: its format, and the columns of a table.

    Args:
        prompt, text, sample, delimiter, form: the user's options; None to detect them.

    Raises:
        ConfigError: a column cannot be chosen, or an option does not apply to this format.
        DataError: the structure of the file is unknown.
    """
    form = form or detect_format(path, delimiter)
    if form != "table":
        options = {"text": text, "sample": sample, "delimiter": delimiter}
        if extra := [f"--{name}" for name, value in options.items() if value is not None]:
            raise ConfigError(f"{path.name} has the format {form}: remove {', '.join(extra)}.")
        return TextsConfig(format=form, prompt=prompt)
    first = _first_row(path, delimiter)
    values = {
        "format": form,
        "prompt": prompt or choose_column(path, first, "prompt", PROMPT_COLUMNS),
        "text": text or choose_column(path, first, "text", TEXT_COLUMNS),
        "sample": sample,
        "delimiter": delimiter,
    }
    return TextsConfig.model_validate(values)


def detect_format(path: Path, delimiter: str | None = None) -> TextsFormat:
    """Return the format of a file, from its name and first row.

    Raises:
        DataError: its structure is unknown.
    """
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return "inspect"
    if suffix not in TABLES:
        raise unknown_shape(path, f"the ending {suffix or 'of its name'} is unknown")
    if suffix == ".json" and read_text(path).lstrip().startswith("{"):
        log = load_json(path.name, read_text(path))
        if not {"eval", "samples"} <= log.keys():
            raise unknown_shape(path, f"found an object with {', '.join(list(log)[:12])}")
        return "inspect"
    first = _first_row(path, delimiter)
    if suffix == ".jsonl" and "entry_type" in first:
        return "garak"
    return "lm-eval" if suffix == ".jsonl" and set(lm_eval.KEYS) <= first.keys() else "table"


def _first_row(path: Path, delimiter: str | None) -> dict[str, Any]:
    row = next((row for _, row in read_rows(path, delimiter)), None)
    if row is None:
        raise unknown_shape(path, "it has no rows")
    return row

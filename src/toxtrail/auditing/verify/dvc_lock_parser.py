"""Fast parser of dvc.lock, equivalent to DVC's: a large file has megabytes of similar lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from toxtrail.config.yaml_text import conflict_problem
from toxtrail.errors import DataError

HEAD = "schema: '2.0'\nstages:\n"
PLAIN = r"[\w./][\w./@+=,-]*"
"""Paths that YAML reads unquoted."""
ROW = re.compile(
    rf"    - path: ({PLAIN})\n      hash: md5\n      md5: ([0-9a-f]{{32}}(?:\.dir)?)\n"
    r"      size: \d+\n(?:      nfiles: \d+\n)?"
)
COMMAND = re.compile(r"    cmd: (toxtrail stage [\w.-]+(?: [\w.-]+)?)\n")
PARAMS = "      params.yaml:\n"


class LockEntry(NamedTuple):
    """One stage run, with the fields that determine whether it is outdated."""

    cmd: str | None
    deps: Mapping[str, str]
    """Path -> md5."""
    outs: Mapping[str, str]
    params: Mapping[str, Any] | None
    """Key path in params.yaml -> value; None if the entry has none."""


WORD = re.compile(r"          ([A-Za-z_]\w+): ([A-Za-z_][\w/@.-]*(?::[\w/@.-]+)*\w)")
WORDS = re.compile(r"        ([A-Za-z_][\w.@-]*\w):\n((?:          [^\n]+\n)+)")
RESERVED = {"true", "false", "null"}
"""Words that YAML 1.2 does not read as text."""


def read_entries(text: str, name: str = "dvc.lock") -> dict[str, LockEntry]:
    """Return stage name -> entry.

    Raises:
        DataError: invalid YAML, or not a mapping of stages.
    """
    blocks = split_entries(text)
    if blocks is not None:
        try:
            return dict(_parse_block(block) for block in blocks)
        except ValueError:
            pass  # laid out in another way
    values = as_dvc_reads(text, name) or {}
    stages = values.get("stages") if isinstance(values, dict) else None
    if values and not isinstance(stages, dict):
        raise DataError(f"{name} is not as DVC writes it: it has no mapping of stages.")
    return {str(stage): _entry_from_yaml(entry) for stage, entry in (stages or {}).items()}


def split_entries(text: str) -> list[str] | None:
    """Return the text of each entry; None for a layout other than DVC's."""
    first, *blocks = re.split(r"^(?=  \S)", text, flags=re.MULTILINE)
    return blocks if first == HEAD else None


def as_dvc_reads(text: str, name: str) -> Any:
    """Parse YAML with DVC's parser: 1e-3 is a number and `on` is text, unlike in other parsers.

    Raises:
        DataError: invalid YAML, or the markers of a merge conflict.
    """
    if problem := conflict_problem(text):
        raise DataError(f"{name} is not valid YAML: {problem}.")
    try:
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise DataError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None


def _parse_block(block: str) -> tuple[str, LockEntry]:
    """Parse an entry in DVC's layout; raise ValueError for another layout."""
    head, _, body = block.partition("\n")
    if not (match := re.fullmatch(r"  ([\w@.-]+):", head)):
        raise ValueError(head)
    sections = re.split(r"^(?=    [a-z])", body, flags=re.MULTILINE)
    named = {part.split(":", 1)[0].strip(): part for part in sections if part}
    if set(named) - {"cmd", "deps", "params", "outs"}:
        raise ValueError(head)
    cmd = COMMAND.fullmatch(named.get("cmd", ""))
    if cmd is None:
        raise ValueError(head)
    rows = [dict(_parse_rows(named.get(what, ""), what)) for what in ("deps", "outs")]
    params = dict(_parse_params(named["params"])) if "params" in named else None
    return match[1], LockEntry(cmd[1], rows[0], rows[1], params)


def _parse_rows(section: str, what: str) -> Iterator[tuple[str, str]]:
    body = section.removeprefix(f"    {what}:\n")
    end = 0
    for row in ROW.finditer(body):
        if row.start() != end:
            break
        end = row.end()
        yield row[1], row[2]
    if end != len(body):
        raise ValueError(section)


def _parse_params(section: str) -> Iterator[tuple[str, Any]]:
    body = section.removeprefix("    params:\n")
    if not body.startswith(PARAMS) or re.search(r"^      \S", body[len(PARAMS) :], re.MULTILINE):
        raise ValueError(section)
    for part in re.split(r"^(?=        \S)", body[len(PARAMS) :], flags=re.MULTILINE):
        if part:
            yield from _parse_values(part)


@lru_cache(maxsize=8192)
def _parse_values(text: str) -> tuple[tuple[str, Any], ...]:
    """Parse values with a cache, since many entries have the same."""
    if (words := _parse_words(text)) is not None:
        return words
    try:
        values = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ValueError(text) from error
    return tuple(values.items())


def _parse_words(text: str) -> tuple[tuple[str, Any], ...] | None:
    """Parse a mapping of words that YAML can only read as text; None for anything else."""
    if not (match := WORDS.fullmatch(text)):
        return None
    rows = [WORD.fullmatch(line) for line in match[2].splitlines()]
    values = {row[1]: row[2] for row in rows if row}
    if len(values) != len(rows) or RESERVED & {
        *map(str.lower, (match[1], *values, *values.values()))
    }:
        return None
    return ((match[1], values),)


def _entry_from_yaml(entry: Any) -> LockEntry:
    entry = entry if isinstance(entry, dict) else {}
    params = entry.get("params")
    values = params.get("params.yaml") if isinstance(params, dict) else None
    rows = [
        {
            str(row["path"]): str(row.get("md5"))
            for row in entry.get(what) or ()
            if isinstance(row, dict) and "path" in row
        }
        for what in ("deps", "outs")
    ]
    return LockEntry(
        entry.get("cmd"), rows[0], rows[1], values if isinstance(values, dict) else None
    )

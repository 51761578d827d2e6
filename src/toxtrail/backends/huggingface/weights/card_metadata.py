"""The metadata at the head of a README.md: claims of whoever published the files, never needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.library_errors import described
from toxtrail.regular_files import read_bytes

FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
MARKED = re.compile(r"\A\s*---[ \t]*\n")


class Readme(NamedTuple):
    """What a README says of what lies beside it."""

    values: Mapping[str, Any]
    """Empty if it has no metadata, or none that can be read."""
    problem: str | None
    """Why its metadata cannot be read; None if they can, or if there are none."""


def read_readme(folder: Path) -> Readme:
    """The metadata of the README.md of a folder; nothing in it is an error."""
    path = folder / "README.md"
    try:
        data = read_bytes(path) if path.is_file() else b""
    except OSError as error:
        return Readme({}, described(error))
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    found = _values(text)
    if found.problem is None and found.values and "\ufffd" in text and not _is_utf8(data):
        return found._replace(problem="it is not UTF-8, so some characters are lost")
    return found


def _values(text: str) -> Readme:
    import yaml

    head = FRONT_MATTER.match(text)
    if head is None:
        return Readme({}, "its first `---` is never closed" if MARKED.match(text) else None)
    try:
        values = yaml.load(head[1], Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return Readme({}, described(error))
    if values is None:
        return Readme({}, None)
    if not isinstance(values, dict):
        return Readme({}, "it is no list of `name: value`")
    return Readme(values, None)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

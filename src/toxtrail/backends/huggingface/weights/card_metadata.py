"""Read the metadata at the start of a README.md: unverified claims of the publisher, optional."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.library_errors import described
from toxtrail.regular_files import read_bytes

FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
OPENING = re.compile(r"\A\s*---[ \t]*\n")


class Readme(NamedTuple):
    """Metadata of a README."""

    values: Mapping[str, Any]
    """Empty if there is no metadata, or if it cannot be read."""
    problem: str | None
    """Why its metadata cannot be read; None if it can, or if there is none."""


def read_readme(folder: Path) -> Readme:
    """Read the metadata of the README.md in a folder; invalid metadata is not an error."""
    path = folder / "README.md"
    try:
        data = read_bytes(path) if path.is_file() else b""
    except OSError as error:
        return Readme({}, described(error))
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    readme = _parse_metadata(text)
    if readme.problem is None and readme.values and "\ufffd" in text and not _is_utf8(data):
        return readme._replace(problem="it is not UTF-8, so some characters are lost")
    return readme


def _parse_metadata(text: str) -> Readme:
    import yaml

    head = FRONT_MATTER.match(text)
    if head is None:
        return Readme({}, "its first `---` is never closed" if OPENING.match(text) else None)
    try:
        values = yaml.load(head[1], Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return Readme({}, described(error))
    if values is None:
        return Readme({}, None)
    if not isinstance(values, dict):
        return Readme({}, "it is not a list of `name: value`")
    return Readme(values, None)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

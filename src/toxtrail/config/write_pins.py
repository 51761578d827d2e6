"""Write pins into params.yaml, changing nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import ConfigError
from toxtrail.regular_files import read_text


class Pin(NamedTuple):
    """One asset, resolved."""

    place: str
    """Dotted path of the mapping that contains `uri`: `models.base.adapter`."""
    uri: str
    new_uri: str
    """With a 40-hex commit in place of a branch."""
    sha256: str | None
    """None where the commit alone is the pin."""
    changed: bool


class Edit(NamedTuple):
    """A replacement of text[start:end]."""

    start: int
    end: int
    text: str


def write_pins(path: Path, pins: Sequence[Pin]) -> None:
    """Write the pins into the file; comments, order, quotes and blank lines are kept.

    Raises:
        ConfigError: the file cannot be edited safely (an alias, for example); it is unchanged.
    """
    changed = [pin for pin in pins if pin.changed]
    if not changed:
        return
    before = read_text(path)
    tree = yaml.compose(before, Loader=yaml.SafeLoader)
    after = before
    for edit in sorted({edit for pin in changed for edit in _pin_edits(before, tree, pin)})[::-1]:
        after = after[: edit.start] + edit.text + after[edit.end :]
    if not parses_to(after, _expected_values(before, changed)):
        raise _manual_edit_error(path, changed)
    replace_file(path, after)


def _pin_edits(text: str, tree: yaml.Node, pin: Pin) -> list[Edit]:
    """List the edits of one pin; empty if its mapping is not written out (a YAML merge, say)."""
    mapping = mapping_at(tree, pin.place)
    keys = {key.value: (key, value) for key, value in mapping.value} if mapping else {}
    if mapping is None or "uri" not in keys:
        return []
    key, uri = keys["uri"]
    edits = [_replace_scalar(text, uri, pin.new_uri)] if pin.new_uri != pin.uri else []
    if pin.sha256 is None:
        return edits
    if "sha256" in keys:
        return [*edits, _replace_scalar(text, keys["sha256"][1], pin.sha256)]
    end = uri.end_mark.index
    if mapping.flow_style:
        return [*edits, Edit(end, end, f", sha256: {pin.sha256}")]
    return [*edits, new_line(text, end, f"{' ' * key.start_mark.column}sha256: {pin.sha256}")]


def new_line(text: str, after: int, line: str) -> Edit:
    """Insert a line below the line that contains index `after`, with the same line ending."""
    at = text.find("\n", after)
    if at < 0:
        return Edit(len(text), len(text), f"\n{line}")
    newline = "\r\n" if text[at - 1] == "\r" else "\n"
    return Edit(at + 1, at + 1, f"{line}{newline}")


def _replace_scalar(text: str, node: yaml.Node, value: str) -> Edit:
    """Replace a scalar's value, keeping its quotes."""
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:
        return Edit(start, end, f" {value}")
    quote = text[start] if text[start] in "'\"" else ""
    return Edit(start, end, f"{quote}{value}{quote}")


def mapping_at(tree: yaml.Node, key_path: str) -> yaml.MappingNode | None:
    """Return the mapping at a dotted path; None if there is none."""
    node: yaml.Node | None = tree
    for name in key_path.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node if isinstance(node, yaml.MappingNode) else None


def _expected_values(before: str, pins: Sequence[Pin]) -> Any:
    """Return the old file's values with only the pins replaced."""
    expected = without_aliases(parse_yaml(before))
    for pin in pins:
        mapping = expected
        for name in pin.place.split("."):
            mapping = mapping[name]
        mapping["uri"] = pin.new_uri
        if pin.sha256 is not None:
            mapping["sha256"] = pin.sha256
    return expected


def without_aliases(value: Any) -> Any:
    """Copy values so that YAML aliases share nothing: a pin must change only its own key."""
    if isinstance(value, dict):
        return {key: without_aliases(inner) for key, inner in value.items()}
    return [without_aliases(inner) for inner in value] if isinstance(value, list) else value


def parses_to(text: str, expected: object) -> bool:
    """Return whether a text is YAML with exactly these values."""
    try:
        return bool(parse_yaml(text) == expected)
    except YamlError:
        return False


def _manual_edit_error(path: Path, pins: Sequence[Pin]) -> ConfigError:
    lines = [
        f"{pin.place}: uri: {pin.new_uri}" + (f", sha256: {pin.sha256}" if pin.sha256 else "")
        for pin in pins
    ]
    return ConfigError(
        f"{path.name} cannot be edited safely (an asset uses a YAML alias or an unusual form). The "
        "file is unchanged; add these pins by hand:\n  " + "\n  ".join(lines)
    )


def replace_file(path: Path, text: str) -> None:
    """Write the file atomically; keep its mode."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(text.encode("utf-8"))
    shutil.copymode(path, draft)
    draft.replace(path)

"""Pins: what every address means now, written into params.yaml without touching anything else."""

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
    """Of the mapping that holds `uri`, with dots: `models.base.adapter`."""
    uri: str
    new_uri: str
    """With a 40-hex commit in place of a branch."""
    sha256: str | None
    """None where the commit alone is the pin."""
    changed: bool


class Edit(NamedTuple):
    """Replace text[start:end]."""

    start: int
    end: int
    text: str


def write_pins(path: Path, pins: Sequence[Pin]) -> None:
    """Put the pins into the file: comments, order, quotes and blank lines stay as they are.

    Raises:
        ConfigError: the file cannot be edited safely (an alias, for example); it is left alone.
    """
    changed = [pin for pin in pins if pin.changed]
    if not changed:
        return
    before = read_text(path)
    tree = yaml.compose(before, Loader=yaml.SafeLoader)
    after = before
    for edit in sorted({edit for pin in changed for edit in _edits(before, tree, pin)})[::-1]:
        after = after[: edit.start] + edit.text + after[edit.end :]
    if not means(after, _wanted(before, changed)):
        raise _by_hand(path, changed)
    replace_file(path, after)


def _edits(text: str, tree: yaml.Node, pin: Pin) -> list[Edit]:
    """None if the place is not written out (a merge, say): then nothing is changed, and noticed."""
    own = mapping_at(tree, pin.place)
    keys = {key.value: (key, value) for key, value in own.value} if own else {}
    if own is None or "uri" not in keys:
        return []
    key, uri = keys["uri"]
    found = [_replaced(text, uri, pin.new_uri)] if pin.new_uri != pin.uri else []
    if pin.sha256 is None:
        return found
    if "sha256" in keys:
        return [*found, _replaced(text, keys["sha256"][1], pin.sha256)]
    end = uri.end_mark.index
    if own.flow_style:
        return [*found, Edit(end, end, f", sha256: {pin.sha256}")]
    return [*found, new_line(text, end, f"{' ' * key.start_mark.column}sha256: {pin.sha256}")]


def new_line(text: str, after: int, line: str) -> Edit:
    """A line of its own, below the one that holds `after`, with the same line end."""
    at = text.find("\n", after)
    if at < 0:
        return Edit(len(text), len(text), f"\n{line}")
    newline = "\r\n" if text[at - 1] == "\r" else "\n"
    return Edit(at + 1, at + 1, f"{line}{newline}")


def _replaced(text: str, node: yaml.Node, value: str) -> Edit:
    """The scalar's own quotes are kept."""
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:
        return Edit(start, end, f" {value}")
    quote = text[start] if text[start] in "'\"" else ""
    return Edit(start, end, f"{quote}{value}{quote}")


def mapping_at(tree: yaml.Node, place: str) -> yaml.MappingNode | None:
    """The mapping at a place with dots; None if there is none."""
    node: yaml.Node | None = tree
    for name in place.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node if isinstance(node, yaml.MappingNode) else None


def _wanted(before: str, pins: Sequence[Pin]) -> Any:
    """The old file's values with the pins put in, and nothing else changed."""
    wanted = unshared(parse_yaml(before))
    for pin in pins:
        place = wanted
        for name in pin.place.split("."):
            place = place[name]
        place["uri"] = pin.new_uri
        if pin.sha256 is not None:
            place["sha256"] = pin.sha256
    return wanted


def unshared(value: Any) -> Any:
    """Without the sharing that YAML aliases make: a pin of one place must not reach another."""
    if isinstance(value, dict):
        return {key: unshared(inner) for key, inner in value.items()}
    return [unshared(inner) for inner in value] if isinstance(value, list) else value


def means(text: str, wanted: object) -> bool:
    """Whether a text is YAML of exactly these values."""
    try:
        return bool(parse_yaml(text) == wanted)
    except YamlError:
        return False


def _by_hand(path: Path, pins: Sequence[Pin]) -> ConfigError:
    lines = [
        f"{pin.place}: uri: {pin.new_uri}" + (f", sha256: {pin.sha256}" if pin.sha256 else "")
        for pin in pins
    ]
    return ConfigError(
        f"{path.name} cannot be edited safely (an alias or an unusual form at an asset?). It was "
        "left as it is; write these pins by hand:\n  " + "\n  ".join(lines)
    )


def replace_file(path: Path, text: str) -> None:
    """The whole file, or nothing; its mode stays."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(text.encode("utf-8"))
    shutil.copymode(path, draft)
    draft.replace(path)

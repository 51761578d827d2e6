"""Add entries to params.yaml; comments, order and blank lines of everything else are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.config.write_pins import (
    mapping_at,
    new_line,
    parses_to,
    replace_file,
    without_aliases,
)
from toxtrail.config.yaml_text import parse_yaml
from toxtrail.errors import ConfigError

LINE_WIDTH = 10_000
"""Line width for YAML, so that no entry is folded."""


class Entry(NamedTuple):
    """A key and its value, to be added at the end of a section."""

    section: str
    key: str
    value: Mapping[str, Any]
    comments: Sequence[str] = ()
    """Comment lines above the entry."""
    one_line: bool = False
    """Whether the entry is written as {a: b}."""


class YamlListItem(NamedTuple):
    """A name, to be added at the end of a list."""

    path: str
    """Dotted path of the list: families.f.variants."""
    name: str


def add_entries(
    text: str, entries: Sequence[Entry], items: Sequence[YamlListItem], name: str
) -> str:
    """Return the file's text with the entries and items added.

    Args:
        name: the file's name, for messages.

    Raises:
        ConfigError: the file cannot be edited safely; the message contains the lines to add by
            hand.
    """
    expected = without_aliases(parse_yaml(text))
    edited = text
    for entry in entries:
        expected[entry.section] = {
            **(expected.get(entry.section) or {}),
            entry.key: dict(entry.value),
        }
        edited = _add_entry(edited, entry)
    for item in items:
        _value_at(expected, item.path).append(item.name)
        edited = _append_item(edited, item)
    if not parses_to(edited, expected):
        raise ConfigError(
            f"{name} cannot be edited safely (its YAML form is unusual there). The file is "
            "unchanged; add this by hand:\n" + _manual_edit(entries, items)
        )
    return edited


def with_outside(text: str, path: str, name: str) -> str:
    """Return the file's text with a path added to `assets.outside`; create a missing section.

    Raises:
        ConfigError: the file cannot be edited safely; the message contains the lines to add by
            hand.
    """
    values = parse_yaml(text)
    section = values.get("assets")
    if section is not None:
        return add_entries(text, [], [YamlListItem("assets.outside", path)], name)
    block = yaml.safe_dump({"assets": {"outside": [path]}}, width=LINE_WIDTH, allow_unicode=True)
    edited = f"{text.rstrip()}\n\n{block}"
    if not parses_to(edited, {**values, "assets": {"outside": [path]}}):
        raise ConfigError(
            f"{name} cannot be edited safely. The file is unchanged; add this by hand:\n{block}"
        )
    return edited


def write_text(path: Path, text: str) -> None:
    """Write the file atomically."""
    replace_file(path, text)


def _add_entry(text: str, entry: Entry) -> str:
    node = mapping_at(yaml.compose(text, Loader=yaml.SafeLoader), entry.section)
    if node is None:
        return text
    if node.flow_style:
        close = node.end_mark.index - 1
        comma = ", " if node.value else ""
        entry_text = _flow_yaml({entry.key: dict(entry.value)})[1:-1]
        return f"{text[:close].rstrip()}{comma}{entry_text}{text[close:]}"
    indent = " " * node.value[0][0].start_mark.column
    lines = [f"{indent}# {line}" for line in entry.comments]
    if entry.one_line:
        lines.append(f"{indent}{entry.key}: {_flow_yaml(dict(entry.value))}")
    else:
        body = yaml.safe_dump({entry.key: dict(entry.value)}, sort_keys=False, width=LINE_WIDTH)
        lines += [f"{indent}{line}" for line in body.rstrip("\n").split("\n")]
    return _insert_lines(text, _end_index(node), lines)


def _append_item(text: str, item: YamlListItem) -> str:
    parent_path, _, key_name = item.path.rpartition(".")
    parent = mapping_at(yaml.compose(text, Loader=yaml.SafeLoader), parent_path)
    node = (
        next((value for key, value in parent.value if key.value == key_name), None)
        if parent
        else None
    )
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return text
    if node.flow_style:
        end = node.value[-1].end_mark.index
        return f"{text[:end]}, {_list_item(item.name)}{text[end:]}"
    return _insert_lines(
        text, _end_index(node), [f"{' ' * node.start_mark.column}- {_list_item(item.name)}"]
    )


def _insert_lines(text: str, after: int, lines: Sequence[str]) -> str:
    """Insert lines below the line that contains index `after`."""
    for line in reversed(lines):
        edit = new_line(text, after, line)
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _end_index(node: yaml.Node) -> int:
    """Return the index at which a node's text ends.

    The end mark of a block is below the comments that follow it, and the target of an alias is
    further up, so the last end of all nodes is used.
    """
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(max(int(key.end_mark.index), _end_index(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(_end_index(value) for value in node.value)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.index) - 1  # its mark is at the start of the next node
    return int(node.end_mark.index)


def _flow_yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=LINE_WIDTH, default_flow_style=True)
    return text.strip()


def _list_item(name: str) -> str:
    """Format a string as a list item, quoted if necessary."""
    return _flow_yaml([name])[1:-1]


def _value_at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def _manual_edit(entries: Sequence[Entry], items: Sequence[YamlListItem]) -> str:
    blocks = [{entry.section: {entry.key: dict(entry.value)}} for entry in entries]
    lines = [yaml.safe_dump(block, sort_keys=False, width=LINE_WIDTH).rstrip() for block in blocks]
    lines += [f"{item.path}: add {item.name}" for item in items]
    return "\n".join(lines)

"""New entries in params.yaml: comments, order and blank lines of everything else stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.config.write_pins import mapping_at, means, new_line, replace_file, unshared
from toxtrail.config.yaml_text import parse_yaml
from toxtrail.errors import ConfigError

WIDE = 10_000
"""No entry is folded: where it breaks would be of no meaning."""


class Entry(NamedTuple):
    """A key and its value, to stand last in a section."""

    section: str
    key: str
    value: Mapping[str, Any]
    comments: Sequence[str] = ()
    """Lines above it."""
    one_line: bool = False
    """Written as {a: b}."""


class Item(NamedTuple):
    """A name, to stand last in a list."""

    place: str
    """With dots: families.f.variants."""
    name: str


def with_entries(text: str, entries: Sequence[Entry], items: Sequence[Item], name: str) -> str:
    """The file's text with all of them put in.

    Args:
        name: the file's.

    Raises:
        ConfigError: it cannot be edited safely; what to write by hand is said.
    """
    wanted = unshared(parse_yaml(text))
    after = text
    for entry in entries:
        wanted[entry.section] = {**(wanted.get(entry.section) or {}), entry.key: dict(entry.value)}
        after = _entered(after, entry)
    for item in items:
        _at(wanted, item.place).append(item.name)
        after = _appended(after, item)
    if not means(after, wanted):
        raise ConfigError(
            f"{name} cannot be edited safely (an unusual form at the place?). It was left as it "
            "is; write this by hand:\n" + _by_hand(entries, items)
        )
    return after


def with_outside(text: str, path: str, name: str) -> str:
    """The file's text with one more path in `assets.outside`; the section is made if there is none.

    Raises:
        ConfigError: it cannot be edited safely; what to write by hand is said.
    """
    values = parse_yaml(text)
    section = values.get("assets")
    if section is not None:
        return with_entries(text, [], [Item("assets.outside", path)], name)
    block = yaml.safe_dump({"assets": {"outside": [path]}}, width=WIDE, allow_unicode=True)
    after = f"{text.rstrip()}\n\n{block}"
    if not means(after, {**values, "assets": {"outside": [path]}}):
        raise ConfigError(
            f"{name} cannot be edited safely. It was left as it is; write this by hand:\n{block}"
        )
    return after


def write_text(path: Path, text: str) -> None:
    """The whole file, or nothing."""
    replace_file(path, text)


def _entered(text: str, entry: Entry) -> str:
    node = mapping_at(yaml.compose(text, Loader=yaml.SafeLoader), entry.section)
    if node is None:
        return text
    if node.flow_style:
        close = node.end_mark.index - 1
        comma = ", " if node.value else ""
        own = _flow({entry.key: dict(entry.value)})[1:-1]
        return f"{text[:close].rstrip()}{comma}{own}{text[close:]}"
    indent = " " * node.value[0][0].start_mark.column
    lines = [f"{indent}# {line}" for line in entry.comments]
    if entry.one_line:
        lines.append(f"{indent}{entry.key}: {_flow(dict(entry.value))}")
    else:
        body = yaml.safe_dump({entry.key: dict(entry.value)}, sort_keys=False, width=WIDE)
        lines += [f"{indent}{line}" for line in body.rstrip("\n").split("\n")]
    return _below(text, _end(node), lines)


def _appended(text: str, item: Item) -> str:
    place, _, leaf = item.place.rpartition(".")
    above = mapping_at(yaml.compose(text, Loader=yaml.SafeLoader), place)
    node = next((value for key, value in above.value if key.value == leaf), None) if above else None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return text
    if node.flow_style:
        end = node.value[-1].end_mark.index
        return f"{text[:end]}, {_plain(item.name)}{text[end:]}"
    return _below(text, _end(node), [f"{' ' * node.start_mark.column}- {_plain(item.name)}"])


def _below(text: str, after: int, lines: Sequence[str]) -> str:
    """Lines of their own, below the one that holds `after`."""
    for line in reversed(lines):
        edit = new_line(text, after, line)
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _end(node: yaml.Node) -> int:
    """Where a node's own text ends. The mark of a block lies below the comments that follow it;
    what an alias stands for lies further up, so the furthest end is the right one."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(max(int(key.end_mark.index), _end(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(_end(value) for value in node.value)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.index) - 1  # its mark lies at the start of what follows
    return int(node.end_mark.index)


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=WIDE, default_flow_style=True)
    return text.strip()


def _plain(name: str) -> str:
    """A text as an item of a list, quoted if it must be."""
    return _flow([name])[1:-1]


def _at(values: Any, place: str) -> Any:
    for name in place.split("."):
        values = values[name]
    return values


def _by_hand(entries: Sequence[Entry], items: Sequence[Item]) -> str:
    blocks = [{one.section: {one.key: dict(one.value)}} for one in entries]
    lines = [yaml.safe_dump(block, sort_keys=False, width=WIDE).rstrip() for block in blocks]
    lines += [f"{item.place}: add {item.name}" for item in items]
    return "\n".join(lines)

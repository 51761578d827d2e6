"""Edit params.yaml as text: pins, new entries and names; everything else keeps its bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import ConfigError
from toxtrail.regular_files import read_text

LINE_WIDTH = 10_000
"""Line width for YAML, so that no entry is folded."""


class Pin(NamedTuple):
    """One asset, resolved."""

    place: str
    """Dotted path of the mapping that contains `uri`: `models.base.adapter`."""
    uri: str
    new_uri: str
    """URI with a 40-hex commit in place of a branch."""
    sha256: str | None
    """None if the commit alone is the pin."""
    changed: bool


class Entry(NamedTuple):
    """A key and its value, to be added at the end of a section."""

    section: str
    """Dotted path of an existing mapping, or a key at the top: scoring.scorers."""
    key: str
    value: Mapping[str, Any] | float | str
    comments: Sequence[str] = ()
    """Comment lines above the entry."""
    one_line: bool = False
    """Whether the entry is written as {a: b}."""

    @property
    def plain(self) -> dict[str, Any] | float | str:
        """The value as plain YAML values."""
        return dict(self.value) if isinstance(self.value, Mapping) else self.value


class YamlListItem(NamedTuple):
    """A name, to be added at the end of a list."""

    path: str
    """Dotted path of the list: families.f.variants."""
    name: str


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
    text = read_text(path)
    tree, expected = yaml.compose(text, Loader=yaml.SafeLoader), _values(text)
    for pin in changed:
        hashes = {"sha256": pin.sha256} if pin.sha256 is not None else {}
        _value_at(expected, pin.place).update({"uri": pin.new_uri, **hashes})
    by_hand = "\n".join(
        f"  {pin.place}: uri: {pin.new_uri}" + (f", sha256: {pin.sha256}" if pin.sha256 else "")
        for pin in changed
    )
    edits = (edit for pin in changed for edit in _pin_edits(text, tree, pin))
    replace_file(path, _edited(text, edits, expected, path.name, by_hand))


def write_plugin_pins(path: Path, pins: Mapping[str, Mapping[str, str]]) -> None:
    """Write the pins of plug-ins into the file. See write_pins.

    Args:
        pins: dotted path of the mapping that contains `kind` -> the values of `plugin`.
    """
    if not pins:
        return
    text = read_text(path)
    tree, expected = yaml.compose(text, Loader=yaml.SafeLoader), _values(text)
    for key_path, values in pins.items():
        _value_at(expected, key_path)["plugin"] = dict(values)
    by_hand = "\n".join(f"  {key_path}: plugin: {_flow_yaml(v)}" for key_path, v in pins.items())
    edits = (
        edit for key_path, v in pins.items() for edit in _plugin_edits(text, tree, key_path, v)
    )
    replace_file(path, _edited(text, edits, expected, path.name, by_hand))


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
    tree, expected = yaml.compose(text, Loader=yaml.SafeLoader), _values(text)
    blocks = [{entry.section: {entry.key: entry.plain}} for entry in entries]
    for entry in entries:
        *above, last = entry.section.split(".")
        parent = _value_at(expected, ".".join(above)) if above else expected
        parent[last] = (parent.get(last) or {}) | {entry.key: entry.plain}
    for item in items:
        _value_at(expected, item.path).append(item.name)
    by_hand = "\n".join(
        [
            *(yaml.safe_dump(b, sort_keys=False, width=LINE_WIDTH).rstrip() for b in blocks),
            *(f"{item.path}: add {item.name}" for item in items),
        ]
    )
    edits = [
        *(edit for entry in entries for edit in _entry_edits(text, tree, entry)),
        *(edit for item in items for edit in _item_edits(text, tree, item)),
    ]
    return _edited(text, edits, expected, name, by_hand)


def write_golden_scores(path: Path, scores: Mapping[str, Sequence[float]]) -> None:
    """Write the scores of golden texts into the file; everything else keeps its bytes.

    Args:
        scores: scorer -> score of each of its golden texts.

    Raises:
        ConfigError: the file cannot be edited safely; it is unchanged.
    """
    text = read_text(path)
    tree, expected, edits = yaml.compose(text, Loader=yaml.SafeLoader), _values(text), []
    for key, values in scores.items():
        place = f"scoring.scorers.{key}.golden"
        nodes = _node_at(tree, place)
        if not isinstance(nodes, yaml.SequenceNode):
            continue
        for node, entry, score in zip(nodes.value, _value_at(expected, place), values, strict=True):
            entry["score"] = score
            value = _node_at(node, "score")
            if value is not None:
                edits.append(_replace_scalar(text, value, repr(score)))
    by_hand = "\n".join(f"  scoring.scorers.{key}.golden: {[*v]}" for key, v in scores.items())
    replace_file(path, _edited(text, edits, expected, path.name, by_hand))


def replace_values(text: str, values: Mapping[str, Any], name: str) -> str:
    """Return the file's text with other values at dotted paths; comments inside a replaced mapping
    are removed.

    Args:
        values: dotted path of an existing scalar or block mapping -> its new value, of the same
            form.
        name: the file's name, for messages.

    Raises:
        ConfigError: the file cannot be edited safely; the message contains the lines to add by
            hand.
    """
    tree, expected, edits = yaml.compose(text, Loader=yaml.SafeLoader), _values(text), []
    for path, value in values.items():
        above, _, last = path.rpartition(".")
        (_value_at(expected, above) if above else expected)[last] = value
        node = _node_at(tree, path)
        if isinstance(node, yaml.ScalarNode):
            edits.append(_replace_scalar(text, node, _flow_yaml([value])[1:-1]))
        elif isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
            edits.append(_replace_mapping(node, value))
    return _edited(text, edits, expected, name, yaml.safe_dump(dict(values), width=LINE_WIDTH))


def with_outside(text: str, path: str, name: str) -> str:
    """Return the file's text with a path added to `assets.outside`; create a missing section.

    Raises:
        ConfigError: the file cannot be edited safely; the message contains the lines to add by
            hand.
    """
    values, section = parse_yaml(text), {"assets": {"outside": [path]}}
    if values.get("assets") is not None:
        return add_entries(text, [], [YamlListItem("assets.outside", path)], name)
    block = yaml.safe_dump(section, width=LINE_WIDTH, allow_unicode=True)
    end = Edit(len(text.rstrip()), len(text), f"\n\n{block}")
    return _edited(text, [end], values | section, name, block)


def replace_file(path: Path, text: str) -> None:
    """Write the file atomically; keep its mode."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(text.encode("utf-8"))
    shutil.copymode(path, draft)
    draft.replace(path)


def _edited(text: str, edits: Iterable[Edit], expected: object, name: str, by_hand: str) -> str:
    """Apply edits of different parts of a text, and check that it then has the expected values."""
    after = text
    for edit in sorted(set(edits), reverse=True):
        after = after[: edit.start] + edit.text + after[edit.end :]
    try:
        is_as_expected = parse_yaml(after) == expected
    except YamlError:
        is_as_expected = False
    if not is_as_expected:
        raise ConfigError(
            f"{name} cannot be edited safely (an alias or an unusual form of YAML). The file is "
            f"unchanged; add this by hand:\n{by_hand}"
        )
    return after


def _pin_edits(text: str, tree: yaml.Node, pin: Pin) -> Iterator[Edit]:
    """Yield the edits of one pin; none if its mapping is not written out (for example a YAML
    merge)."""
    mapping = _node_at(tree, pin.place)
    if not isinstance(mapping, yaml.MappingNode):
        return
    keys = {key.value: (key, value) for key, value in mapping.value}
    if "uri" not in keys:
        return
    key, uri = keys["uri"]
    if pin.new_uri != pin.uri:
        yield _replace_scalar(text, uri, pin.new_uri)
    if pin.sha256 is None:
        return
    end = uri.end_mark.index
    if "sha256" in keys:
        yield _replace_scalar(text, keys["sha256"][1], pin.sha256)
    elif mapping.flow_style:
        yield Edit(end, end, f", sha256: {pin.sha256}")
    else:
        yield _new_lines(text, end, f"{' ' * key.start_mark.column}sha256: {pin.sha256}")


def _plugin_edits(
    text: str, tree: yaml.Node, key_path: str, values: Mapping[str, str]
) -> Iterator[Edit]:
    mapping = _node_at(tree, key_path)
    if not isinstance(mapping, yaml.MappingNode):
        return
    keys = {key.value: (key, value) for key, value in mapping.value}
    key, kind = keys["kind"]
    line, end = f"plugin: {_flow_yaml(dict(values))}", kind.end_mark.index
    if "plugin" in keys:
        start, node = keys["plugin"][0].start_mark.index, keys["plugin"][1]
        yield Edit(start, end_index(node), line)
    elif mapping.flow_style:
        yield Edit(end, end, f", {line}")
    else:
        yield _new_lines(text, end, f"{' ' * key.start_mark.column}{line}")


def _entry_edits(text: str, tree: yaml.Node, entry: Entry) -> Iterator[Edit]:
    node, value = _node_at(tree, entry.section), entry.plain
    if not isinstance(node, yaml.MappingNode):
        return
    if node.flow_style and not node.value:
        yield from _first_entry(text, node, entry)
        return
    if node.flow_style:
        close = node.end_mark.index - 1
        comma, inner = ", " if node.value else "", _flow_yaml({entry.key: value})[1:-1]
        yield Edit(len(text[:close].rstrip()), close, f"{comma}{inner}")
        return
    indent = " " * node.value[0][0].start_mark.column
    yield _new_lines(text, end_index(node), *_entry_lines(entry, indent))


def _first_entry(text: str, node: yaml.MappingNode, entry: Entry) -> Iterator[Edit]:
    """Replace {} by a block below its key; a comment after it keeps its column."""
    start, end = node.start_mark.index, node.end_mark.index
    line_start, line_end = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    line = text[line_start:start]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    if text[end : None if line_end < 0 else line_end].strip():
        yield Edit(start, end, " " * (end - start))
    else:
        yield Edit(line_start + len(line.rstrip()), end, "")
    yield _new_lines(text, end, *_entry_lines(entry, indent))


def _entry_lines(entry: Entry, indent: str) -> list[str]:
    body = f"{entry.key}: {_flow_yaml(entry.plain)}"
    if not entry.one_line:
        values = {entry.key: entry.plain}
        body = yaml.safe_dump(values, sort_keys=False, width=LINE_WIDTH).rstrip("\n")
    lines = [*(f"# {line}" for line in entry.comments), *body.split("\n")]
    return [f"{indent}{line}" for line in lines]


def _replace_mapping(node: yaml.MappingNode, value: Any) -> Edit:
    """Replace the text of a block mapping, keeping its indent."""
    column = node.value[0][0].start_mark.column
    body = yaml.safe_dump(value, sort_keys=False, width=LINE_WIDTH, allow_unicode=True).rstrip("\n")
    lines = body.split("\n")
    return Edit(node.start_mark.index, end_index(node), f"\n{' ' * column}".join(lines))


def _item_edits(text: str, tree: yaml.Node, item: YamlListItem) -> Iterator[Edit]:
    node = _node_at(tree, item.path)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return
    name = _flow_yaml([item.name])[1:-1]
    if node.flow_style:
        end = node.value[-1].end_mark.index
        yield Edit(end, end, f", {name}")
    else:
        yield _new_lines(text, end_index(node), f"{' ' * node.start_mark.column}- {name}")


def _new_lines(text: str, after: int, *lines: str) -> Edit:
    """Insert lines below the line that contains index `after`, with the same line ending."""
    at = text.find("\n", after)
    if at < 0:
        return Edit(len(text), len(text), "".join(f"\n{line}" for line in lines))
    newline = "\r\n" if text[at - 1] == "\r" else "\n"
    return Edit(at + 1, at + 1, "".join(f"{line}{newline}" for line in lines))


def _replace_scalar(text: str, node: yaml.Node, value: str) -> Edit:
    """Replace a scalar's value, keeping its quotes."""
    start, end = node.start_mark.index, node.end_mark.index
    if start == end:
        return Edit(start, end, f" {value}")
    quote = text[start] if text[start] in "'\"" else ""
    return Edit(start, end, f"{quote}{value}{quote}")


def end_index(node: yaml.Node) -> int:
    """Return the index at which a node's text ends.

    The end mark of a block is below the comments that follow it, and the target of an alias is
    further up, so the last end of all nodes is used.
    """
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(max(int(key.end_mark.index), end_index(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(end_index(value) for value in node.value)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.index) - 1  # its mark is at the start of the next node
    return int(node.end_mark.index)


def _node_at(tree: yaml.Node, key_path: str) -> yaml.Node | None:
    """Return the node at a dotted path; None if there is none."""
    node: yaml.Node | None = tree
    for name in key_path.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for key, value in pairs if key.value == name), None)
    return node


def _flow_yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=LINE_WIDTH, default_flow_style=True)
    return text.strip()


def _values(text: str) -> Any:
    """Return the values; those of YAML aliases share nothing, as an edit changes one place only."""
    return _copied(parse_yaml(text))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _value_at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values

"""Three-way merge of params.yaml, entry by entry.

Git merges lines, so two branches that each add a variant at the end of the same sections conflict.
Here, entries with different names never conflict. The merged text consists of lines of both sides,
and is used only if its values are those of a separate merge of the parsed values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from toxtrail.config.edit_params import YamlListItem, add_entries, end_index
from toxtrail.config.yaml_text import YamlError, parse_yaml
from toxtrail.errors import ConfigError

ATOMIC_SECTIONS = {
    ("models",),
    ("finetunes",),
    ("variants",),
    ("prompts", "subsets"),
    ("scoring", "scorers"),
    ("runtime", "servers"),
}
"""Sections whose entries are atomic: different changes of one entry by two branches are a conflict,
and never combined into a third version of it."""
NAME_LISTS = {("families", None, "variants"), ("assets", "outside")}
"""Lists to which both sides may add names; None is any name."""
OURS, MIDDLE, THEIRS = "<<<<<<< ours\n", "=======\n", ">>>>>>> theirs\n"

CONFLICTING = object()
"""In place of a merged value that does not exist; equal to no value."""

KeyPath = tuple[str, ...]


class Merged(NamedTuple):
    """A merged file."""

    text: str
    """With conflict markers if there are conflicts."""
    conflicts: tuple[str, ...]
    """A message for each conflict."""


class Block(NamedTuple):
    """The lines of one key and its value."""

    key: str
    lead: str
    """Comment and blank lines above, and the line of the key if the value has `children`."""
    body: str
    """The lines of the value (with its key, if it has no children)."""
    value: Any
    children: tuple[Block, ...] | None
    """The entries of a mapping that is written line by line; None for any other value."""

    @property
    def text(self) -> str:
        return self.lead + self.body


def merge_params(base: str, ours: str, theirs: str) -> Merged:
    """Merge two versions of params.yaml.

    Args:
        base: their common ancestor; empty if there is none.
    """
    texts = [text if text.endswith("\n") else f"{text}\n" for text in (base, ours, theirs)]
    try:
        sides = [_blocks(text) for text in texts]
        values = [parse_yaml(text) or {} for text in texts]
    except (YamlError, yaml.YAMLError) as error:
        return _file_conflict(texts, f"a version cannot be read: {error}")
    except (KeyError, TypeError, ValueError):  # a list, or a merge key (<<) at the top
        return _file_conflict(texts, "its top level is not a plain mapping")
    merge = _Merge()
    text = merge.entries((), *(side.children or () for side in sides))
    text += merge.lines("the end of the file", *(side.lead for side in sides))
    if merge.conflicts:
        return Merged(text, tuple(merge.conflicts))
    try:
        as_expected = parse_yaml(text) == merged_values((), *values)
    except YamlError:
        as_expected = False
    if not as_expected:
        return _file_conflict(
            texts, "an alias or an unusual form of YAML cannot be merged by entries"
        )
    return Merged(text, ())


def merged_values(path: KeyPath, base: Any, ours: Any, theirs: Any) -> Any:
    """Merge parsed values; only for values without a conflict."""
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if is_name_list(path):
        return merged_names(base or [], ours, theirs)
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return CONFLICTING
    old = base if isinstance(base, dict) else {}
    names = [*ours, *(name for name in theirs if name not in ours)]
    kept = [n for n in names if not (n in old and (n not in ours or n not in theirs))]
    return {n: merged_values((*path, n), old.get(n), *_one_or_both(n, ours, theirs)) for n in kept}


def _one_or_both(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the values of both sides; an entry that one side added is that of both."""
    return ours.get(name, theirs.get(name)), theirs.get(name, ours.get(name))


def is_name_list(path: KeyPath) -> bool:
    """Return whether both sides may add names to the list at this path."""
    return any(
        len(path) == len(form) and all(f in (None, p) for f, p in zip(form, path, strict=True))
        for form in NAME_LISTS
    )


def merged_names(base: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Return our names without those that they removed, then the names that they added."""
    kept = [name for name in ours if name in theirs or name not in base]
    return [*kept, *(name for name in theirs if name not in base and name not in kept)]


class _Merge:
    """One merge; collects conflicts."""

    def __init__(self) -> None:
        self.conflicts: list[str] = []

    def entries(
        self,
        path: KeyPath,
        base: Sequence[Block],
        ours: Sequence[Block],
        theirs: Sequence[Block],
    ) -> str:
        """Merge the entries of a mapping."""
        old, own, other = ({b.key: b for b in side} for side in (base, ours, theirs))
        return "".join(
            self._entry((*path, key), old.get(key), own.get(key), other.get(key))
            for key in _order(old, [*own], [*other])
        )

    def _entry(
        self, path: KeyPath, base: Block | None, ours: Block | None, theirs: Block | None
    ) -> str:
        old, own, other = (block and block.text for block in (base, ours, theirs))
        if own == other or other == old:
            return own or ""
        if own == old:
            return other or ""
        if ours is None or theirs is None:
            return self._one_side_only(path, base, ours, theirs)
        return self._both_changed(path, base, ours, theirs)

    def _one_side_only(
        self, path: KeyPath, base: Block | None, ours: Block | None, theirs: Block | None
    ) -> str:
        """Merge an entry that one side deleted, and the other changed (at least its comments)."""
        changed = ours or theirs
        assert changed is not None
        assert base is not None
        if changed.value == base.value:
            return ""
        return self._conflict(path, "deleted on one side and changed on the other", ours, theirs)

    def _both_changed(self, path: KeyPath, base: Block | None, ours: Block, theirs: Block) -> str:
        if path[:-1] not in ATOMIC_SECTIONS and None not in (ours.children, theirs.children):
            parts = base.children if base and base.children else ()
            lead = self.lines(".".join(path), base.lead if base else "", ours.lead, theirs.lead)
            return lead + self.entries(path, parts, ours.children or (), theirs.children or ())
        if ours.value == theirs.value or (base and theirs.value == base.value):
            return ours.text
        if base and ours.value == base.value:
            return theirs.text
        if is_name_list(path) and base:
            names = merged_names(base.value or [], ours.value or [], theirs.value or [])
            if text := _with_names(ours, names) or _with_names(theirs, names):
                return text
        how = "changed" if base else "added"
        return self._conflict(path, f"{how} differently on both sides", ours, theirs)

    def lines(self, where: str, base: str, ours: str, theirs: str) -> str:
        """Merge comments, blank lines and the line of a key."""
        if ours in (theirs, base) or theirs == base:
            return theirs if ours == base else ours
        self.conflicts.append(f"the comments at {where} were changed differently on both sides")
        return f"{OURS}{ours}{MIDDLE}{theirs}{THEIRS}"

    def _conflict(
        self, path: KeyPath, problem: str, ours: Block | None, theirs: Block | None
    ) -> str:
        self.conflicts.append(f"{'.'.join(path)} was {problem}")
        own, other = (block.text if block else "" for block in (ours, theirs))
        return f"{OURS}{own}{MIDDLE}{other}{THEIRS}"


def _order(old: Mapping[str, Block], own: list[str], other: list[str]) -> list[str]:
    """Return all keys: ours, and each of theirs below its predecessor and what we added there."""
    order = list(own)
    for number, key in enumerate(other):
        if key in order:
            continue
        above = next((k for k in reversed(other[:number]) if k in order), None)
        at = order.index(above) + 1 if above is not None else 0
        while at < len(order) and order[at] not in old and order[at] not in other:
            at += 1
        order.insert(at, key)
    return order


def _with_names(block: Block, names: Sequence[str]) -> str | None:
    """Return the block with the names added that it lacks; None if that is not this list."""
    text, present = block.text, list(block.value or [])
    if names[: len(present)] != present:
        return None
    try:
        for name in names[len(present) :]:
            text = add_entries(text, [], [YamlListItem(block.key, name)], "params.yaml")
    except ConfigError:
        return None
    return text


def file_conflict(ours: str, theirs: str) -> str:
    """Return both versions of the complete file, between conflict markers."""
    return f"{OURS}{ours}{MIDDLE}{theirs}{THEIRS}"


def _file_conflict(texts: Sequence[str], problem: str) -> Merged:
    return Merged(file_conflict(texts[1], texts[2]), (problem,))


def _blocks(text: str) -> Block:
    """Return the file as the children of one block; `lead` contains the lines below the last."""
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    if tree is None:
        return Block("", "", "", {}, ())
    values = parse_yaml(text)
    children = tuple(_children(text, tree, values, 0))
    rest = text[sum(len(child.text) for child in children) :]
    return Block("", rest, "", values, children)


def _children(text: str, node: yaml.Node, values: Any, start: int) -> Iterator[Block]:
    """Yield the entries of a mapping; each begins where the entry above it ends."""
    for key, value in node.value:
        name = key.value
        line = text.rfind("\n", 0, key.start_mark.index) + 1
        end = _next_line(text, max(int(key.end_mark.index), end_index(value)))
        own, lead = values[name], text[start:line]
        nested: tuple[Block, ...] | None = None
        if _is_written_out(value, own) and value.start_mark.index > key.end_mark.index:
            head = _next_line(text, key.end_mark.index)
            nested = tuple(_children(text, value, own, head))
            lead += text[line:head]
            line = head
        elif own == {}:
            nested = ()
            lead, line = lead + text[line:end], end
        yield Block(name, lead, text[line:end], own, nested)
        start = end


def _is_written_out(node: yaml.Node, value: Any) -> bool:
    """Return whether a value is a mapping with one key per line, without a merge key (<<)."""
    is_block = isinstance(node, yaml.MappingNode) and not node.flow_style
    return is_block and all(key.value in value for key, _ in node.value)


def _next_line(text: str, index: int) -> int:
    return text.find("\n", index) + 1 or len(text)

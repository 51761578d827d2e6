"""Pins: what every address means now, written into params.yaml without touching anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toxtrail.backends.base import Assets
from toxtrail.config import Source
from toxtrail.errors import BackendError, ConfigError
from toxtrail.uris import COMMIT, HfUri, parse_uri


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


def resolve_pins(sources: Iterable[tuple[str, Source]], assets: Assets) -> list[Pin]:
    """Fetch every asset and say what it is.

    A remote asset keeps the pin it has: new content under an old address is refused, not accepted.
    A local file's pin follows the file: running this is how its owner accepts the change.
    """
    return [_resolved(place, source, assets) for place, source in sources]


def _resolved(place: str, source: Source, assets: Assets) -> Pin:
    address = parse_uri(source.uri)
    local = source.uri.startswith("file:")
    asset = assets.fetch(source.uri, None if local else source.sha256)
    new_uri = source.uri
    sha256: str | None = asset.sha256
    if isinstance(address, HfUri):
        if not COMMIT.fullmatch(asset.resolved):
            raise BackendError(f"{place}: {source.uri} did not resolve to a commit.")
        kind = "datasets/" if address.repo_type == "dataset" else ""
        path = f"/{address.path}" if address.path else ""
        new_uri = f"hf:{kind}{address.repo}@{asset.resolved}{path}"
        sha256 = source.sha256
    changed = (new_uri, sha256) != (source.uri, source.sha256)
    return Pin(place, source.uri, new_uri, sha256, changed)


def write_pins(path: Path, pins: Sequence[Pin]) -> None:
    """Put the pins into the file: comments, order, quotes and blank lines stay as they are.

    Raises:
        ConfigError: the file cannot be edited safely (an alias, for example); it is left alone.
    """
    before = path.read_bytes().decode("utf-8")
    tree = yaml.compose(before, Loader=yaml.SafeLoader)
    edits = [edit for pin in pins if pin.changed for edit in _edits(before, tree, pin)]
    after = before
    for edit in sorted(set(edits), reverse=True):
        after = after[: edit.start] + edit.text + after[edit.end :]
    _require_only(path, before, after, pins)
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(after.encode("utf-8"))
    draft.replace(path)


def _edits(text: str, tree: yaml.Node, pin: Pin) -> list[Edit]:
    own = _mapping(tree, pin.place)
    values = {key.value: value for key, value in own.value}
    uri = values["uri"]
    found = [_replaced(text, uri, pin.new_uri)] if pin.new_uri != pin.uri else []
    if pin.sha256 is None:
        return found
    if "sha256" in values:
        return [*found, _replaced(text, values["sha256"], pin.sha256)]
    end = uri.end_mark.index
    if own.flow_style:
        return [*found, Edit(end, end, f", sha256: {pin.sha256}")]
    key = next(key for key, _ in own.value if key.value == "uri")
    line_end = text.find("\n", end)
    at = len(text) if line_end < 0 else line_end
    newline = "\r\n" if text[at - 1 : at] == "\r" else "\n"
    at -= len(newline) - 1
    return [*found, Edit(at, at, f"{newline}{' ' * key.start_mark.column}sha256: {pin.sha256}")]


def _replaced(text: str, node: yaml.Node, value: str) -> Edit:
    """The scalar's own quotes are kept."""
    start, end = node.start_mark.index, node.end_mark.index
    quote = text[start] if text[start] in "'\"" else ""
    return Edit(start, end, f"{quote}{value}{quote}")


def _mapping(tree: yaml.Node, place: str) -> yaml.MappingNode:
    node = tree
    for name in place.split("."):
        node = next(value for key, value in node.value if key.value == name)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{place}: this place of params.yaml is no mapping.")
    return node


def _require_only(path: Path, before: str, after: str, pins: Sequence[Pin]) -> None:
    """The edited file must mean the old one with the pins put in, and nothing else."""
    wanted = yaml.safe_load(before)
    for pin in pins:
        if pin.changed:
            place: Any = wanted
            for name in pin.place.split("."):
                place = place[name]
            place["uri"] = pin.new_uri
            if pin.sha256 is not None:
                place["sha256"] = pin.sha256
    try:
        meant = yaml.safe_load(after)
    except yaml.YAMLError:
        meant = None
    if meant != wanted:
        raise ConfigError(
            f"{path.name} cannot be edited safely (an alias or an unusual form at an asset?). "
            "It was "
            "left as it is; write these pins by hand:\n  "
            + "\n  ".join(f"{p.place}: sha256: {p.sha256}" for p in pins if p.changed)
        )

"""dvc.yaml with its templates expanded: dependencies and outputs of each stage run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

KEYS = {"cmd", "deps", "params", "outs", "metrics", "plots", "frozen", "desc", "meta"}
"""Supported keys of a stage."""
TEMPLATE = re.compile(r"\$\{([^}]*)\}")


class Declared(NamedTuple):
    """Stage run as declared in dvc.yaml."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    """Key paths in params.yaml."""
    outs: Mapping[str, bool]
    """Path -> whether DVC's cache keeps a copy."""
    frozen: bool


def declared_runs(pipeline: Any, params: Any) -> tuple[list[Declared], list[str]]:
    """Return every stage run in the order of dvc.yaml, and the names of stages with unsupported
    features.

    Args:
        pipeline: dvc.yaml as DVC reads it.
        params: params.yaml as DVC reads it.
    """
    runs: list[Declared] = []
    others: list[str] = []
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    for name, entry in (stages or {}).items():
        try:
            runs += list(_declared_runs_of(str(name), entry, params))
        except (AttributeError, KeyError, TypeError, ValueError):
            others.append(str(name))
    return runs, others


def _declared_runs_of(name: str, entry: Any, params: Any) -> Iterator[Declared]:
    if "foreach" not in entry:
        yield _run(name, entry, {})
        return
    if set(entry) - {"foreach", "do"}:
        raise ValueError(name)
    match = TEMPLATE.fullmatch(entry["foreach"])
    if match is None:
        raise ValueError(name)
    items = params[match[1]]
    for key in items:
        yield _run(f"{name}@{key}", entry["do"], {"key": key, "item": items[key]})


def _run(name: str, body: Mapping[str, Any], values: Mapping[str, Any]) -> Declared:
    if set(body) - KEYS:
        raise ValueError(name)
    outs: dict[str, bool] = {}
    for kind in ("outs", "metrics", "plots"):
        for out in body.get(kind) or ():
            path, how = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            outs[_substitute(path, values)] = bool((how or {}).get("cache", True))
    return Declared(
        name=name,
        cmd=_substitute(body["cmd"], values),
        deps=tuple(_substitute(dep, values) for dep in body.get("deps") or ()),
        params=tuple(_substitute(key_path, values) for key_path in body.get("params") or ()),
        outs=outs,
        frozen=bool(body.get("frozen")),
    )


def _substitute(text: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        current: Any = values
        for name in match[1].strip().split("."):
            current = current[name]
        if not isinstance(current, str | int):
            raise ValueError(text)
        return str(current)

    return TEMPLATE.sub(value, text)


def at(values: Any, key_path: str) -> tuple[bool, Any]:
    """Return whether params.yaml has a value at a key path, and the value."""
    with suppress(KeyError, TypeError, IndexError):
        for name in key_path.split("."):
            values = values[int(name) if isinstance(values, list) else name]
        return True, values
    return False, None

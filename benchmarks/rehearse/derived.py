"""A preset's params.yaml with every URI replaced by a tiny asset: the same variants and stages,
smaller numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rehearse import tiny

SCALE = 10
"""One prompt of so many is drawn."""
LEAST = 24
"""Prompts of a subset."""
# A bound of an 80 % interval needs a third of the draws that one of 95 % needs.
SMALLER: dict[str, dict[str, Any]] = {
    "generation": {"max_new_tokens": 12, "dtype": "float32"},
    "posterior": {"draws": 4000, "level": 0.8},
    "pooling": {"draws": 1500, "target_accept": 0.99},
    "runtime": {"device": "cpu", "threads": 1},
}
RECIPE = {"max_length": 64, "base_precision": "float32", "learning_rate": 0.02}


class StandIns:
    """Creates each tiny asset once, below a folder of the experiment."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def address(self, name: str, make: Callable[[Path], None]) -> str:
        """The file: address of what `make` writes."""
        place = Path("assets") / re.sub(r"[^\w.-]+", "-", name)
        if not (self._root / place).exists():
            (self._root / "assets").mkdir(exist_ok=True)
            make(self._root / place)
        return f"file:{place.as_posix()}"


class Repo(NamedTuple):
    """Repository of an hf: URI."""

    name: str
    path: str


def repo_of(uri: str) -> Repo:
    match = re.fullmatch(r"hf:(?:datasets/)?([\w.-]+/[\w.-]+?)(?:@[\w.-]+(?:/(.+))?)?", uri)
    if match is None:
        raise ValueError(f"{uri}: the rehearsal knows stand-ins for the hub's addresses only")
    return Repo(match[1], match[2] or "")


def rehearsed(preset: dict[str, Any], root: Path, families: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the preset with tiny assets, created below `root`.

    Args:
        families: only these; empty for all.
    """
    stand_ins = StandIns(root)
    values: dict[str, Any] = json.loads(json.dumps(preset))  # nothing shared, as YAML's aliases are
    values = only(values, families)
    for subset in values["prompts"]["subsets"].values():
        _source(subset, stand_ins)
        if isinstance(subset["n"], int):
            subset["n"] = max(LEAST, subset["n"] // SCALE)
    for scorer in values["scoring"]["scorers"].values():
        _scorer(scorer, stand_ins, root)
    chat = {key for key, who in values["variants"].items() if who["role"] != "base"}
    for key, model in values["models"].items():
        _model(model, key in chat, stand_ins)
    for finetune in values["finetunes"].values():
        _source(finetune["data"], stand_ins)
        finetune |= RECIPE | ({"max_steps": 3} if finetune.get("max_steps") else {})
    for section, own in SMALLER.items():
        values[section] |= own
    return values


def only(values: dict[str, Any], families: tuple[str, ...]) -> dict[str, Any]:
    """Return the preset without the other families, their variants and weights."""
    if not families:
        return values
    kept = {key for key, who in values["variants"].items() if who["family"] in families}
    sections = dict.fromkeys(("models", "finetunes", "variants"), kept)
    for section, keys in {**sections, "families": set(families)}.items():
        values[section] = {key: own for key, own in values[section].items() if key in keys}
    return values


def _source(source: dict[str, Any], stand_ins: StandIns) -> None:
    repo = repo_of(source["uri"])
    name = f"{repo.name}/{repo.path}"
    source["uri"] = stand_ins.address(name, lambda path: tiny.write_source(name, path))


def _model(model: dict[str, Any], chat: bool, stand_ins: StandIns) -> None:
    repo = repo_of(model["uri"]).name
    if "adapter" in model:
        tuned = repo_of(model["adapter"]["uri"]).name
        model["adapter"]["uri"] = stand_ins.address(
            tuned, lambda path: tiny.write_adapter(tuned, repo, path)
        )
    model["uri"] = stand_ins.address(repo, lambda path: tiny.write_model(repo, chat, path))


def _scorer(scorer: dict[str, Any], stand_ins: StandIns, root: Path) -> None:
    if scorer["kind"] == "hf":
        name = repo_of(scorer["uri"]).name
        head = scorer["head"]
        scorer["uri"] = stand_ins.address(name, lambda path: tiny.write_classifier(head, path))
    else:
        base = root / "assets" / "detoxify-base"
        scorer["uri"] = stand_ins.address(
            "detoxify.ckpt", lambda path: tiny.write_detoxify(path, base)
        )
        scorer["base"] = {"uri": "file:assets/detoxify-base"}


def repos_of(preset: dict[str, Any]) -> Iterator[str]:
    """Return every model repository of the preset."""
    for model in preset["models"].values():
        yield repo_of(model["uri"]).name

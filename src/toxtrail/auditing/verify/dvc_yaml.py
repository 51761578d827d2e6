"""Check that dvc.yaml declares what the code needs, including the options that DVC acts on."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    broken,
    checks_of,
    failed,
    weak,
)
from toxtrail.auditing.verify.dvc_lock import UniqueKeyLoader, is_own
from toxtrail.pipeline import PIPELINE, Stage, code_deps, code_hash_file, stage_runs
from toxtrail.regular_files import read_text
from toxtrail.scaffold import stages_with_other_code

LINK = "pipeline"
TOP_KEYS = {"stages", "params", "metrics", "plots", "artifacts", "datasets"}
"""Permitted top-level keys besides stages: display settings. `vars` has a message of its own."""
STAGE_KEYS = {
    "foreach", "do", "cmd", "params", "deps", "outs", "metrics", "plots", "desc", "meta", "frozen",
}  # fmt: skip
"""Permitted keys of a toxtrail stage; `frozen` has a message of its own."""
NOTES = {"desc", "type", "labels", "meta", "remote", "push"}
"""Permitted options of an output: notes, and where DVC stores it."""
CHART = {"template", "x", "y", "x_label", "y_label", "title", "header"}
"""Permitted options of a plot: how DVC draws it."""
RECEIPT = {"cache": False, "persist": True}

CODE_DIFFERS = (
    "the installed toxtrail has other code for this stage. Install the version that made the "
    "results, or accept this one with `toxtrail upgrade`; `dvc repro` then runs the stage again."
)
NOT_OURS = "it is a user's stage: its command and outputs are not verified"


def verify_declaration(evidence: VerifyContext) -> Iterator[Check]:
    """Check that every stage is declared as the code needs it, that none is frozen, and that no
    added stage writes outputs or inputs of toxtrail's stages."""
    root = evidence.root
    try:
        values = yaml.load(read_text(root / "dvc.yaml"), Loader=UniqueKeyLoader)
        stages = values["stages"]
    except (*DAMAGE_ERRORS, yaml.YAMLError) as error:
        yield failed(LINK, "dvc.yaml", error, "it cannot be read")
        return
    yield from checks_of(LINK, "dvc.yaml", list(_odd_keys(values)))
    for stage in PIPELINE:
        entry = stages.get(stage.name)
        if entry is None:
            yield broken(LINK, f"dvc.yaml: {stage.name}", "the stage is missing")
            continue
        problems = list(_misdeclared(entry, stage, declaration(stage, root)))
        yield from checks_of(LINK, f"dvc.yaml: {stage.name}", problems)
    yield from _verify_added_stages(evidence, stages)
    for name in stages_with_other_code(root):
        yield broken(LINK, code_hash_file(name), CODE_DIFFERS)


def declaration(stage: Stage, root: Path) -> dict[str, Any]:
    """Return the expected declaration of a stage in this experiment's dvc.yaml."""
    key = " ${key}" if stage.foreach else ""
    return {
        "cmd": f"toxtrail stage {stage.name}{key}",
        "params": [as_dvc(key_path) for key_path in stage.params],
        "deps": [*map(as_dvc, stage.reads), *code_deps(stage, root)],
        "outs": [as_dvc(path) for path in stage.writes],
        "metrics": [as_dvc(path) for path in stage.metrics],
        "plots": [as_dvc(path) for path in stage.plots],
    }


def as_dvc(text: str) -> str:
    """Convert `{family}` in pipeline.py to `${item.family}` in dvc.yaml."""
    names = {"key": "${key}"}
    return re.sub(r"\{(\w+)\}", lambda m: names.get(m[1], f"${{item.{m[1]}}}"), text)


def _odd_keys(values: Mapping[str, Any]) -> Iterator[str]:
    if "vars" in values:
        yield "it has `vars`, which can change the values of its stages. Remove `vars`."
    if odd := sorted(str(name) for name in values.keys() - TOP_KEYS - {"vars"}):
        yield f"it has the unknown key {', '.join(odd)}. Remove it."


def _misdeclared(entry: dict[str, Any], stage: Stage, declared: Mapping[str, Any]) -> Iterator[str]:
    body = entry.get("do", entry)
    if odd := sorted((set(body) | set(entry)) - STAGE_KEYS):
        yield f"it has the unknown key {', '.join(odd)}. Remove it."
    if entry.get("frozen") or body.get("frozen"):
        yield (
            "it is frozen: DVC keeps its old output even if inputs change. Remove `frozen` and run "
            "`dvc repro`."
        )
    for name, expected in declared.items():
        actual = body.get(name)
        if name in ("outs", "metrics", "plots"):
            options = dict(map(_with_options, actual or []))
            actual = list(options)
            yield from _odd_options(options, CHART if name == "plots" else set())
        if actual != expected:
            yield f"{name} is {actual}, the code needs {expected}"
    if entry.get("foreach") != (f"${{{stage.foreach}}}" if stage.foreach else None):
        yield f"foreach is {entry.get('foreach')}, the code needs {stage.foreach}"


def _with_options(out: Any) -> tuple[str, dict[str, Any]]:
    """Return an output as declared in dvc.yaml: a path, or a path with options (for a plot also
    several)."""
    if not isinstance(out, dict):
        return str(out), {}
    path, options = next(iter(out.items()))
    several = options if isinstance(options, list) else [options or {}]
    return str(path), {name: value for option in several for name, value in option.items()}


def _odd_options(outs: Mapping[str, Mapping[str, Any]], charts: set[str]) -> Iterator[str]:
    """Return options that determine whether DVC keeps an output, or deletes it before a run."""
    for path, options in outs.items():
        actual = {name: value for name, value in options.items() if name not in NOTES | charts}
        expected = RECEIPT if path.startswith("mlruns/receipts/") else {}
        if actual != expected:
            yield f"{path} has the options {actual}, the code needs {expected or 'none'}"


def _verify_added_stages(evidence: VerifyContext, stages: Mapping[str, Any]) -> Iterator[Check]:
    """Check stages in dvc.yaml and dvc.lock that are not toxtrail's."""
    ours = set[str]()
    for instance in stage_runs(evidence.config):
        ours |= {*instance.outs, *instance.deps(evidence.root)}
    for name in (name for name in stages if not is_own(str(name))):
        problems = list(_intruding(stages[name], _path_resolver(evidence.root, stages[name]), ours))
        yield from [broken(LINK, f"dvc.yaml: {name}", problem) for problem in problems]
        if not problems:
            yield weak(LINK, f"dvc.yaml: {name}", NOT_OURS)
    for entry in evidence.lock.values():
        if is_own(entry.name):
            continue
        if entry.stage not in stages:
            detail = "dvc.yaml declares no stage of this name. Delete the entry."
            yield broken("dvc.lock", entry.name, detail)
        to_root_path = _path_resolver(evidence.root, stages.get(entry.stage))
        for path in _shared([to_root_path(out) for out in entry.outs], ours):
            yield broken(
                "dvc.lock",
                entry.name,
                f"its outputs include {path}, which toxtrail writes or reads",
            )


def _path_resolver(root: Path, entry: Any) -> Callable[[str], str]:
    """Return a function that converts a stage's paths to paths relative to the experiment's
    root."""
    body = entry.get("do", entry) if isinstance(entry, dict) else {}
    folder = str(body.get("wdir") or "") if isinstance(body, dict) else ""
    start = f"{root.as_posix()}/"
    return lambda path: posixpath.normpath(posixpath.join(folder, path)).removeprefix(start)


def _intruding(entry: Any, to_root_path: Callable[[str], str], ours: set[str]) -> Iterator[str]:
    """Yield outputs of a user's stage that would overwrite toxtrail's."""
    body = entry.get("do", entry) if isinstance(entry, dict) else None
    if not isinstance(body, dict):
        yield "it is not a stage"
        return
    if re.search(r"\btoxtrail\s+stage\b", str(body.get("cmd"))):
        yield f"its command is {body.get('cmd')}: it runs a stage of toxtrail under another name"
    outs = [_with_options(o)[0] for n in ("outs", "metrics", "plots") for o in body.get(n) or []]
    for path in _shared(map(to_root_path, outs), ours):
        yield f"its outputs include {path}, which toxtrail writes or reads"


def _shared(paths: Iterable[str], ours: set[str]) -> Iterator[str]:
    """Return the paths that are, are in, or contain one of toxtrail's."""
    for path in paths:
        if any(path == o or path.startswith(f"{o}/") or o.startswith(f"{path}/") for o in ours):
            yield path

"""Differences between a result and the present params.yaml and files.

They are read from the result's manifest and the manifests of its inputs, because dvc.lock does not
contain stages that were run by hand. Settings that affect no result (`runtime`, comments, times of
files) are not in any manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toxtrail.auditing.verify.params import changes, other_model, other_params
from toxtrail.config.schema import Config
from toxtrail.errors import ToxtrailError
from toxtrail.experiment import Experiment
from toxtrail.pipeline import StageRun, stage_runs
from toxtrail.provenance.identity import InputFile, Manifest, ModelIdentity, sha256_file
from toxtrail.regular_files import irregular, leads_out
from toxtrail.text_escaping import truncate_text

MAX_REASON_CHARS = 300
"""Maximum characters of a difference in a note."""

Runs = Mapping[tuple[str, str | None], StageRun]


def outdated(config: Config, root: Path, manifest: Manifest) -> list[str]:
    """Return the differences between the inputs of a result and the present files; empty if none.

    A file that does not exist locally (a clone without its data) does not count as a difference.
    """
    runs: Runs = {
        (stage_run.stage.name, stage_run.key): stage_run for stage_run in stage_runs(config)
    }
    return list(dict.fromkeys(_differences(config, root, manifest, runs, set())))


def outdated_note(experiment: Experiment, manifest: Any, source: str) -> str | None:
    """Return a warning if a result does not match the present params.yaml and files; else None.

    Args:
        manifest: the result's manifest as JSON values; an unreadable one is reported by an audit.
        source: where the result was read.
    """
    try:
        recorded = Manifest.from_json(manifest)
    except (ValidationError, ValueError):
        return None
    try:
        reasons = outdated(experiment.config, experiment.root, recorded)
    except (ToxtrailError, OSError) as error:
        return f"Cannot determine whether {source} is up to date: {error}"
    if not reasons:
        return None
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return (
        f"{source} is outdated: {truncate_text(reasons[0], MAX_REASON_CHARS)}{more}. `toxtrail "
        "status` lists what is outdated, `toxtrail run` updates it."
    )


def _differences(
    config: Config, root: Path, manifest: Manifest, runs: Runs, visited: set[tuple[str, bool]]
) -> Iterator[str]:
    run = runs.get((manifest.kind, manifest.key))
    if run is None:
        yield f"params.yaml has no {manifest.kind}@{manifest.key} any more"
        return
    yield from other_params(config, run, manifest)
    if manifest.model is not None:
        yield from other_model(config, manifest.model)
        yield from _other_recipe(config, manifest.model)
    for made_from in manifest.inputs.values():
        if (visit_key := (made_from.path, made_from.manifest is None)) in visited:
            continue
        visited.add(visit_key)
        if _was_changed(root, made_from):
            yield f"{made_from.path} was changed since"
        elif made_from.manifest is not None:
            yield from _differences(config, root, made_from.manifest, runs, visited)


def _other_recipe(config: Config, card: ModelIdentity) -> Iterator[str]:
    recipe_config, training = config.finetunes.get(card.key), card.adapters[-1:]
    if recipe_config is None or not training or training[0].training is None:
        return
    recipe = training[0].training.recipe
    for key_path, old, new in changes(f"finetunes.{card.key}", recipe, recipe_config.plain()):
        yield f"{key_path}: it was created with {old}, params.yaml has {new}"


def _was_changed(root: Path, made_from: InputFile) -> bool:
    path = root / made_from.path
    if leads_out(made_from.path) or irregular(path) or not path.is_file():
        return False
    return sha256_file(path) != made_from.sha256

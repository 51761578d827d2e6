"""Standard metadata of a bundle for archives and catalogues without knowledge of toxtrail.

Source: RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) and the profile Process Run Crate 0.5
(https://w3id.org/ro/wfrun/process/0.5). Verification never reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from toxtrail import __version__
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.execution.execution_records import RECORDED, find_record
from toxtrail.pipeline import StageRun
from toxtrail.provenance.experiment_version import experiment_version
from toxtrail.provenance.identity import sha256_file
from toxtrail.storage.artifacts import ArtifactStore

METADATA = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
"""Vocabulary that defines `sha256`."""

FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".nc": "application/x-netcdf",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
    ".lock": "application/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".txt": "text/plain",
}
NO_LICENSE = {
    "@id": "#license",
    "@type": "CreativeWork",
    "name": "No license is stated",
    "description": "Prompts and weights have separate licenses: see the model cards.",
}


def ro_crate(
    name: str, store: ArtifactStore, files: Mapping[str, Path], made_by: Sequence[StageRun]
) -> dict[str, Any]:
    """Return the content of ro-crate-metadata.json.

    Args:
        files: name in the bundle -> file.
        made_by: the stage runs behind them, in order.
    """
    actions = [action for stage_run in made_by if (action := _action(store, stage_run, files))]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Toxicity of {name}, measured by toxtrail",
        "description": f"Everything behind the result {name} except the weights. It contains "
        "generated text, some of it toxic. `toxtrail audit` verifies it.",
        "datePublished": max(
            (a["endTime"] for a in actions if "endTime" in a), default="1970-01-01"
        ),
        "license": {"@id": NO_LICENSE["@id"]},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": quote(file)} for file in files],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    profile = {
        "@id": PROFILE,
        "@type": "CreativeWork",
        "name": "Process Run Crate",
        "version": "0.5",
    }
    described = [_file(file, path) for file, path in files.items()]
    graph = [_descriptor(), root, profile, NO_LICENSE, _software(store), *described, *actions]
    return {"@context": [f"{SPECIFICATION}/context", TERMS], "@graph": graph}


def _descriptor() -> dict[str, Any]:
    return {
        "@id": METADATA,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": SPECIFICATION},
    }


def _software(store: ArtifactStore) -> dict[str, Any]:
    return {
        "@id": "#toxtrail",
        "@type": "SoftwareApplication",
        "name": "toxtrail",
        "softwareVersion": experiment_version(store.root) or __version__,
    }


def _file(name: str, path: Path) -> dict[str, Any]:
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": FORMATS.get(path.suffix, "application/octet-stream"),
        "sha256": sha256_file(path),
    }


def _action(
    store: ArtifactStore, stage_run: StageRun, files: Mapping[str, Path]
) -> dict[str, Any] | None:
    """Return the inputs and outputs of a stage run that are in the bundle."""
    results = _inside(stage_run.outs, files)
    if not results:
        return None
    return {
        "@id": f"#{stage_run.name}",
        "@type": "CreateAction",
        "name": f"toxtrail stage {stage_run.name.replace('@', ' ')}",
        "description": stage_run.stage.description,
        "instrument": {"@id": "#toxtrail"},
        "object": _one_or_many(_inside(stage_run.deps(store.root), files)),
        "result": _one_or_many(results),
        **_times(store, stage_run),
    }


def _times(store: ArtifactStore, stage_run: StageRun) -> dict[str, str]:
    """Return times from the record of the execution; empty if it is missing or damaged."""
    if stage_run.stage.name not in RECORDED:
        return {}
    output = store.root / stage_run.outs[0]
    file = output / "model.json" if output.is_dir() else output
    record = find_record(store, stage_run.stage.name, stage_run.key or "-", sha256_file(file))
    if record is None:
        return {}
    try:
        start = datetime.fromisoformat(record.content["started"])
        end = start + timedelta(seconds=float(record.content["cost"]["seconds"]))
    except DAMAGE_ERRORS:
        return {}
    return {"startTime": start.isoformat(), "endTime": end.isoformat(timespec="seconds")}


def _inside(paths: Sequence[str], files: Mapping[str, Path]) -> list[str]:
    """Return the files of the bundle that are one of these paths or below it."""
    parents = {name: {str(folder) for folder in PurePosixPath(name).parents} for name in files}
    return [name for name in files if any(p == name or p in parents[name] for p in paths)]


def _one_or_many(names: Sequence[str]) -> Any:
    """Return a list of one as its element, as RO-Crate requires."""
    references = [{"@id": quote(name)} for name in names]
    return references[0] if len(references) == 1 else references

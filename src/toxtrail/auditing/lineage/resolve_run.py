"""Resolve an MLflow run, a content key or a hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.lineage.hash_prefix import HEX, match_hash_prefix
from toxtrail.auditing.lineage.lineage import (
    HashStatus,
    LineageBuilder,
    LineageNode,
    execution_facts,
)
from toxtrail.auditing.lineage.resolve_file import (
    add_recorded_locations,
    stage_run_of,
    target_from_file,
)
from toxtrail.auditing.lineage.result_diff import publication_facts
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.auditing.verify.hash_cache import Digest, hash_file
from toxtrail.backends.mlflow.find_run import NO_PROJECT, project_of
from toxtrail.backends.mlflow.run_files import LocalRunFiles, damage_error, damaged_runs
from toxtrail.errors import DataError, why_unread
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import Manifest, walk_lineage
from toxtrail.records.run_tags import COMPARABILITY_TAG, DIRTY_TAG, MISMATCH_TAG, PROJECT_TAG

UNANCHORED = "the store's database does not have it: its files were compared with their list only"


def resolve_runs(reference: str, scene: AuditContext) -> Iterator[AuditTarget]:
    """Return runs with this name, or whose id or content key has this prefix; those of other
    projects only by id, or by a content key that this project does not have."""
    key = reference.lower() if HEX.fullmatch(reference.lower()) else None
    runs = [run for run in scene.runs if run.name == reference or _has_hash(run, key)]
    others = [run for run in scene.runs_of_all_projects if not scene.is_own(run)]
    runs += [run for run in others if key and run.run_id.startswith(key)]
    for run in runs or [run for run in others if _has_hash(run, key)]:
        yield target_from_run(run, scene)
    if key is None or scene.store is None:
        return
    intact = {run.files.folder for run in scene.runs_of_all_projects}
    for folder in damaged_runs(scene.store.root, intact):
        if folder.parent.name.startswith(key):
            yield _unusable_run(folder.parent.name, folder, damage_error(folder))


def _has_hash(run: LocalRunFiles, key: str | None) -> bool:
    return key is not None and any(i.startswith(key) for i in (run.run_id, run.content_key))


def _unusable_run(name: str, folder: Path, error: Exception) -> AuditTarget:
    """Return the target for a run whose files are unreadable or damaged."""
    why = why_unread(error)
    standing: HashStatus = "unread" if why else "MISMATCH"
    link = LineageNode("MLflow run", name, None, standing, weak=(why or str(error),))
    return AuditTarget("run", link, (), folder)


def target_from_run(run: LocalRunFiles, scene: AuditContext) -> AuditTarget:
    """Resolve a run by its own files, each compared with the list that it was sealed with."""
    title = f"MLflow run {run.name} ({run.run_id})"
    if not scene.is_own(run):
        title += f" of the project {run.project or NO_PROJECT}"
    try:
        record = run.record()
        manifest = run.manifest()
        if (record["name"], manifest.content_key) != (run.name, run.content_key):
            raise DataError(f"its files are those of {record['name']} ({manifest.content_key})")
        if project_of(record["tags"]) != run.project:
            raise DataError(f"its files are of the project {project_of(record['tags'])}")
    except DAMAGE_ERRORS as error:
        return _unusable_run(title, run.files.folder, error)
    link = run_node(scene.chain, title, manifest, record, tuple(_executions(run)))
    if not run.files.anchored:
        link = link._replace(weak=(*link.weak, UNANCHORED))
    stage = {"posterior": "track", "compare": "track-comparison"}.get(manifest.kind, "")
    name = f"{stage}@{manifest.key}"
    current = _is_current(run, name, scene)
    return AuditTarget("run", link, (name,) if current else (), run.files.folder)


def run_node(
    chain: LineageBuilder,
    title: str,
    manifest: Manifest,
    record: Mapping[str, Any],
    executions: tuple[tuple[str, str], ...] = (),
) -> LineageNode:
    """Return the lineage of a run.

    Args:
        record: of the run (record.json).
        executions: facts about the executions behind it, where `chain` has no records of them.
    """
    link = chain.of_manifest(title, manifest)
    tags, facts = record["tags"], [*publication_facts(record).items()]
    if PROJECT_TAG in tags:
        facts.insert(0, ("project", tags[PROJECT_TAG]))
    if COMPARABILITY_TAG in tags:
        facts.append(("comparability", tags[COMPARABILITY_TAG]))
    return link._replace(
        facts=(*facts, *executions, *link.facts), weak=(*link.weak, *_doubts(tags))
    )


def _doubts(tags: Mapping[str, str]) -> Iterator[str]:
    if tags.get(DIRTY_TAG) == "true":
        yield "tracked with uncommitted changes: the commit is not sufficient to reproduce it"
    if MISMATCH_TAG in tags:
        yield tags[MISMATCH_TAG]


def _executions(run: LocalRunFiles) -> Iterator[tuple[str, str]]:
    with suppress(*DAMAGE_ERRORS):  # damaged: verification names it
        for stage, record in run.executions().items():
            for name, value in execution_facts(record)[0]:
                yield f"{stage}: {name}", value


def _is_current(run: LocalRunFiles, name: str, scene: AuditContext) -> bool:
    """Return whether the run belongs to the present result."""
    if scene.store is None or scene.config is None or not scene.is_own(run):
        return False
    stage, _, key = name.partition("@")
    if stage == "track" and key in scene.config.variants:
        folder = scene.store.posterior_dir(scene.config.variants[key].family, key)
    elif stage == "track-comparison" and key in scene.config.families:
        folder = scene.store.comparison_dir(key)
    else:
        return False
    path = folder / "summary.json"
    with suppress(*DAMAGE_ERRORS):
        manifest = read_embedded_manifest(path) if path.is_file() else None
        return manifest is not None and manifest.content_key == run.content_key
    return False


def resolve_hashes(reference: str, scene: AuditContext) -> Iterator[AuditTarget]:
    """Return content keys and hashes of present files, and hashes in the history."""
    key = reference.lower()
    if not HEX.fullmatch(key) or scene.store is None:
        return
    manifests = [m for m in map(read_embedded_manifest, _present_files(scene)) if m]
    for node in (node for manifest in manifests for node in walk_lineage(manifest)):
        if node.content_key.startswith(key):
            content_link = scene.chain.of_manifest(f"content key {node.content_key}", node)
            yield AuditTarget("file", content_link, _existing_targets(stage_run_of(node), scene))
    for recorded in match_hash_prefix(key, manifests, scene.locks, scene.runs, scene.cards):
        path = scene.store.root / recorded.path if recorded.path else None
        own_file = hash_file(path) if path and path.is_file() else None
        if path and own_file and recorded.digest in (own_file.sha256, own_file.md5):
            yield target_from_file(path, scene)
            continue
        digest = Digest(recorded.digest if len(recorded.digest) == 64 else "-", recorded.digest, 0)
        locations = scene.recorded_locations(digest)
        weak = ("its file does not exist here; only its recorded locations are known",)
        link = LineageNode("hash", recorded.digest, None, "recorded", weak=weak)
        yield AuditTarget("hash", add_recorded_locations(link, locations), (), None, locations)


def content_key_of(subject: AuditTarget) -> str | None:
    """Merge a run and its result, which have the same content key."""
    return dict(subject.link.facts).get("content key")


def _existing_targets(targets: tuple[str, ...], scene: AuditContext) -> tuple[str, ...]:
    names = {instance.name for instance in scene.instances}
    return tuple(name for name in targets if name in names)


def _present_files(scene: AuditContext) -> Iterator[Path]:
    assert scene.store is not None
    for instance in scene.instances:
        if instance.stage.name in ("posterior", "compare"):
            path = scene.store.root / instance.writes[0] / "summary.json"
            if path.is_file():
                yield path

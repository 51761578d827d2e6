"""Verification of one reference: its chain, and the thing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toxtrail.audit.digests import hashed
from toxtrail.audit.evidence import Check, Evidence, absent, broken, ok
from toxtrail.audit.subjects import Scene, Subject
from toxtrail.audit.verify import verify
from toxtrail.audit.verify_runs import open_store, verify_run
from toxtrail.embedding import embedded_manifest
from toxtrail.identity import Manifest, ModelCard, canonical_json, lineage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify_subject(
    evidence: Evidence,
    subject: Subject,
    scene: Scene,
    keys: Sequence[Ed25519PublicKey] = (),
) -> list[Check]:
    """Everything that the subject is made from, then the subject itself."""
    found = verify(evidence, subject.targets, keys) if subject.targets else []
    if subject.kind == "file" and subject.path:
        found += verify_file(subject, scene)
    if subject.kind == "run" and subject.path and not subject.targets:
        found += _lone_run(evidence, subject.path.parent.name)
    return found


def verify_file(subject: Subject, scene: Scene) -> Iterator[Check]:
    """A file from anywhere: was exactly this content ever recorded?"""
    assert subject.path is not None
    path = subject.path
    if scene.store and path.is_relative_to(scene.store.root) and subject.targets:
        return  # its stage's outputs were hashed against dvc.lock
    digest, manifest = hashed(path), embedded_manifest(path)
    if subject.found or any(_holds(card, digest.sha256) for card in scene.cards):
        yield ok("files", path.name)
    elif manifest is not None and manifest.content_key in known_keys(scene):
        yield broken(
            "files",
            path.name,
            f"it says that it is {manifest.kind}@{manifest.key} with the content key "
            f"{manifest.content_key[:12]}, which is known here, but no file of this content "
            f"(sha256 {digest.sha256}) was ever recorded: it was changed afterwards.",
        )
    else:
        detail = "nothing here knows its experiment: its chain stands by the file's own word alone"
        yield absent("files", path.name, detail)


def known_keys(scene: Scene) -> set[str]:
    """Content keys of everything that is here or was tracked here."""
    manifests = []
    for one in scene.instances:
        for out in one.writes:
            path = scene.store.root / out if scene.store else None
            file = path / "summary.json" if path and path.is_dir() else path
            if file and file.is_file():
                manifests.append(embedded_manifest(file))
    for run in scene.runs:
        statement = run.statement()
        manifests.append(Manifest.model_validate_json(canonical_json(statement["predicate"])))
    return {node.content_key for m in manifests if m for node in lineage(m)}


def _holds(card: ModelCard, sha256: str) -> bool:
    adapters = (file for adapter in card.adapters for file in adapter.files)
    return any(file.sha256 == sha256 for file in (*adapters, *card.base.files))


def _lone_run(evidence: Evidence, run_id: str) -> list[Check]:
    """A run of older files: held against itself."""
    view, found = open_store(evidence)
    for stored in view.runs if view else ():
        if stored.run.run_id == run_id:
            if stored.deleted:
                found.append(broken("MLflow runs", run_id[:8], "the run was deleted"))
            found += verify_run(evidence, stored)
    return found

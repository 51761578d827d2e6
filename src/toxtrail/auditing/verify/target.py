"""Verification of one reference: its lineage, and the referenced object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from toxtrail.auditing.lineage.context import AuditContext, AuditTarget
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    absent,
    broken,
    catch_damage,
    ok,
)
from toxtrail.auditing.verify.hash_cache import hash_file
from toxtrail.auditing.verify.mlflow_runs import open_store_checked, verify_run
from toxtrail.auditing.verify.pipeline import verify_stale_entries
from toxtrail.auditing.verify.run import verify
from toxtrail.pipeline import stage_runs
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import ModelIdentity, walk_lineage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def verify_subject(
    evidence: VerifyContext,
    subject: AuditTarget,
    scene: AuditContext,
    keys: Sequence[Ed25519PublicKey] = (),
) -> list[Check]:
    """Verify everything that the subject depends on, then the subject itself."""
    checks = verify(evidence, subject.targets, keys) if subject.targets else []
    if subject.kind == "file" and subject.path:
        checks += catch_damage("files", subject.path.name, verify_file(subject, scene))
        checks += _left_over(evidence, subject)
    run_id = subject.path.parent.name if subject.kind == "run" and subject.path else ""
    if run_id and not any(run_id[:8] in check.name for check in checks):
        checks += catch_damage("MLflow runs", run_id[:8], _lone_run(evidence, run_id))
    detail = "it does not exist here; it is only known that it was recorded"
    return checks or [absent("files", subject.link.name, detail)]


def _left_over(evidence: VerifyContext, subject: AuditTarget) -> Iterator[Check]:
    """Check a file in dvc.lock of a variant that params.yaml no longer lists."""
    assert subject.path is not None
    stale = list(verify_stale_entries(evidence, stage_runs(evidence.config)))
    md5 = hash_file(subject.path).md5 if stale else ""
    for check in stale:
        outs = evidence.lock[check.name].outs.values()
        if any(out.md5 == md5 for out in outs):
            yield check


def verify_file(subject: AuditTarget, scene: AuditContext) -> Iterator[Check]:
    """Check whether the content of a file at any path was ever recorded."""
    assert subject.path is not None
    path = subject.path
    if scene.store and path.is_relative_to(scene.store.root) and subject.targets:
        return  # its stage's outputs were hashed against dvc.lock
    digest, manifest = hash_file(path), read_embedded_manifest(path)
    if subject.locations or any(_holds(card, digest.sha256) for card in scene.cards):
        yield ok("files", path.name)
    elif manifest is not None and manifest.content_key in known_keys(scene):
        yield broken(
            "files",
            path.name,
            f"it is labelled {manifest.kind}@{manifest.key} with the content key "
            f"{manifest.content_key[:12]}, which is known here, but no file of this content "
            f"(sha256 {digest.sha256}) was ever recorded: it was changed afterwards.",
        )
    else:
        detail = "its experiment is unknown here: its lineage is known from the file only"
        yield absent("files", path.name, detail)


def known_keys(scene: AuditContext) -> set[str]:
    """Return content keys of all results that exist or were tracked."""
    manifests = []
    for instance in scene.instances:
        for out in instance.writes:
            path = scene.store.root / out if scene.store else None
            file = path / "summary.json" if path and path.is_dir() else path
            with suppress(*DAMAGE_ERRORS):
                if file and file.is_file():
                    manifests.append(read_embedded_manifest(file))
    for run in scene.runs:
        with suppress(*DAMAGE_ERRORS):  # damaged: verification names it
            manifests.append(run.manifest())
    return {node.content_key for m in manifests if m for node in walk_lineage(m)}


def _holds(card: ModelIdentity, sha256: str) -> bool:
    adapters = (file for adapter in card.adapters for file in adapter.files)
    return any(file.sha256 == sha256 for file in (*adapters, *card.base.files))


def _lone_run(evidence: VerifyContext, run_id: str) -> Iterator[Check]:
    """Verify a run of older files by its own list."""
    view, checks = open_store_checked(evidence, project=None)
    yield from checks
    matching_runs = [stored for stored in view.runs if stored.run.run_id == run_id] if view else []
    for stored in matching_runs:
        if stored.deleted:
            yield broken("MLflow runs", run_id[:8], "the run was deleted")
        yield from verify_run(evidence.digests, stored)
    if view and not matching_runs:
        detail = "its files exist here, but the store has no such run: it was purged or moved"
        yield broken("MLflow runs", run_id[:8], detail)

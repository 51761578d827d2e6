"""Execution records: time, host, commit and batches of a file's creation.

They are not part of an identity and DVC does not track them, so each contains a hash of itself,
which is also its file name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toxtrail.auditing.verify.context import (
    Check,
    VerifyContext,
    absent,
    catch_damage,
    checks_of,
    runs_of_stage,
    weak,
)
from toxtrail.backends import git
from toxtrail.execution.execution_records import (
    RECORDED,
    RECORDS,
    damaged_paths,
    find_record,
    record_name,
    record_paths,
    relative_name,
)
from toxtrail.pipeline import StageRun, stage_runs
from toxtrail.provenance.identity import execution_record_hash
from toxtrail.storage.artifacts import read_json

LINK = "executions"


def verify_executions(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check that each record is unchanged, and that there is one of the present file."""
    for instance in runs_of_stage(scope, *RECORDED):
        stage, key = instance.stage.name, instance.key or "-"
        for path in record_paths(evidence.store, stage, key):
            name = relative_name(path)
            yield from catch_damage(LINK, name, _verify_record(evidence, instance, path, name))
        if not any(damaged_paths(evidence.store, stage, key)):
            name = f"{RECORDS}/{stage}/{key}"
            yield from catch_damage(LINK, name, _verify_presence(evidence, instance, name))


def _verify_record(
    evidence: VerifyContext, instance: StageRun, path: Path, name: str
) -> Iterator[Check]:
    record = read_json(path)
    problems = [*_edited(record, path), *_of_another(evidence, instance, record)]
    yield from checks_of(LINK, name, problems)
    if not problems:
        yield from _verify_commit(evidence, instance, name, record)


def _edited(record: dict[str, Any], path: Path) -> Iterator[str]:
    if "seal" not in record:
        yield "it was edited: it has no seal"
    elif record["seal"] != execution_record_hash(record):
        yield "it was edited: its seal is not the hash of its content"
    elif path.name != record_name(record["seal"]):
        yield "it was edited: its file name is not the hash of its content"


def _of_another(
    evidence: VerifyContext, instance: StageRun, record: dict[str, Any]
) -> Iterator[str]:
    """Return a problem if it is the record of another stage run."""
    recorded_name = f"{record.get('stage')}@{record.get('key')}"
    others = [o for o in stage_runs(evidence.config) if o.stage.name in RECORDED and o != instance]
    sha256 = record.get("output_sha256")
    if recorded_name != instance.name:
        yield f"it is the record of {recorded_name}"
    elif sha256 != _output_sha256(evidence, instance):
        yield from (
            f"it is the record of {o.name}" for o in others if _output_sha256(evidence, o) == sha256
        )


def _verify_presence(evidence: VerifyContext, instance: StageRun, name: str) -> Iterator[Check]:
    """Report a present output without a record of its creation."""
    stage, key = instance.stage.name, instance.key or "-"
    sha256 = _output_sha256(evidence, instance)
    paths = record_paths(evidence.store, stage, key)
    if sha256 and find_record(evidence.store, stage, key, sha256):
        return
    if not paths or sha256:
        which = f" of the present {instance.writes[0]}" if paths else ""
        yield absent(LINK, name, f"there is no execution record{which} here")


def _output_sha256(evidence: VerifyContext, instance: StageRun) -> str | None:
    """Return the SHA-256 of a stage run's output; None if it does not exist."""
    out = evidence.path(instance.writes[0])
    digest = evidence.digests.of(out / "model.json" if out.is_dir() else out)
    return digest.sha256 if digest else None


def _verify_commit(
    evidence: VerifyContext, instance: StageRun, name: str, record: dict[str, Any]
) -> Iterator[Check]:
    """Report a record of the present output whose commit does not exist here."""
    if record.get("output_sha256") != _output_sha256(evidence, instance):
        return
    commit = record.get("commit")
    if commit and evidence.committed and git.resolve(evidence.root, commit) is None:
        how = "this clone is shallow" if git.is_shallow(evidence.root) else "history was rewritten"
        detail = f"it was created at commit {commit[:12]}, which does not exist here: {how}"
        yield weak(LINK, name, detail)

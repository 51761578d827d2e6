"""Execution records: time, host, commit and batches of a file's creation.

They are not part of an identity and DVC does not track them, so each contains a hash of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toxtrail.audit.verify.context import (
    Check,
    VerifyContext,
    absent,
    catch_damage,
    checks_of,
    runs_of_stage,
    weak,
)
from toxtrail.backends import git
from toxtrail.pipeline import StageRun, stage_runs
from toxtrail.provenance.identity import execution_record_hash
from toxtrail.regular_files import status
from toxtrail.storage.artifacts import read_json

LINK = "executions"
STAGES = ("finetune", "generate", "score")


def verify_executions(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Check that each record is unchanged and belongs to the present file."""
    for instance in runs_of_stage(scope, *STAGES):
        path = evidence.store.execution_record_path(instance.stage.name, instance.key or "-")
        name = path.relative_to(evidence.root).as_posix()
        yield from catch_damage(LINK, name, _verify_record(evidence, instance, path, name))


def _verify_record(
    evidence: VerifyContext, instance: StageRun, path: Path, name: str
) -> Iterator[Check]:
    if status(path) is None:
        yield absent(LINK, name, "there is no execution record here")
        return
    record = read_json(path)
    problems = [*_edited(record), *_of_another(evidence, instance, record)]
    yield from checks_of(LINK, name, problems)
    if not problems:
        yield from _verify_commit(evidence, instance, name, record)


def _edited(record: dict[str, Any]) -> Iterator[str]:
    if "seal" not in record:
        yield "it was edited: it has no seal"
    elif record["seal"] != execution_record_hash(record):
        yield "it was edited: its seal is not the hash of its content"


def _of_another(
    evidence: VerifyContext, instance: StageRun, record: dict[str, Any]
) -> Iterator[str]:
    """Return a problem if it is the record of another stage run; records of older versions do not
    name their stage run and are identified by the output's hash only."""
    recorded_name = f"{record.get('stage', instance.stage.name)}@{record.get('key', instance.key)}"
    others = [o for o in stage_runs(evidence.config) if o.stage.name in STAGES and o != instance]
    sha256 = record.get("output_sha256")
    if recorded_name != instance.name:
        yield f"it is the record of {recorded_name}"
    elif sha256 != _output_sha256(evidence, instance):
        yield from (
            f"it is the record of {o.name}" for o in others if _output_sha256(evidence, o) == sha256
        )


def _output_sha256(evidence: VerifyContext, instance: StageRun) -> str | None:
    """Return the SHA-256 of a stage run's output; None if it does not exist."""
    out = evidence.path(instance.writes[0])
    digest = evidence.digests.of(out / "model.json" if out.is_dir() else out)
    return digest.sha256 if digest else None


def _verify_commit(
    evidence: VerifyContext, instance: StageRun, name: str, record: dict[str, Any]
) -> Iterator[Check]:
    sha256 = _output_sha256(evidence, instance)
    if sha256 and record.get("output_sha256") != sha256:
        yield absent(
            LINK,
            name,
            f"it belongs to another version of {instance.writes[0]} than the present one",
        )
        return
    commit = record.get("commit")
    if commit and evidence.committed and git.resolve(evidence.root, commit) is None:
        how = "this clone is shallow" if git.is_shallow(evidence.root) else "history was rewritten"
        detail = f"it was created at commit {commit[:12]}, which does not exist here: {how}"
        yield weak(LINK, name, detail)

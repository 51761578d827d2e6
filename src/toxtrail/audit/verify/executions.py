"""When, where, at which commit and in which batches a file was made: the machine's own records.

They are no part of an identity and DVC does not know them, so each holds a hash of itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toxtrail.audit.verify.context import Check, Evidence, absent, guarded, judged, of_stage, weak
from toxtrail.backends import git
from toxtrail.pipeline import Instance, stage_runs
from toxtrail.provenance.identity import record_seal
from toxtrail.regular_files import status
from toxtrail.storage.artifacts import read_json

LINK = "executions"
STAGES = ("finetune", "generate", "score")


def verify_executions(evidence: Evidence, scope: Sequence[Instance]) -> Iterator[Check]:
    """Each record is as it was written, and of the file that is here."""
    for one in of_stage(scope, *STAGES):
        path = evidence.store.record(one.stage.name, one.key or "-")
        name = path.relative_to(evidence.root).as_posix()
        yield from guarded(LINK, name, _record(evidence, one, path, name))


def _record(evidence: Evidence, one: Instance, path: Path, name: str) -> Iterator[Check]:
    if status(path) is None:
        yield absent(LINK, name, "when and where it was made is not written down here")
        return
    record = read_json(path)
    problems = [*_edited(record), *_of_another(evidence, one, record)]
    yield from judged(LINK, name, problems)
    if not problems:
        yield from _standing(evidence, one, name, record)


def _edited(record: dict[str, Any]) -> Iterator[str]:
    if "seal" not in record:
        yield "it was edited: it has no seal"
    elif record["seal"] != record_seal(record):
        yield "it was edited: its seal is not the hash of what it says"


def _of_another(evidence: Evidence, one: Instance, record: dict[str, Any]) -> Iterator[str]:
    """Where it is the record of another stage run; one of an older toxtrail does not say of which,
    and only the hash of what was made tells."""
    said = f"{record.get('stage', one.stage.name)}@{record.get('key', one.key)}"
    others = [o for o in stage_runs(evidence.config) if o.stage.name in STAGES and o != one]
    sha256 = record.get("output_sha256")
    if said != one.name:
        yield f"it is the record of {said}"
    elif sha256 != _made(evidence, one):
        yield from (f"it is the record of {o.name}" for o in others if _made(evidence, o) == sha256)


def _made(evidence: Evidence, one: Instance) -> str | None:
    """SHA-256 of what a stage run made; None if it is not here."""
    out = evidence.path(one.writes[0])
    digest = evidence.digests.of(out / "model.json" if out.is_dir() else out)
    return digest.sha256 if digest else None


def _standing(
    evidence: Evidence, one: Instance, name: str, record: dict[str, Any]
) -> Iterator[Check]:
    made = _made(evidence, one)
    if made and record.get("output_sha256") != made:
        yield absent(LINK, name, f"it is of another making of {one.writes[0]} than the one here")
        return
    commit = record.get("commit")
    if commit and evidence.committed and git.resolve(evidence.root, commit) is None:
        how = "this clone is shallow" if git.is_shallow(evidence.root) else "history was rewritten"
        detail = f"it was made at commit {commit[:12]}, which git does not know here: {how}"
        yield weak(LINK, name, detail)

"""Downstream lineage: from a fine-tune, a commit or a lock to every result derived from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from toxtrail.auditing.lineage.context import AuditContext
from toxtrail.auditing.lineage.lock_history import LockVersion, folders_with, recorded_locations
from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.auditing.verify.dvc_lock import Lock, LockEntry, parse_lock
from toxtrail.auditing.verify.hash_cache import dvc_files, hash_file, md5_of
from toxtrail.auditing.verify.pipeline import RECEIPTS
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_folder
from toxtrail.backends.mlflow.run_files import LocalRunFiles
from toxtrail.backends.protocols import TrackedRun
from toxtrail.errors import ConfigError
from toxtrail.provenance.identity import ModelIdentity, walk_lineage
from toxtrail.records.run_tags import COMMIT_TAG, KEY_TAG, SEAL_TAG
from toxtrail.regular_files import read_text
from toxtrail.storage.artifacts import pretty_json

IGNORED_FILES = {"README.md", ".gitattributes", ".gitignore"}


class DownstreamResult(NamedTuple):
    """One derived result."""

    kind: str
    """`stage run`, `past result`, `MLflow run`, `commit` or `model`."""
    name: str
    detail: str


def results_of_adapter(path: Path, scene: AuditContext) -> list[DownstreamResult]:
    """Return every model, stage run, MLflow run and commit that used an adapter.

    Raises:
        ConfigError: no such file or folder, or its content is not recorded.
    """
    if not path.exists():
        raise ConfigError(f"--adapter: there is no {path}.")
    files = [f for f in dvc_files(path) if f.name not in IGNORED_FILES]
    digests = [hash_file(file) for file in files if file.suffix == ".safetensors" or path.is_file()]
    hashes = {digest.sha256 for digest in digests}
    results = [*_model_results(hashes, scene), *_runs_with(hashes, scene)]
    if scene.store:
        cache = cache_folder(scene.store.root)
        locations = {s for d in digests for s in recorded_locations(d, scene.locks, cache, ())}
        results += [
            DownstreamResult("commit", s.where, f"{s.path} ({s.date} {s.subject})")
            for s in locations
        ]
        results += _past_results(
            {s.stage for s in locations}, {d.md5 for d in digests}, scene.locks, cache
        )
    if not results:
        raise ConfigError(
            f"--adapter: no model, MLflow run or commit here contains a file of {path}: it was not "
            "used in this experiment, or was changed since."
        )
    return results


def results_of_commit(
    revision: str, scene: AuditContext, runs: Sequence[TrackedRun]
) -> list[DownstreamResult]:
    """Return every output that a commit's lock records, and every run recorded or tracked at it.

    Raises:
        ConfigError: the commit does not exist.
    """
    root = scene.store.root if scene.store else scene.start_folder
    sha, lock = lock_at(root, revision)
    results = [
        DownstreamResult("stage run", entry.name, f"{out.path} (md5 {out.md5})")
        for entry in lock.values()
        for out in entry.outs.values()
    ]
    recorded_ids = {run.run_id for run in runs_of_lock(lock, runs)}
    for run in runs:
        tracked = run.tags.get(COMMIT_TAG) == sha
        if run.run_id in recorded_ids or tracked:
            why = ["its receipt is in this commit's dvc.lock"] if run.run_id in recorded_ids else []
            why += ["it was tracked at this commit"] if tracked else []
            results.append(
                DownstreamResult("MLflow run", f"{run.name} ({run.run_id[:8]})", "; ".join(why))
            )
    return results


def lock_at(root: Path, revision: str | None) -> tuple[str, Lock]:
    """Return (commit, dvc.lock at that commit); for None, that of the work tree.

    Raises:
        ConfigError: no such commit, or no dvc.lock in it.
    """
    if revision is None:
        path = root / "dvc.lock"
        if not path.is_file():
            raise ConfigError("There is no dvc.lock here. Run `dvc repro`.")
        return "", parse_lock(read_text(path))
    sha = git.resolve(root, revision)
    if sha is None:
        if problem := git.refusal(root):
            raise ConfigError(f'Commit "{revision}" cannot be read: {problem}')
        shallow = " (this clone is shallow)" if git.is_shallow(root) else ""
        raise ConfigError(f'There is no commit "{revision}" here{shallow}.')
    text = git.file_at(root, sha, "dvc.lock")
    if text is None:
        raise ConfigError(f"Commit {sha[:12]} has no dvc.lock: no results were committed with it.")
    return sha, parse_lock(text, f"dvc.lock at {sha[:12]}")


def runs_of_lock(lock: Lock, runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """Return the runs whose receipts a lock records, by the receipt's exact content."""
    receipts = set(_receipts(lock))
    return [run for run in runs if _receipt_md5(run) in receipts]


def orphans(locks: Sequence[LockVersion], runs: Sequence[TrackedRun]) -> list[DownstreamResult]:
    """Return runs that no lock recorded, and entries of the newest lock without a run."""
    text = "\n".join(lock.text for lock in locks)
    results = []
    for run in runs:
        md5 = _receipt_md5(run)
        if md5 is None or md5 not in text:
            why = "no dvc.lock of any commit records its receipt" if md5 else "it is not sealed"
            results.append(DownstreamResult("MLflow run", f"{run.name} ({run.run_id[:8]})", why))
    newest = locks[0].parsed() if locks else None
    receipt_md5s = {_receipt_md5(run) for run in runs}
    for md5, name in (_receipts(newest) if newest else {}).items():
        if md5 not in receipt_md5s:
            results.append(
                DownstreamResult("stage run", name, "dvc.lock has a receipt, the store has no run")
            )
    return results


def _receipts(lock: Lock) -> dict[str, str]:
    """Return md5 -> stage run."""
    return {
        out.md5: entry.name
        for entry in lock.values()
        for out in entry.outs.values()
        if out.path.startswith(RECEIPTS)
    }


def _receipt_md5(run: TrackedRun) -> str | None:
    """Return DVC's hash of the receipt of a run; None for an unsealed run."""
    key, seal = run.tags.get(KEY_TAG), run.tags.get(SEAL_TAG)
    if key is None or seal is None:
        return None
    return md5_of(pretty_json({"content_key": key, "seal": seal}).encode())


def _past_results(
    stages: set[str], md5s: set[str], locks: Sequence[LockVersion], cache: Path
) -> list[DownstreamResult]:
    """Return results in older versions of dvc.lock that are missing in the newest, each at its
    oldest commit."""
    newest = (locks[0].parsed() if locks else None) or {}
    present = {out.md5 for entry in newest.values() for out in entry.outs.values()}
    results: dict[tuple[str, str], DownstreamResult] = {}
    marks = md5s.union(*(folders_with(md5, locks, cache) for md5 in md5s))
    for past in reversed(locks[1:]):
        if not any(mark in past.text for mark in marks):
            continue  # parsing hundreds of versions would take long
        lock = past.parsed() or {}
        makers = [e for e in lock.values() if e.name in stages and marks & _contents(e)]
        for entry in downstream(lock, makers):
            for out in entry.outs.values():
                if out.md5 not in present:
                    detail = f"{out.path} (md5 {out.md5}), {past.where}"
                    result = DownstreamResult("past result", entry.name, detail)
                    results.setdefault((entry.name, out.md5), result)
    return list(results.values())


def _contents(entry: LockEntry) -> set[str]:
    """Return the hashes of a stage run's outputs."""
    return {out.md5 for out in entry.outs.values()}


def downstream(lock: Lock, makers: Sequence[LockEntry]) -> list[LockEntry]:
    """Return the entries downstream of these outputs, without the makers."""
    paths = {path for entry in makers for path in entry.outs}
    entries: dict[str, LockEntry] = {}
    grown = True
    while grown:
        fresh = [e for e in lock.values() if e.name not in entries and _reads(e, paths)]
        entries |= {entry.name: entry for entry in fresh}
        paths |= {path for entry in fresh for path in entry.outs}
        grown = bool(fresh)
    return list(entries.values())


def _reads(entry: LockEntry, paths: set[str]) -> bool:
    """Return whether an entry depends on an output; a dependency may be its folder."""
    return any(
        output == dep or output.startswith(f"{dep}/") for dep in entry.deps for output in paths
    )


def _model_results(hashes: set[str], scene: AuditContext) -> Iterator[DownstreamResult]:
    for card in scene.cards:
        if hashes & _adapter_hashes(card):
            yield DownstreamResult(
                "model", card.key, f"models/{card.key}, fingerprint {card.fingerprint[:12]}"
            )
            for stage_run in scene.instances:
                if stage_run.key == card.key and stage_run.stage.foreach == "variants":
                    yield DownstreamResult("stage run", stage_run.name, ", ".join(stage_run.writes))
            yield from _family_results(card.key, scene)


def _family_results(variant: str, scene: AuditContext) -> Iterator[DownstreamResult]:
    families = scene.config.families if scene.config else {}
    for stage_run in scene.instances:
        if (
            stage_run.stage.foreach == "families"
            and stage_run.key
            and variant in families[stage_run.key].variants
        ):
            yield DownstreamResult("stage run", stage_run.name, ", ".join(stage_run.writes))


def _runs_with(hashes: set[str], scene: AuditContext) -> Iterator[DownstreamResult]:
    for run in scene.runs:
        for card in _cards_of(run):
            if hashes & _adapter_hashes(card):
                detail = f"content key {run.content_key[:12]}, through {card.key}"
                yield DownstreamResult("MLflow run", f"{run.name} ({run.run_id[:8]})", detail)
                break


def _cards_of(run: LocalRunFiles) -> list[ModelIdentity]:
    try:
        manifest = run.manifest()
    except DAMAGE_ERRORS:
        return []  # damaged: verification names it
    return [node.model for node in walk_lineage(manifest) if node.model]


def _adapter_hashes(card: ModelIdentity) -> set[str]:
    return {file.sha256 for adapter in card.adapters for file in adapter.files}

"""Recorded locations of a content: dvc.lock at every commit, and the files of MLflow runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from toxtrail.auditing.verify.context import DAMAGE_ERRORS
from toxtrail.auditing.verify.dvc_lock import Lock, parse_lock
from toxtrail.auditing.verify.hash_cache import Digest
from toxtrail.auditing.verify.pipeline import cached_folder_listing
from toxtrail.backends import git
from toxtrail.backends.mlflow.run_files import LocalRunFiles
from toxtrail.errors import DataError
from toxtrail.regular_files import read_text

DIR = re.compile(r"\b([0-9a-f]{32}\.dir)\b")


class RecordedLocation(NamedTuple):
    """One recorded location of a content."""

    where: str
    """`dvc.lock`, `dvc.lock at <commit>` or `MLflow run <name> (<id>)`."""
    stage: str
    """Stage that created it; empty for a run."""
    path: str
    """Its name at that location."""
    commit: str
    """40 hex digits; empty for the work tree and for runs."""
    date: str
    """Commit date, ISO 8601."""
    subject: str
    """First line of the commit message."""


class LockVersion(NamedTuple):
    """dvc.lock at a commit, or in the work tree."""

    commit: str
    """Empty for the work tree."""
    date: str
    subject: str
    text: str

    @property
    def where(self) -> str:
        return f"dvc.lock at {self.commit[:12]}" if self.commit else "dvc.lock"

    def parsed(self) -> Lock | None:
        """Return the parsed lock; None if DVC did not write it."""
        return _parsed(self.text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Lock | None:
    try:
        return parse_lock(text, by_entry=True)
    except DataError:
        return None


def lock_history(root: Path) -> list[LockVersion]:
    """Return the work tree's and every committed version, newest first."""
    locks = [
        LockVersion(v.commit, v.date, v.subject, v.text) for v in git.versions(root, "dvc.lock")
    ]
    path = root / "dvc.lock"
    now = read_text(path, "replace") if path.is_file() else None
    if now is not None and (not locks or locks[0].text != now):
        locks.insert(0, LockVersion("", "", "", now))
    return locks


def recorded_locations(
    digest: Digest, locks: Sequence[LockVersion], dvc_cache: Path, runs: Sequence[LocalRunFiles]
) -> list[RecordedLocation]:
    """Return every recorded location of a content; of equal ones, the oldest commit."""
    folders = folders_with(digest.md5, locks, dvc_cache)
    by_location: dict[tuple[str, str], RecordedLocation] = {}
    for lock in reversed(locks):
        for sighting in _in_lock(lock, digest.md5, folders):
            by_location.setdefault((sighting.stage, sighting.path), sighting)
    return [*by_location.values(), *_in_runs(digest.sha256, runs)]


def uncached_folders(locks: Sequence[LockVersion], cache: Path) -> int:
    """Return how many folders of the locks have no file list in DVC's cache."""
    names = {name for lock in locks for name in DIR.findall(lock.text)}
    return sum(cached_folder_listing(cache, name) is None for name in names)


def folders_with(md5: str, locks: Sequence[LockVersion], cache: Path) -> dict[str, list[str]]:
    """Return folder hash -> names in it with this content, as far as DVC's cache lists them."""
    names = {name for lock in locks for name in DIR.findall(lock.text)}
    paths_by_folder: dict[str, list[str]] = {}
    for name in names:
        files = cached_folder_listing(cache, name) or {}
        if paths := [path for path, content in files.items() if content == md5]:
            paths_by_folder[name] = paths
    return paths_by_folder


def _in_lock(
    lock: LockVersion, md5: str, folders: dict[str, list[str]]
) -> Iterator[RecordedLocation]:
    if md5 not in lock.text and not any(name in lock.text for name in folders):
        return  # parsing hundreds of versions would take long
    for entry in (lock.parsed() or {}).values():
        for out in entry.outs.values():
            inner = [f"{out.path}/{name}" for name in folders.get(out.md5, ())]
            for path in [out.path] if out.md5 == md5 else inner:
                yield RecordedLocation(
                    lock.where, entry.name, path, lock.commit, lock.date, lock.subject
                )


def _in_runs(sha256: str, runs: Sequence[LocalRunFiles]) -> Iterator[RecordedLocation]:
    for run in runs:
        try:
            payload = run.payload()
        except DAMAGE_ERRORS:
            continue  # damaged: verification names it
        for path, content in payload.items():
            if content == sha256:
                where = f"MLflow run {run.name} ({run.run_id[:8]})"
                yield RecordedLocation(where, "", path, "", "", "")

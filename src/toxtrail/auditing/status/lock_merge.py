"""Three-way merge of dvc.lock, one stage run at a time.

Every entry of the result is one that DVC wrote on one of the branches. Git's merge of lines may
combine the inputs of one branch with the outputs of the other into an entry of a run that never
took place.
"""

from __future__ import annotations

from typing import NamedTuple

from toxtrail.auditing.status.lock_repair import entries, lock_problem
from toxtrail.auditing.verify.dvc_lock_parser import HEAD
from toxtrail.errors import DataError


class MergedLock(NamedTuple):
    """A merged dvc.lock."""

    text: str
    dropped: tuple[str, ...]
    """Stage runs that both branches ran differently: without an entry, DVC runs them again."""


def merge_lock(base: str, ours: str, theirs: str) -> MergedLock:
    """Merge two versions of dvc.lock.

    Args:
        base: their common ancestor; empty if there is none.

    Raises:
        DataError: a version is truncated, or has conflict markers or another layout than DVC's.
    """
    old, own, other = (_read(text) for text in (base, ours, theirs))
    merged: dict[str, str] = {}
    dropped: list[str] = []
    for name in {**own, **other}:
        sides = [side.get(name) for side in (own, other)]
        changed = {entry for entry in sides if entry not in (old.get(name), None)}
        if len(changed) > 1:
            dropped.append(name)
        elif changed:
            merged[name] = changed.pop()
        elif None not in sides:
            merged[name] = old[name]
    text = HEAD + "".join(merged.values()) if merged else ""
    return MergedLock(text, tuple(dropped))


def _read(text: str) -> dict[str, str]:
    """Return stage run -> its lines."""
    text = text.replace("\r\n", "\n")
    if not text.strip():
        return {}
    if problem := lock_problem(text):
        raise DataError(problem)
    found = entries(text)
    if not found:
        raise DataError("dvc.lock is not as DVC writes it.")
    return found

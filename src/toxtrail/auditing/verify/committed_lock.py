"""A dvc.lock that differs from the committed one only in the hashes of outputs.

A run of the same inputs on another processor, or with other builds of the packages, writes outputs
with other bytes, because manifests contain the environment and the last bits of logits differ. The
summaries for `dvc metrics` contain rounded numbers only, so they show whether the results changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from toxtrail.auditing.verify.dvc_lock_parser import LockEntry, read_entries
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_folder, cache_path
from toxtrail.errors import DataError
from toxtrail.regular_files import read_text

METRICS = "results/metrics/"
"""Folder of the summaries for `dvc metrics`, one for each family."""

RECEIPTS = "mlruns/"
"""Folder of the receipts of MLflow runs, which are new in each MLflow store."""

Metrics = Mapping[str, Mapping[str, float]]
"""Variant -> metric -> value in per cent or percentage points."""


class OtherBytes(NamedTuple):
    """Outputs whose content is not the committed one, although everything else is."""

    outputs: tuple[str, ...]
    largest_difference: float | None
    """Largest change of a rate or a difference, in percentage points; None if no family could be
    compared."""
    not_compared: tuple[str, ...]
    """Families whose committed numbers are not here, cannot be read, or are those of other rows."""


def other_bytes(root: Path) -> OtherBytes | None:
    """Compare dvc.lock with the committed one.

    Returns:
        None if they are equal, differ in more than the hashes of outputs, or cannot be read.
    """
    text = git.file_at(root, "HEAD", "dvc.lock")
    try:
        committed, present = read_entries(text or ""), read_entries(read_text(root / "dvc.lock"))
    except (DataError, OSError, UnicodeDecodeError):
        return None
    outputs = changed_outputs(committed, present)
    if not outputs:
        return None
    differences = {
        Path(path).stem: _difference_of_file(root, path, _hash_of(committed, path))
        if path in outputs
        else 0.0
        for entry in present.values()
        for path in entry.outs
        if path.startswith(METRICS)
    }
    compared = [difference for difference in differences.values() if difference is not None]
    return OtherBytes(
        tuple(outputs),
        max(compared, default=None),
        tuple(family for family, difference in differences.items() if difference is None),
    )


def changed_outputs(
    committed: Mapping[str, LockEntry], present: Mapping[str, LockEntry]
) -> list[str]:
    """Return the outputs whose hashes differ, sorted, without receipts of MLflow runs; empty if
    anything else differs too: a stage, a command, a parameter, or a file that no stage writes."""
    if committed.keys() != present.keys():
        return []
    outputs = {path for entry in present.values() for path in entry.outs}
    changed: set[str] = set()
    for name, entry in present.items():
        before = committed[name]
        if (before.cmd, before.params) != (entry.cmd, entry.params):
            return []
        if before.outs.keys() != entry.outs.keys() or before.deps.keys() != entry.deps.keys():
            return []
        if any(before.deps[p] != entry.deps[p] for p in entry.deps if not _is_output(p, outputs)):
            return []
        changed |= {path for path in entry.outs if before.outs[path] != entry.outs[path]}
    return sorted(path for path in changed if not path.startswith(RECEIPTS))


def largest_difference(committed: Metrics, present: Metrics) -> float | None:
    """Return the largest absolute difference of a value; None if they do not have the same
    values."""
    before, now = _flat(committed), _flat(present)
    if before.keys() != now.keys():
        return None
    return max((abs(before[key] - now[key]) for key in now), default=0.0)


def other_bytes_message(changed: OtherBytes) -> str:
    """Return what differs, whether numbers do, and what to do."""
    count = len(changed.outputs)
    numbers = (
        f"The largest difference of a rate or a difference is {changed.largest_difference:.3f} "
        "points. "
        if changed.largest_difference is not None
        else ""
    )
    missing = (
        f"No committed numbers of {', '.join(changed.not_compared)} that can be compared were read "
        "from DVC's cache. "
        if changed.not_compared
        else ""
    )
    return (
        f"dvc.lock differs from the committed one only in the hashes of {count} "
        f"{'output' if count == 1 else 'outputs'}: another processor or other package builds write "
        f"other bytes from the same inputs. {numbers}{missing}`toxtrail verify` recomputes the "
        "numbers; `git commit dvc.lock` accepts these outputs."
    )


def _is_output(path: str, outputs: set[str]) -> bool:
    """Return whether a dependency is an output, is in one, or is a folder of some."""
    return path in outputs or any(
        out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in outputs
    )


def _hash_of(entries: Mapping[str, LockEntry], path: str) -> str:
    return next(entry.outs[path] for entry in entries.values() if path in entry.outs)


def _difference_of_file(root: Path, path: str, committed_md5: str) -> float | None:
    """Compare a summary with the committed one in DVC's cache; None if one cannot be read."""
    try:
        committed = json.loads(read_text(cache_path(cache_folder(root), committed_md5)))
        return largest_difference(committed, json.loads(read_text(root / path)))
    except (OSError, ValueError, DataError, AttributeError, TypeError):
        return None


def _flat(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {(v, name): value for v, row in metrics.items() for name, value in row.items()}

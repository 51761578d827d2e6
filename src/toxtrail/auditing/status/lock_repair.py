"""Repair of a truncated dvc.lock: DVC writes it in place, and a kill leaves a part or nothing.

Missing entries are taken from older versions of the file. This is safe for any age: DVC compares
each entry with the present files, and re-runs a stage whose entry does not match.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import yaml

from toxtrail.auditing.verify.dvc_lock import Recorded
from toxtrail.auditing.verify.dvc_lock_parser import HEAD, split_entries
from toxtrail.backends import git
from toxtrail.backends.dvc_process import write_atomically
from toxtrail.config.yaml_text import CONFLICT, conflict_problem
from toxtrail.errors import ConfigError
from toxtrail.pipeline import PIPELINE
from toxtrail.regular_files import read_text

OURS = {stage.name for stage in PIPELINE}


def copy_path(root: Path) -> Path:
    """Return the path of `toxtrail run`'s copy of the last undamaged dvc.lock."""
    return root / ".toxtrail" / "dvc.lock"


def lock_problem(text: str) -> str | None:
    """Return the problem of an unreadable dvc.lock, and how to fix it; None if it is complete.

    Errors within its entries are left to DVC.
    """
    if problem := conflict_problem(text):
        return f"dvc.lock, {problem}. `toxtrail run` then runs the stages that both sides changed."
    if is_cut_off(text):
        return (
            "dvc.lock is incomplete: it was truncated while DVC wrote it. `toxtrail run` completes "
            "it from its copy or from git; by hand: `git checkout dvc.lock`, then `dvc repro`."
        )
    return None


def is_cut_off(text: str) -> bool:
    """Return whether the file is truncated."""
    if not text.strip("\0 \n"):
        return True
    if not text.startswith(HEAD):
        return HEAD.startswith(text.rstrip("\n"))
    name, last = ([("", ""), *entries(text).items()])[-1]
    return not name or not _is_complete(name, last, text.endswith("\n"))


def completed(text: str, older: Iterable[str]) -> str:
    """Return the file with its complete entries, and entries of older versions for all others.

    Args:
        older: versions of the file, the best one last.
    """
    complete: dict[str, str] = {}
    for version in older:
        if lock_problem(version) is None:
            complete |= entries(version)
    current = entries(text)
    if current and is_cut_off(text):
        current.popitem()
    complete |= current
    return HEAD + "".join(complete.values()) if complete else ""


def repair_lock(root: Path) -> str | None:
    """Complete a truncated dvc.lock; return what was done, None if nothing.

    Raises:
        ConfigError: it contains git's conflict markers.
    """
    path = root / "dvc.lock"
    text = _text(path)
    if text is None or (problem := lock_problem(text)) is None:
        return None
    if CONFLICT.search(text):
        raise ConfigError(problem)
    older = [git.file_at(root, "HEAD", "dvc.lock"), _text(copy_path(root))]
    new = completed(text, [version for version in older if version])
    if new:
        write_atomically(path, new)
    else:
        path.unlink()
    return (
        "dvc.lock was incomplete: it was truncated while DVC wrote it. It has "
        f"{len(entries(new))} entries again, {max(len(entries(text)) - 1, 0)} of them from the "
        "file itself. Stages that do not match their entry run again; finished work is kept."
    )


def keep_copy(root: Path) -> None:
    """Copy dvc.lock, if it is undamaged, for a later repair."""
    text = _text(root / "dvc.lock")
    if text is not None and lock_problem(text) is None:
        with suppress(OSError):  # without a copy there is still git
            copy_path(root).parent.mkdir(exist_ok=True)
            write_atomically(copy_path(root), text)


def _text(path: Path) -> str | None:
    """Read a file, None if it does not exist; bytes that are not UTF-8 are kept by surrogate
    escapes."""
    with suppress(FileNotFoundError):
        return read_text(Path(os.path.realpath(path)), "replace").replace("\r\n", "\n")
    return None


def entries(text: str) -> dict[str, str]:
    """Return stage -> its text, ending with a line end."""
    blocks = [block for block in split_entries(text) or () if block.strip("\0 \n")]
    return {
        block.split("\n", 1)[0].strip().removesuffix(":"): block.removesuffix("\n") + "\n"
        for block in blocks
    }


def _is_complete(name: str, block: str, ends_a_line: bool) -> bool:
    try:
        (entry,) = yaml.safe_load(block).values()
        rows = [*entry.get("deps", []), *entry.get("outs", [])]
        whole = all(
            {"path", "hash", "md5", "size"} <= set(row) <= set(Recorded.model_fields)
            for row in rows
        )
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return False
    if name.partition("@")[0] not in OURS:
        return bool(entry.get("cmd")) and ends_a_line
    return whole and bool(entry.get("outs")) and ends_a_line

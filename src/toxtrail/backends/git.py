"""Which commit the work tree is at, as git tells it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(root: Path) -> str | None:
    """The 40-hex commit of HEAD; None outside a repository or before the first commit."""
    return _git(root, "rev-parse", "--verify", "HEAD")


def changed_files(root: Path) -> list[str]:
    """Tracked files that differ from HEAD, and new ones that git does not ignore.

    dvc.lock is left out: DVC rewrites it while the pipeline runs, and its own hash is recorded.
    """
    status = _git(root, "status", "--porcelain=v1") or ""
    names = [line[3:] for line in status.splitlines()]
    return [name for name in names if Path(name).name != "dvc.lock"]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None

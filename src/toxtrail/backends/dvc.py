"""DVC behind a few calls: repro, repro side by side, status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from toxtrail.backends.processes import foreground
from toxtrail.errors import BackendError

BUSY = "is busy"
RETRIES = 60
"""Attempts, a second apart, while another `dvc repro` holds a file that this one needs."""


def repro(root: Path, targets: Sequence[str], keep_going: bool) -> int:
    """`dvc repro`, in the foreground; its exit code. On a CPU its stages start at once."""
    flags = ["--keep-going"] if keep_going else []
    module = "toxtrail.cli.warm" if may_fork() else "dvc"
    command = [sys.executable, "-m", module, "repro", *flags, *targets]
    return foreground(command, root, environment())


def may_fork() -> bool:
    """Whether stages may be forks of one process that has imported their libraries (cli/warm.py).

    Not where a GPU may be: a process that has once asked CUDA or ROCm what there is leaves its
    forks without it. macOS's own libraries do not bear a fork either.
    """
    gpus = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
    return sys.platform == "linux" and not any(device.exists() for device in gpus)


def repro_side_by_side(
    root: Path, work: tuple[Sequence[str], Sequence[Sequence[str]]], jobs: int, keep_going: bool
) -> None:
    """First what all share, then each chain of single stages in a small pool.

    A plain `repro` must follow: `-s` never looks upstream, so only that one proves all is up to
    date.

    Raises:
        BackendError: a stage failed (with keep_going only after the others are done).
    """
    shared, chains = work
    if _foreground(root, ["repro", *shared]) != 0 and not keep_going:
        raise BackendError("dvc repro failed; the stage that failed says why above.")
    with ThreadPoolExecutor(jobs) as pool:
        failed = [name for name in pool.map(lambda chain: _chain(root, chain), chains) if name]
    if failed and not keep_going:
        raise BackendError(f"These stages failed: {', '.join(failed)}. Their messages are above.")


def changes(root: Path) -> dict[str, list[Any]]:
    """`dvc status`: stage -> what changed; empty if all is up to date."""
    done = subprocess.run(
        _command("status", "--json"),
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackendError(f"dvc status failed: {done.stderr.strip()}")
    found: dict[str, list[Any]] = json.loads(done.stdout or "{}")
    return found


def cache_folder(root: Path) -> Path:
    """Where DVC keeps its objects, as its own configuration says."""
    from dvc.config import Config

    folders = (folder / ".dvc" for folder in (root, *root.parents))  # as DVC itself looks for it
    own = next((folder for folder in folders if folder.is_dir()), root / ".dvc")
    if not own.is_dir():
        return own / "cache"
    configured = Config(str(own)).get("cache", {}).get("dir")
    return Path(configured) if configured else own / "cache"


def environment() -> dict[str, str]:
    """This process's, with the folder of its own `toxtrail` first on the path."""
    own = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([own, os.environ.get("PATH", "")])}


def _chain(root: Path, stages: Sequence[str]) -> str | None:
    """Run single stages one after the other; the name of the first that failed."""
    for stage in stages:
        if _single(root, stage) != 0:
            return stage
    return None


def _single(root: Path, stage: str) -> int:
    """`dvc repro -s`, tried again while another one holds a shared file."""
    for _ in range(RETRIES):
        done = subprocess.run(
            _command("repro", "-s", stage),
            cwd=root,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if BUSY not in done.stdout and "Unable to acquire lock" not in done.stdout:
            break
        time.sleep(1)
    sys.stderr.write(done.stdout)
    return done.returncode


def _foreground(root: Path, arguments: Sequence[str]) -> int:
    return foreground(_command(*arguments), root, environment())


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]

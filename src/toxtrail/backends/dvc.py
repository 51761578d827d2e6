"""DVC behind a few calls: repro, repro side by side."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toxtrail.backends.subprocesses import Programs
from toxtrail.errors import BackendError


class Repro:
    """`dvc repro` of one experiment, with toxtrail's changes (backends/dvc_process.py)."""

    def __init__(self, root: Path, lock: int | None) -> None:
        """Args:
        lock: file descriptor of the run's lock, kept open as long as DVC runs.
        """
        self._programs = Programs(root, environment(), lock)

    def targets(self, targets: Sequence[str], keep_going: bool) -> int:
        """In the foreground; the exit code."""
        flags = ["--keep-going"] if keep_going else []
        return self._programs.run(_command(*flags, *targets))

    def side_by_side(
        self,
        shared: Sequence[str],
        chains: Sequence[Sequence[str]],
        jobs: int,
        keep_going: bool,
    ) -> None:
        """First what all share, then each chain of single stages in a small pool.

        `targets` must follow: `-s` never looks upstream, so only that one proves all is up to date.

        Raises:
            BackendError: a stage failed (with keep_going only after the others are done).
        """
        if self._programs.run(_command(*shared)) != 0 and not keep_going:
            raise BackendError("dvc repro failed; the stage that failed says why above.")
        with ThreadPoolExecutor(jobs) as pool:
            try:
                failed = [name for name in pool.map(self._chain, chains) if name]
            except (KeyboardInterrupt, SystemExit):
                self._programs.stop(signal.SIGTERM)
                raise
        if failed and not keep_going:
            raise BackendError(
                f"These stages failed: {', '.join(failed)}. Their messages are above."
            )

    def _chain(self, stages: Sequence[str]) -> str | None:
        """Run single stages one after the other; the name of the first that failed."""
        for stage in stages:
            code, text = self._programs.captured(_command("-s", stage))
            sys.stderr.write(text)
            if code != 0:
                return stage
        return None


def may_fork() -> bool:
    """Whether stages may be forks of one process that has imported their libraries
    (cli/_dvc_fork.py).

    Not where a GPU may be: a process that has once asked CUDA or ROCm what there is leaves its
    forks without it. macOS's own libraries do not bear a fork either.
    """
    gpus = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
    return sys.platform == "linux" and not any(device.exists() for device in gpus)


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


def _command(*arguments: str) -> list[str]:
    own = [sys.executable, "-m", "toxtrail.cli._dvc_fork"]
    return [*own, "--wait-for-lock", "repro", *arguments]

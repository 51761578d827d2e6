"""Run DVC: `dvc repro`, sequential or parallel."""

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
    """Runner of `dvc repro` for one experiment, patched as in backends/dvc_process.py."""

    def __init__(self, root: Path, lock: int | None) -> None:
        """Args:
        lock: file descriptor of the run's lock, kept open as long as DVC runs.
        """
        self._programs = Programs(root, dvc_environment(), lock)

    def targets(self, targets: Sequence[str], keep_going: bool) -> int:
        """Run in the foreground; return the exit code."""
        flags = ["--keep-going"] if keep_going else []
        return self._programs.run(_dvc_command(*flags, *targets))

    def side_by_side(
        self,
        shared: Sequence[str],
        chains: Sequence[Sequence[str]],
        jobs: int,
        keep_going: bool,
    ) -> None:
        """Run the shared stages first, then each chain of single stages in a thread pool.

        Call `targets` afterwards: `-s` ignores upstream stages, so only `targets` checks that all
        stages are up to date.

        Raises:
            BackendError: a stage failed (with keep_going only after the others are done).
        """
        if self._programs.run(_dvc_command(*shared)) != 0 and not keep_going:
            raise BackendError("dvc repro failed; see the message of the failed stage above.")
        with ThreadPoolExecutor(jobs) as pool:
            try:
                failed = [name for name in pool.map(self._run_chain, chains) if name]
            except (KeyboardInterrupt, SystemExit):
                self._programs.stop(signal.SIGTERM)
                raise
        if failed and not keep_going:
            raise BackendError(
                f"These stages failed: {', '.join(failed)}. Their messages are above."
            )

    def _run_chain(self, stages: Sequence[str]) -> str | None:
        """Run single stages in sequence; return the name of the first that failed."""
        for stage in stages:
            code, text = self._programs.captured(_dvc_command("-s", stage))
            sys.stderr.write(text)
            if code != 0:
                return stage
        return None


def can_fork() -> bool:
    """Return whether stages may be forks of a process that imported their libraries
    (cli/_dvc_fork.py).

    Not on a machine with a GPU: after a process has initialised CUDA or ROCm, its forks cannot use
    it. macOS's system libraries do not support forking either.
    """
    gpus = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
    return sys.platform == "linux" and not any(device.exists() for device in gpus)


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's object cache, from its configuration."""
    folder = _dvc_folder(root)
    configured = _configured(folder, "cache", "dir")
    return Path(configured) if configured else folder / "cache"


def cache_path(cache: Path, md5: str) -> Path:
    """Return the path of an object in DVC's cache."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def default_remote(root: Path) -> str | None:
    """Return the name of DVC's default remote; None if none is configured."""
    return _configured(_dvc_folder(root), "core", "remote")


def _dvc_folder(root: Path) -> Path:
    folders = (folder / ".dvc" for folder in (root, *root.parents))  # the order in which DVC looks
    return next((folder for folder in folders if folder.is_dir()), root / ".dvc")


def _configured(dvc_folder: Path, section: str, name: str) -> str | None:
    from dvc.config import Config

    if not dvc_folder.is_dir():
        return None
    value: str | None = Config(str(dvc_folder)).get(section, {}).get(name)
    return value


def dvc_environment() -> dict[str, str]:
    """Return this process's environment, with the folder of its `toxtrail` first in PATH."""
    bin_folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", "")])}


def _dvc_command(*arguments: str) -> list[str]:
    program = [sys.executable, "-m", "toxtrail.cli._dvc_fork"]
    return [*program, "--wait-for-lock", "repro", *arguments]

"""One `toxtrail run` at a time works on an experiment; others wait, readers see that it runs."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from toxtrail.errors import DataError
from toxtrail.regular_files import open_regular, read_text, refuse_irregular


def lock_path(root: Path) -> Path:
    """The file whose lock a run holds; the kernel releases it when the last process of it ends."""
    return root / ".toxtrail" / "run.lock"


@contextmanager
def only_run(root: Path, tell: Callable[[str], None]) -> Iterator[int | None]:
    """Hold the lock for the block, after waiting for another run that has it.

    Yields:
        The file descriptor of the lock, for processes that outlive this one; None where the file
        system has no locks.
    """
    path = lock_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_irregular(path)
    with path.open("a+", encoding="utf-8") as file:
        if not _locked(file.fileno(), lambda: tell(_waiting(path))):
            yield None
            return
        file.truncate(0)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {platform.node()}, started {now}\n")
        file.flush()
        yield file.fileno()


def running(root: Path) -> str | None:
    """Which run holds the lock; None if none does. Nothing is written."""
    path = lock_path(root)
    with suppress(DataError, OSError), open_regular(path) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_text(path).strip() or "a process that does not say which"
    return None


def _waiting(path: Path) -> str:
    return (
        f"Another `toxtrail run` works on this experiment ({read_text(path).strip()}). "
        "Waiting until it has ended; Ctrl-C gives up."
    )


def _locked(fd: int, waits: Callable[[], None]) -> bool:
    """Take the lock; False where there are none (some network file systems)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waits()
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return False
    return True

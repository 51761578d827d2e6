"""Lock of an experiment: one `toxtrail run` at a time; others wait, readers see that it runs."""

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
    """Return the file that a run locks; the kernel releases it when the run's last process ends."""
    return root / ".toxtrail" / "run.lock"


@contextmanager
def only_run(root: Path, tell: Callable[[str], None]) -> Iterator[int | None]:
    """Hold the lock for the block, after waiting for any other run to release it.

    Yields:
        The file descriptor of the lock, for processes that outlive this one; None where the file
        system has no locks.
    """
    path = lock_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_irregular(path)
    with path.open("a+", encoding="utf-8") as file:
        if not _acquire(file.fileno(), lambda: tell(_waiting_message(path))):
            yield None
            return
        file.truncate(0)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {platform.node()}, started {now}\n")
        file.flush()
        yield file.fileno()


def running(root: Path) -> str | None:
    """Describe the run that holds the lock; None if there is none. Nothing is written."""
    path = lock_path(root)
    with suppress(DataError, OSError), open_regular(path) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_text(path).strip() or "an unknown process"
    return None


def _waiting_message(path: Path) -> str:
    return (
        f"Another `toxtrail run` is using this experiment ({read_text(path).strip()}). "
        "Waiting for it to finish; press Ctrl-C to stop waiting."
    )


def _acquire(fd: int, on_wait: Callable[[], None]) -> bool:
    """Acquire the lock; False where locks are not supported (some network file systems)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return False
    return True

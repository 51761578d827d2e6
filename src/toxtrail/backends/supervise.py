"""Run a command until it ends, or until the process that asked for it does.

    python -I -S supervise.py FD[,FD...] COMMAND...

The first FD is the read end of a pipe whose write end only the asking process has: the kernel
closes it however that process ends, also after SIGKILL. Then the command and everything that it has
started are stopped, by SIGTERM and, after GRACE_S seconds, by SIGKILL. Further FDs (a lock) stay
open as long as something of the command runs. This file imports nothing of toxtrail: it starts in
hundredths of a second, and stays small for as long as the command runs.

The process must be started as the leader of its own session, so that its group is the command's.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 10.0
"""From SIGTERM to SIGKILL. Whatever is cut off then goes on with the next run."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLOSE_WITH_PARENT = 1
ADOPT_ORPHANS = 36
"""prctl's PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code, 128 + n if signal n ended it."""
    fds = [int(fd) for fd in arguments[0].split(",")]
    for fd in fds:
        os.set_inheritable(fd, False)
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (*STOPS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # for the command to answer; not inherited by it
    linux_prctl(ADOPT_ORPHANS, 1)
    child = _start(arguments[1:])
    status = None
    while status is None and fds[0] not in _readable(fds[0], wake):
        status = _ended(child)
    if status is None:
        status = _stop_all(child)
    else:
        _stop_group(GRACE_S)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def linux_prctl(option: int, value: int) -> None:
    """Ask the kernel for it; elsewhere than on Linux the pipe alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with(parent: int) -> None:
    """SIGTERM for this process as soon as its parent is gone (on Linux)."""
    linux_prctl(CLOSE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone already
        os.kill(os.getpid(), signal.SIGTERM)


def _start(command: Sequence[str]) -> int:
    """A signal that comes between fork and exec must wait, or it would meet our handlers."""
    own = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    child = os.fork()
    if child == 0:
        try:
            for number in (*STOPS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            die_with(own)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            os.execvp(command[0], list(command))
        except OSError as error:
            os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    return child


def _readable(leash: int, wake: int) -> list[int]:
    """Wait for the end of the asking process or for a signal."""
    ready, _, _ = select.select([leash, wake], [], [])
    if wake in ready:
        os.read(wake, 512)
    return ready


def _ended(child: int) -> int | None:
    """The status of the command, None while it runs; processes that it left behind are reaped."""
    status = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            status = found[1] if found[0] == child else status
    return status


def _stop_all(child: int) -> int:
    """Stop the command and what it has started; also groups of their own that are stopped likewise
    by theirs."""
    os.killpg(0, signal.SIGTERM)
    status, end = None, time.monotonic() + GRACE_S
    while status is None and time.monotonic() < end:
        time.sleep(0.05)
        status = _ended(child)
    _stop_group(end - time.monotonic())
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    end = time.monotonic() + 2 * GRACE_S
    while _has_children() and time.monotonic() < end:
        time.sleep(0.05)
    return status


def _stop_group(seconds: float) -> None:
    """Stop what is left of this process's group."""
    end = time.monotonic() + seconds
    if not _has_members():
        return
    os.killpg(0, signal.SIGTERM)
    while _has_members():
        if time.monotonic() >= end:
            _kill_members()
            return
        time.sleep(0.05)


def _has_members() -> bool:
    """Whether children of this group are left; on Linux orphans have become children."""
    return _reaped(os.P_PGID, os.getpgrp())


def _has_children() -> bool:
    return _reaped(os.P_ALL, 0)


def _reaped(kind: int, which: int) -> bool:
    try:
        while os.waitid(kind, which, os.WEXITED | os.WNOHANG):
            pass
    except ChildProcessError:
        return False
    return True


def _kill_members() -> None:
    """SIGKILL for the group without this process, which joins none that is to die: one by one."""
    own = os.getpgrp()
    for place in Path("/proc").iterdir() if sys.platform == "linux" else ():
        with suppress(OSError, ValueError):
            pid = int(place.name)
            if os.getpgid(pid) == own and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run a command until it ends, or until the process that started it ends.

    python -I -S supervise.py FD[,FD...] COMMAND...

The first FD is the read end of a pipe whose write end only the starting process has: the kernel
closes it however that process ends, also after SIGKILL. Then the command and everything that it
started are stopped, by SIGTERM and, after GRACE_S seconds, by SIGKILL. Further FDs (a lock) stay
open as long as any process of the command runs. This file imports nothing from toxtrail, so that
it starts in hundredths of a second and needs little memory while the command runs.

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
"""Seconds from SIGTERM to SIGKILL. The next run resumes interrupted work."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLOSE_WITH_PARENT = 1
ADOPT_ORPHANS = 36
"""prctl's PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code, or 128 + n if signal n ended it."""
    fds = [int(fd) for fd in arguments[0].split(",")]
    for fd in fds:
        os.set_inheritable(fd, False)
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (*STOPS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # left to the command, which does not inherit it
    linux_prctl(ADOPT_ORPHANS, 1)
    child = _start_command(arguments[1:])
    status = None
    while status is None and fds[0] not in _wait_readable(fds[0], wake):
        status = _reap_command(child)
    if status is None:
        status = _stop_all(child)
    else:
        _stop_group(GRACE_S)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def linux_prctl(option: int, value: int) -> None:
    """Set a process option on Linux; on other systems only the pipe stops the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with(parent: int) -> None:
    """Send SIGTERM to this process when its parent ends (on Linux)."""
    linux_prctl(CLOSE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:  # it has already ended
        os.kill(os.getpid(), signal.SIGTERM)


def _start_command(command: Sequence[str]) -> int:
    """Start the command; signals between fork and exec are blocked, so our handlers miss none."""
    supervisor = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    child = os.fork()
    if child == 0:
        try:
            for number in (*STOPS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            die_with(supervisor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            os.execvp(command[0], list(command))
        except OSError as error:
            os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    return child


def _wait_readable(leash: int, wake: int) -> list[int]:
    """Wait for the end of the starting process or for a signal."""
    ready, _, _ = select.select([leash, wake], [], [])
    if wake in ready:
        os.read(wake, 512)
    return ready


def _reap_command(child: int) -> int | None:
    """Return the command's status, None while it runs; reap the orphans that it left."""
    status = None
    with suppress(ChildProcessError):
        while (waited := os.waitpid(-1, os.WNOHANG))[0]:
            status = waited[1] if waited[0] == child else status
    return status


def _stop_all(child: int) -> int:
    """Stop the command and everything it started, including process groups with their own
    supervisor."""
    os.killpg(0, signal.SIGTERM)
    status, end = None, time.monotonic() + GRACE_S
    while status is None and time.monotonic() < end:
        time.sleep(0.05)
        status = _reap_command(child)
    _stop_group(end - time.monotonic())
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    end = time.monotonic() + 2 * GRACE_S
    while _has_children() and time.monotonic() < end:
        time.sleep(0.05)
    return status


def _stop_group(seconds: float) -> None:
    """Stop the remaining processes of this process's group."""
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
    """Return whether children of this group remain; on Linux orphans become children."""
    return _reap(os.P_PGID, os.getpgrp())


def _has_children() -> bool:
    return _reap(os.P_ALL, 0)


def _reap(kind: int, which: int) -> bool:
    try:
        while os.waitid(kind, which, os.WEXITED | os.WNOHANG):
            pass
    except ChildProcessError:
        return False
    return True


def _kill_members() -> None:
    """Send SIGKILL to each process of the group except this one."""
    group = os.getpgrp()
    for entry in Path("/proc").iterdir() if sys.platform == "linux" else ():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            if os.getpgid(pid) == group and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

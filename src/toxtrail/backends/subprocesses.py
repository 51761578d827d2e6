"""Programs that end with this process, with everything that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

SUPERVISE = Path(__file__).with_name("supervise.py")


class Programs:
    """Programs that run side by side, in the foreground of this process.

    However this process ends (an error, Ctrl-C, SIGTERM, a closed terminal, SIGKILL), they end with
    everything that they have started: a stage that outlived it would go on writing.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], lock: int | None = None
    ) -> None:
        """Args:
        lock: a file descriptor that stays open until the last of them has ended.
        """
        self._folder = folder
        self._environment = dict(environment)
        self._held = () if lock is None else (lock,)
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._guard = threading.Lock()

    def run(self, command: Sequence[str]) -> int:
        """Run to the end; the exit code."""
        return self._ended(command, None)[0]

    def captured(self, command: Sequence[str]) -> tuple[int, str]:
        """The same, with what it writes to either stream."""
        return self._ended(command, subprocess.PIPE)

    def stop(self, number: int) -> None:
        """Send a signal to all that runs, and start nothing any more."""
        with self._guard:
            self._stopped = True
            for process in self._running:
                os.killpg(process.pid, number)

    def _ended(self, command: Sequence[str], output: int | None) -> tuple[int, str]:
        leash, held_end = os.pipe()
        try:
            process = self._started(command, leash, output)
            if process is None:
                return 128 + signal.SIGTERM, ""
            try:
                return self._waited(process)
            finally:
                self._running.discard(process)
        finally:
            os.close(held_end)

    def _started(
        self, command: Sequence[str], leash: int, output: int | None
    ) -> subprocess.Popen[str] | None:
        fds = (leash, *self._held)
        own = [sys.executable, "-I", "-S", str(SUPERVISE), ",".join(map(str, fds))]
        try:
            with self._guard:
                if self._stopped:
                    return None
                process = subprocess.Popen(
                    [*own, *command],
                    cwd=self._folder,
                    env=self._environment,
                    start_new_session=True,
                    pass_fds=fds,
                    stdout=output,
                    stderr=subprocess.STDOUT if output is not None else None,
                    text=True,
                )
                self._running.add(process)
                return process
        finally:
            os.close(leash)

    def _waited(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            text, _ = process.communicate()
        except (KeyboardInterrupt, SystemExit) as stop:
            self.stop(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            process.communicate()
            raise
        return process.returncode, text or ""


def foreground(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], lock: int | None = None
) -> int:
    """Run one program to its end; the exit code."""
    return Programs(folder, environment, lock).run(command)

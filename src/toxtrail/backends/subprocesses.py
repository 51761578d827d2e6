"""Run programs that end with this process, together with everything that they started."""

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
    """Programs that run in parallel, in the foreground of this process.

    However this process ends (an error, Ctrl-C, SIGTERM, a closed terminal, SIGKILL), they end with
    everything that they started: a stage that outlived it would continue to write files.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], lock: int | None = None
    ) -> None:
        """Args:
        lock: a file descriptor that stays open until the last of them ends.
        """
        self._folder = folder
        self._environment = dict(environment)
        self._kept_fds = () if lock is None else (lock,)
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._mutex = threading.Lock()

    def run(self, command: Sequence[str]) -> int:
        """Run to the end; return the exit code."""
        return self._run_supervised(command, None)[0]

    def captured(self, command: Sequence[str]) -> tuple[int, str]:
        """Run to the end; return the exit code and the output of both streams."""
        return self._run_supervised(command, subprocess.PIPE)

    def stop(self, number: int) -> None:
        """Send a signal to all running programs, and start no more."""
        with self._mutex:
            self._stopped = True
            for process in self._running:
                os.killpg(process.pid, number)

    def _run_supervised(self, command: Sequence[str], output: int | None) -> tuple[int, str]:
        read_end, write_end = os.pipe()
        try:
            process = self._start(command, read_end, output)
            if process is None:
                return 128 + signal.SIGTERM, ""
            try:
                return self._wait(process)
            finally:
                self._running.discard(process)
        finally:
            os.close(write_end)

    def _start(
        self, command: Sequence[str], read_end: int, output: int | None
    ) -> subprocess.Popen[str] | None:
        fds = (read_end, *self._kept_fds)
        try:
            with self._mutex:
                if self._stopped:
                    return None
                process = _supervised(command, self._folder, self._environment, fds, output)
                self._running.add(process)
                return process
        finally:
            os.close(read_end)

    def _wait(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            text, _ = process.communicate()
        except (KeyboardInterrupt, SystemExit) as stop:
            self.stop(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
            process.communicate()
            raise
        return process.returncode, text or ""


class BackgroundProgram:
    """Program that runs beside this process, such as a server.

    However this process ends (see `Programs`), it ends with everything that it started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        """Start it.

        Args:
            log: file for the output of both streams; an existing one is replaced.
        """
        log.unlink(missing_ok=True)
        read_end, self._write_end = os.pipe()
        try:
            with log.open("xb") as output:
                self._process = _supervised(
                    command, folder, environment, (read_end,), output.fileno()
                )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)

    @property
    def exit_code(self) -> int | None:
        """Exit code (128 + n after signal n); None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Stop it with SIGTERM and, after supervise.GRACE_S seconds, SIGKILL; wait for its end."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1
        self._process.wait()


def _supervised(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    fds: Sequence[int],
    output: int | None,
) -> subprocess.Popen[str]:
    """Start a command under supervise.py.

    Args:
        fds: its file descriptors, the read end of the pipe first.
        output: for both streams; None: those of this process.
    """
    supervisor = [sys.executable, "-I", "-S", str(SUPERVISE), ",".join(map(str, fds))]
    return subprocess.Popen(
        [*supervisor, *command],
        cwd=folder,
        env=environment,
        start_new_session=True,
        pass_fds=fds,
        stdin=None if output in (None, subprocess.PIPE) else subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        text=True,
    )


def run_foreground(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], lock: int | None = None
) -> int:
    """Run one program to the end; return the exit code."""
    return Programs(folder, environment, lock).run(command)

"""Programs that are run to their end, and stopped with all they have started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def foreground(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Run to the end; the exit code. If this process is stopped, so is everything that the command
    has started: a stage that outlived it would go on writing.
    """
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        return process.wait()
    except (KeyboardInterrupt, SystemExit) as stop:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        os.killpg(process.pid, number)
        process.wait()
        raise

"""Pages of commands, followed literally: their blocks, in order, in one shell."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """(heading, commands) of every block of commands."""
    parts = re.split(r"^## (.*)\n", (DOCS / page).read_text("utf-8"), flags=re.M)[1:]
    return [
        (heading, block)
        for heading, text in zip(parts[::2], parts[1::2])
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    ]


def run(commands: str, env: Mapping[str, str], folder: Path, timeout_s: float) -> str:
    """What the commands print; they must succeed. What they left in the background ends."""
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", commands], cwd=folder, env=env, stdout=file, stderr=file,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    printed = output.read_text("utf-8", errors="replace")
    assert code == 0, printed[-6000:]
    return printed

"""Stages that several machines share: `accelerate launch` with machine ranks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
TWO_MACHINES = Path(__file__).with_name("two_machines.sh")
NEW_NETWORK = ["unshare", "-rnm"]
TIMEOUT_S = 300
"""A group that cannot connect waits for half an hour."""


def test_two_machines_write_the_file_of_one_process(breakable):
    """Each in a network of its own, where that is permitted."""
    lab = breakable
    before = lab.outputs()
    shutil.rmtree(lab.root / ".toxtrail/rows")
    can_separate = shutil.which("ip") and _works([*NEW_NETWORK, "true"])
    machines = [*NEW_NETWORK, "bash", str(TWO_MACHINES), "namespaces"]
    done = subprocess.run(
        [*(machines if can_separate else ["bash", str(TWO_MACHINES), "loopback"]), _documented()],
        cwd=lab.root, env={**lab.env, "PATH": _path()}, text=True,
        capture_output=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {path.name: _lines(path) for path in lab.root.glob(".toxtrail/rows/*/tuned/*/*.jsonl")}
    assert rows == {"rows-0.jsonl": 8, "rows-1.jsonl": 8}
    changed = {name for name, content in lab.outputs().items() if before[name] != content}
    assert changed == set()


def _documented() -> str:
    """The command of docs/scale.md, for two machines with one process each."""
    page = (PROJECT / "docs/scale.md").read_text("utf-8")
    (command,) = re.findall(r"^accelerate launch (?:.*\\\n)+.*\n", page, re.M)
    for documented, here in (
        ("--num_processes 16", "--num_processes 2"),
        ("--machine_rank R", "--machine_rank RANK"),
        ("--main_process_ip 10.0.0.1", "--main_process_ip ADDRESS"),
        ("--main_process_port 29500", f"--main_process_port {_free_port()}"),
        ("VARIANT", "tuned"),
    ):
        assert command.count(documented) == 1
        command = command.replace(documented, here)
    return command


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())

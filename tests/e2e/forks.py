"""The fork server of a test run: the first command starts it, and it ends with the run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import fork_server
from filelock import FileLock

PROGRAMS = {
    "toxtrail": [str(Path(sys.executable).with_name("toxtrail"))],
    "dvc": [sys.executable, "-m", "dvc"],
    "make_assets": [sys.executable, str(Path(__file__).with_name("make_assets.py"))],
    "python-c": [sys.executable, "-c"],
}
"""How each starts by itself."""
SETTINGS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
"""Of every experiment here."""
ENVIRONMENT = dict(os.environ)
"""As this process was started: libraries that a test imports set variables of their own later."""


def run(
    program: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run; in a fork, unless the environment is one that a fork cannot have."""
    server = {**ENVIRONMENT, **SETTINGS}
    if fork_server.fixed(env) != fork_server.fixed(server):
        return itself(program, arguments, folder, env)
    if program == "dvc":  # its stages are forks, too
        env = {**env, "PATH": os.pathsep.join([str(programs()), env["PATH"]])}
    return ask(address(), program, arguments, folder, env)


def ask(
    server: str, program: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """In a fork of the server at this address."""
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        Path(os.devnull).open() as nothing,
    ):
        streams = (nothing.fileno(), out.fileno(), err.fileno())
        code = fork_server.ask(server, program, arguments, str(folder), env, streams)
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess([program, *arguments], code, out.read(), err.read())


def itself(
    program: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """The installed program, which imports all that it needs."""
    return subprocess.run(
        [*PROGRAMS[program], *arguments],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@cache
def programs() -> Path:
    """A folder for PATH: programs that run as forks, whoever starts them."""
    folder = Path(tempfile.mkdtemp(prefix="forks-bin-"))
    for program in PROGRAMS:
        words = [sys.executable, "-I", "-S", fork_server.__file__, address(), program]
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "utf-8")
        path.chmod(0o755)
    return folder


@cache
def address() -> str:
    """Of the one server of all processes of pytest-xdist, or of a server of this process."""
    env = {**ENVIRONMENT, **SETTINGS}
    run = ENVIRONMENT.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return start(sys.executable, env)
    folder = Path(tempfile.gettempdir()) / f"forks-{run}"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "socket").exists():
            _start(sys.executable, env, folder, os.getppid())
    return str(folder / "socket")


def start(python: str, env: Mapping[str, str]) -> str:
    """Start a fork server of an interpreter, which ends with this process; its address."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    _start(python, env, folder, os.getpid())
    return str(folder / "socket")


def _start(python: str, env: Mapping[str, str], folder: Path, until: int) -> None:
    """Start a fork server, which ends with a process, and wait until it answers."""
    address = folder / "socket"
    process = subprocess.Popen(
        [python, str(Path(fork_server.__file__)), str(address), "--until", str(until)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("w"),
        start_new_session=True,
    )
    while not address.exists():
        assert process.poll() is None, (folder / "log").read_text("utf-8")
        time.sleep(0.05)

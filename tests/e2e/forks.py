"""The fork server of this test process: the first command starts it, and it ends with us."""

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

PROGRAMS = {
    "toxtrail": [str(Path(sys.executable).with_name("toxtrail"))],
    "dvc": [sys.executable, "-m", "dvc"],
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
    words = [*PROGRAMS[program], *arguments]
    if program == "dvc":  # its stages are forks, too
        env = {**env, "PATH": os.pathsep.join([str(programs()), env["PATH"]])}
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        Path(os.devnull).open() as nothing,
    ):
        streams = (nothing.fileno(), out.fileno(), err.fileno())
        code = fork_server.ask(address(), program, arguments, str(folder), env, streams)
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


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
    folder = Path(address()).with_name("bin")
    folder.mkdir()
    for program in PROGRAMS:
        words = [sys.executable, "-I", "-S", fork_server.__file__, address(), program]
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "utf-8")
        path.chmod(0o755)
    return folder


@cache
def address() -> str:
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    address = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, str(Path(fork_server.__file__)), str(address)],
        env={**ENVIRONMENT, **SETTINGS},
        stdin=subprocess.PIPE,  # until we close it, or end
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("w"),
    )
    _SERVERS.append(process)
    while not address.exists():
        assert process.poll() is None, (folder / "log").read_text("utf-8")
        time.sleep(0.05)
    return str(address)


_SERVERS: list[subprocess.Popen[bytes]] = []
"""Kept, or their standard input would be closed."""

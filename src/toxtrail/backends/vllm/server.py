"""Start vLLM with verified files, wait for it, and stop it.

vLLM sees a folder with links to exactly the files on the model card. It listens on 127.0.0.1 with a
random key. It runs under a supervisor that stops it, and everything that it started, when this
process ends in any way.
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.protocols import Progress
from toxtrail.backends.subprocesses import BackgroundProgram
from toxtrail.backends.vllm.installation import VllmInstallation, child_environment
from toxtrail.errors import BackendError
from toxtrail.redaction import MASK, redacted
from toxtrail.regular_files import open_regular
from toxtrail.text_escaping import escape_control_chars

HOST = "127.0.0.1"
BASE, ADAPTER = "base", "adapter"
"""Names of the models on the server."""
POLL_S = 0.25
PORT_ATTEMPTS = 3
"""Another program can take the free port before vLLM does."""
PORT_TAKEN = "address already in use"
LOG_LINES = 12
CPU_CACHE_GIB = 2.0
"""Default on a CPU, where vLLM's own default is most of the machine's memory. Our choice."""
ERROR_LINE = re.compile(r"\w(Error|Exception): ")
LOG_BYTES = 100_000
"""Longest end of a log that is read for a message."""


class FileState(NamedTuple):
    """State of one file; replacing or writing a file changes it."""

    device: int
    inode: int
    size: int
    modified_ns: int


class VllmSettings(NamedTuple):
    """Settings of a server."""

    dtype: str
    max_model_len: int
    """Longest text in tokens, including the continuation."""
    lora_rank: int
    """0: no adapter."""
    batch_invariant: bool
    tensor_parallel: int
    kv_cache_gib: float | None
    start_timeout: float


class VllmServer:
    """A running server."""

    def __init__(self, program: BackgroundProgram, url: str, key: str, log: Path) -> None:
        self.url = url
        self.key = key
        self._program = program
        self._log = log

    def require_running(self) -> None:
        """Raise BackendError with the last lines of the log if vLLM has ended."""
        if (code := self._program.exit_code) is not None:
            raise BackendError(f"vLLM ended with the exit code {code}. {self._excerpt()}")

    def wait(self, seconds: float, progress: Progress) -> None:
        """Wait until it accepts requests.

        Raises:
            BackendError: it ended, or was not ready in time.
        """
        end, last = time.monotonic() + seconds, time.monotonic()
        with progress.bar("start vLLM", None, "s") as advance:
            while not self._is_ready():
                self.require_running()
                if time.monotonic() > end:
                    raise BackendError(
                        f"vLLM was not ready within {seconds:g} s "
                        f"(runtime.vllm.start_timeout). {self._excerpt()}"
                    )
                time.sleep(POLL_S)
                if (whole := int(time.monotonic() - last)) > 0:
                    advance(whole)
                    last += whole

    def has_no_port(self) -> bool:
        """Return whether it ended because another program took its port."""
        ended = self._program.exit_code is not None
        return ended and PORT_TAKEN in log_end(self._log, self.key).lower()

    def stop(self) -> None:
        self._program.stop()

    def _is_ready(self) -> bool:
        import requests

        with requests.Session() as session:
            session.trust_env = False  # no proxy
            try:
                response = session.get(
                    f"{self.url}/models",
                    headers={"Authorization": f"Bearer {self.key}"},
                    timeout=3,
                )
            except requests.RequestException:
                return False
        return response.status_code == 200

    def _excerpt(self) -> str:
        lines = excerpt(log_end(self._log, self.key).splitlines())
        text = "\n".join(f"  {line}" for line in lines)
        return f"From its log ({self._log}):\n{text}" if lines else f"See {self._log}."


@contextmanager
def running_server(
    installation: VllmInstallation,
    base: Mapping[str, Path],
    adapter: Mapping[str, Path],
    settings: VllmSettings,
    scratch: Path,
    progress: Progress,
) -> Iterator[VllmServer]:
    """Run vLLM during the block.

    Args:
        base: name in the folder that vLLM loads -> verified file.
        adapter: the same of the adapter; empty: none.
        scratch: folder for the links, deleted at the end; the log is beside it, and is kept.

    Raises:
        BackendError: vLLM ended, or was not ready in time; or a file changed while it was loaded.
    """
    before = file_states([*base.values(), *adapter.values()])
    shutil.rmtree(scratch, ignore_errors=True)
    link_files(base, scratch / BASE)
    link_files(adapter, scratch / ADAPTER)
    try:
        server = _started(installation, settings, scratch, progress)
        try:
            require_unchanged(before)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _started(
    installation: VllmInstallation, settings: VllmSettings, scratch: Path, progress: Progress
) -> VllmServer:
    """Start vLLM and wait for it; try another port if its own was taken."""
    for attempt in range(1, PORT_ATTEMPTS + 1):
        port, key = free_port(), secrets.token_urlsafe(32)
        log = scratch.with_suffix(".log")
        program = BackgroundProgram(
            serve_command(installation, settings, scratch, port),
            scratch,
            {**child_environment(), **server_variables(settings), "VLLM_API_KEY": key},
            log,
        )
        server = VllmServer(program, f"http://{HOST}:{port}/v1", key, log)
        try:
            server.wait(settings.start_timeout, progress)
        except BackendError:
            server.stop()
            if attempt < PORT_ATTEMPTS and server.has_no_port():
                continue
            raise
        except BaseException:
            server.stop()
            raise
        return server
    raise AssertionError("unreachable")


def serve_command(
    installation: VllmInstallation, settings: VllmSettings, scratch: Path, port: int
) -> list[str]:
    """Return the command line. The key is passed in the environment, which other users cannot
    read."""
    command = [
        str(installation.command), "serve", str(scratch / BASE), "--served-model-name", BASE,
        "--host", HOST, "--port", str(port), "--dtype", settings.dtype, "--seed", "0",
        "--generation-config", "vllm", "--max-model-len", str(settings.max_model_len),
        "--no-enable-prefix-caching",
    ]  # fmt: skip
    if settings.lora_rank:
        command += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(settings.lora_rank)]
        command += ["--lora-modules", f"{ADAPTER}={scratch / ADAPTER}"]
    if settings.tensor_parallel > 1:
        command += ["--tensor-parallel-size", str(settings.tensor_parallel)]
    cache = settings.kv_cache_gib or (CPU_CACHE_GIB if installation.is_cpu else None)
    if cache is not None:
        command += ["--kv-cache-memory-bytes", str(int(cache * 2**30))]
    if installation.is_cpu:
        command.append("--enforce-eager")  # compiling for a CPU takes minutes and a C++ compiler
    return command


def server_variables(settings: VllmSettings) -> dict[str, str]:
    """Return the environment variables that are settings."""
    return {"VLLM_BATCH_INVARIANT": "1" if settings.batch_invariant else "0"}


def link_files(files: Mapping[str, Path], folder: Path) -> None:
    """Create a folder with one link for each file."""
    for name, path in files.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def file_states(paths: Iterable[Path]) -> dict[Path, FileState]:
    """Return the state of each file."""
    states = {}
    for path in paths:
        stat = path.stat()
        states[path] = FileState(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return states


def require_unchanged(before: Mapping[Path, FileState]) -> None:
    """Raise BackendError if a file was replaced, written or deleted."""
    for path, state in before.items():
        try:
            now = file_states([path])[path]
        except OSError:
            now = None
        if now != state:
            raise BackendError(
                f"{path} changed while vLLM loaded it, so these may be other weights. No row was "
                "generated: run again."
            )


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def excerpt(lines: Sequence[str]) -> list[str]:
    """Return the last lines of a log, after the last line above them that names an error: vLLM
    prints the cause first, and then the traceback of the process that waited for it."""
    last = list(lines[-LOG_LINES:])
    errors = [
        line
        for line in lines[: len(lines) - len(last)]
        if ERROR_LINE.search(line) and "WARNING" not in line and "root cause" not in line
    ]
    return [*errors[-1:], *last]


def log_end(log: Path, key: str) -> str:
    """Return the end of a log, without secrets and control characters."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.replace(key, MASK).splitlines()
    return redacted("\n".join(escape_control_chars(line) for line in lines if line.strip()))

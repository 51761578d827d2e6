"""Find a vLLM installation, usually in a Python environment of its own, and read its versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from toxtrail.errors import BackendError, system_problem
from toxtrail.regular_files import open_regular

QUERY = Path(__file__).with_name("query_environment.py")
QUERY_SECONDS = 300
"""A first import of vLLM on a slow disk can take a minute."""
OLDEST = (0, 32)
"""Oldest supported version: earlier ones ignore an adapter's alpha_pattern without an error."""
BATCH_INVARIANT_CAPABILITY = (8, 0)
"""CUDA compute capability from which vLLM has batch-invariant kernels."""
CURE = (
    "Install vLLM in a Python environment of its own (docs/scale.md), and set "
    "runtime.vllm.command to its program: /path/to/venv/bin/vllm"
)
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "TOXTRAIL_SERVER_KEY")
"""Variables that are not passed on to vLLM: of this Python environment, and secret ones."""
KEPT_VLLM = frozenset(
    {
        "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_NCCL_SO_PATH", "VLLM_LOGGING_LEVEL",
    }
)  # fmt: skip
"""Variables of vLLM that do not change a row. All others are dropped, so that rows do not depend on
environment variables."""


class VllmInstallation(NamedTuple):
    """A vLLM program, the Python that runs it, and what it reports."""

    command: Path
    facts: Mapping[str, str]
    """Versions (vllm, torch, transformers, python), platform, device, capability."""

    @property
    def version(self) -> str:
        return self.facts["vllm"]

    @property
    def is_cpu(self) -> bool:
        return self.facts["platform"] == "cpu"

    @property
    def has_batch_invariance(self) -> bool:
        """Whether the hardware has batch-invariant kernels."""
        capability = version_numbers(self.facts["capability"])
        return self.facts["platform"] == "cuda" and capability >= BATCH_INVARIANT_CAPABILITY


def find_command(command: str | None, root: Path) -> Path:
    """Return the path of the `vllm` program.

    Args:
        command: `runtime.vllm.command`: a path (relative to the experiment), or a name; None: vllm.

    Raises:
        BackendError: there is none.
    """
    command = command or "vllm"
    named = Path(command).expanduser()
    if named.name != command:
        path = shutil.which(str(root / named))
    else:
        path = shutil.which(str(Path(sys.executable).parent / command)) or shutil.which(command)
    if path is None:
        raise BackendError(f"generation.engine: vllm: there is no program {command}. {CURE}.")
    return Path(path)


def python_of(command: Path) -> Path:
    """Return the Python that runs a `vllm` program.

    Raises:
        BackendError: it is not the program of a Python environment.
    """
    try:
        with open_regular(command) as file:
            first = file.readline(1000)
    except OSError as error:
        raise BackendError(system_problem(error)) from None
    named = Path(os.fsdecode(first[2:].strip())) if first.startswith(b"#!") else Path()
    beside = [command.resolve().parent / name for name in ("python", "python3")]
    of_python = named.name.startswith("python") and named.is_absolute()
    for python in (*([named] if of_python else []), *beside):
        if os.access(python, os.X_OK):
            return python
    raise BackendError(
        f"{command} is not the program of a Python environment: neither its first line nor its "
        f"folder names a Python. {CURE}."
    )


def query(command: Path) -> VllmInstallation:
    """Import vLLM in its own environment, and return its versions and hardware.

    Raises:
        BackendError: it cannot be imported, or is too old.
    """
    python = python_of(command)
    try:
        run = subprocess.run(
            [str(python), "-I", str(QUERY)],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=QUERY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackendError(
            f"{python}: importing vLLM took more than {QUERY_SECONDS} s. Try again, or check with: "
            f"{python} -c 'import vllm'"
        ) from None
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise BackendError(f"{python} cannot import vLLM: {last}. {CURE}.")
    installation = VllmInstallation(command, _facts(run.stdout, python))
    _require_new(command, installation.version)
    return installation


def require_supported_version(command: Path) -> str:
    """Return vLLM's version from the metadata of its environment, without importing it.

    Raises:
        BackendError: it is not installed there, or too old.
    """
    code = (
        "import importlib.metadata as m\n"
        "n = [d for d in m.packages_distributions().get('vllm', ()) if d.startswith('vllm')]\n"
        "print(m.version(n[0]) if n else '')"
    )
    python = python_of(command)
    run = subprocess.run(
        [str(python), "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    if run.returncode != 0 or not run.stdout.strip():
        raise BackendError(f"{python} has no package vllm. {CURE}.")
    version = run.stdout.strip()
    _require_new(command, version)
    return version


def _require_new(command: Path, version: str) -> None:
    if version_numbers(version) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise BackendError(f"{command} is vLLM {version}; {needed} or newer is needed.")


def child_environment() -> dict[str, str]:
    """Return the environment variables for vLLM: those of this process, without those that belong
    to this Python environment, are secret, or could change rows. It stays offline."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in DROPPED and (not name.startswith("VLLM_") or name in KEPT_VLLM)
    }
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    no_telemetry = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {**variables, **offline, **no_telemetry, "VLLM_HOST_IP": "127.0.0.1"}


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: 0.32.1+cpu -> (0, 32)."""
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int(part) if part.isdecimal() else 0 for part in parts)


def _facts(output: str, python: Path) -> dict[str, str]:
    """Parse the last line of the query's output; libraries may print lines before it."""
    try:
        values = json.loads((output.strip().splitlines() or [""])[-1])
        return {name: str(value) for name, value in values.items()}
    except (ValueError, AttributeError):
        raise BackendError(f"{python}: vLLM's versions could not be read. {CURE}.") from None

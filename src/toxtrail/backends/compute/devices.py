"""Choose the device and the number of threads, and describe them for manifests."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Literal

from toxtrail.errors import BackendError


def pick_device(setting: str) -> str:
    """Convert `auto`, `cpu`, `mps`, `cuda` or `cuda:N` to the device to use.

    Raises:
        BackendError: the requested device is not available.
    """
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if setting == "auto":
        return "cuda" if has_cuda else "mps" if has_mps else "cpu"
    kind, _, index = setting.partition(":")
    present = {"cpu": True, "mps": has_mps, "cuda": has_cuda}.get(kind, False)
    if not present or (index and int(index) >= torch.cuda.device_count()):
        raise BackendError(
            f'runtime.device: "{setting}" is not available (torch {torch.__version__} sees '
            f'{torch.cuda.device_count()} CUDA device(s)). Use "auto" or "cpu".'
        )
    return setting


def set_num_threads(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Set torch's number of threads; `auto` uses the cores available to this process.

    Args:
        processes: number of processes on this machine that share the cores.

    Returns:
        The number of threads.
    """
    import torch

    threads = max(1, usable_cores() // processes) if setting == "auto" else setting
    torch.set_num_threads(threads)
    return threads


def batch_alignment() -> int:
    """Return the number of which batch sizes are multiples, so that a row has the same bits in any.

    With fewer than 12 rows a CPU multiplies float32 matrices with another kernel, and a thread's
    part of an activation is computed with vector instructions except for a remainder, which rounds
    differently: there is none if threads share full blocks of 16 rows. Measured with one and two
    threads.
    """
    import torch

    return math.lcm(16, torch.get_num_threads())


def usable_cores() -> int:
    """Count the physical cores that scheduler and container quota allow, at least 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = {_physical_core(cpu) for cpu in allowed}
    return max(1, min(len(cores), _core_quota(Path("/sys/fs/cgroup/cpu.max"), len(cores))))


def machine_memory() -> int:
    """Return the machine's memory in bytes, or the container's limit."""
    import psutil

    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def environment_info(device: str) -> dict[str, str]:
    """Return the versions and hardware that can change a logit's last bits, for manifests."""
    import peft
    import tokenizers
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tokenizers": tokenizers.__version__,
        "device": _device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _physical_core(cpu: int) -> tuple[str, str]:
    """Return (package, core), which two hyper-threads of one core share."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package = (folder / "physical_package_id").read_text(encoding="ascii").strip()
        return package, (folder / "core_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown", str(cpu)


def _core_quota(limit: Path, otherwise: int) -> int:
    """Read the number of full cores from a cgroup-v2 file (`<microseconds|max> <period>`)."""
    try:
        allowance, period = limit.read_text(encoding="ascii").split()
    except OSError:
        return otherwise
    return otherwise if allowance == "max" else max(1, int(allowance) // int(period))

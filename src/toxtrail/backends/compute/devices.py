"""Where the arithmetic runs, on how many threads, and what a manifest says of it."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Literal

from toxtrail.errors import BackendError


def pick_device(setting: str) -> str:
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N` -> the device to use.

    Raises:
        BackendError: the device that was asked for is not there.
    """
    import torch

    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if setting == "auto":
        return "cuda" if has_cuda else "mps" if has_mps else "cpu"
    kind, _, index = setting.partition(":")
    present = {"cpu": True, "mps": has_mps, "cuda": has_cuda}.get(kind, False)
    if not present or (index and int(index) >= torch.cuda.device_count()):
        raise BackendError(
            f'runtime.device: "{setting}" is not on this machine (torch {torch.__version__} sees '
            f'{torch.cuda.device_count()} CUDA device(s)). Write "auto" or "cpu".'
        )
    return setting


def use_threads(setting: int | Literal["auto"], processes: int = 1) -> int:
    """Set how many threads torch computes with; `auto` takes the cores this process may use.

    Args:
        processes: on this machine that share the cores.

    Returns:
        The number set.
    """
    import torch

    threads = max(1, usable_cores() // processes) if setting == "auto" else setting
    torch.set_num_threads(threads)
    return threads


def row_block() -> int:
    """Rows of a batch must come in multiples of this, for each to have the same bits in every one.

    With fewer than 12 rows a CPU multiplies float32 matrices by another kernel, and what a thread
    gets of an activation is computed by vector instructions but for a rest, which rounds otherwise:
    no rest is left if threads share whole blocks of 16 rows. Measured with one and two threads.
    """
    import torch

    return math.lcm(16, torch.get_num_threads())


def usable_cores() -> int:
    """Physical cores that the scheduler and the container's quota leave to this process, >= 1."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = {_core(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(Path("/sys/fs/cgroup/cpu.max"), len(cores))))


def machine_memory() -> int:
    """Bytes of memory that the machine, or the container's limit, gives to all processes."""
    import psutil

    whole = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdecimal() else whole


def environment(device: str) -> dict[str, str]:
    """Versions and hardware that can change a logit's last bits, for manifests."""
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


def _core(cpu: int) -> tuple[str, str]:
    """(package, core): two hyper-threads of one core are the same."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package = (folder / "physical_package_id").read_text(encoding="ascii").strip()
        return package, (folder / "core_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown", str(cpu)


def _quota(limit: Path, otherwise: int) -> int:
    """Whole cores of a cgroup-v2 limit file (`<microseconds|max> <period>`)."""
    try:
        allowance, period = limit.read_text(encoding="ascii").split()
    except OSError:
        return otherwise
    return otherwise if allowance == "max" else max(1, int(allowance) // int(period))

"""How fast is this machine? Two seconds of measuring, no model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

LONG_ENOUGH_S = 0.1
"""A measurement below this says more of the clock than of the machine."""
ROUNDS = 3
SIDES = (256, 512, 1024, 2048, 4096, 8192)
"""Of the square matrices; the first that takes long enough is taken."""
STREAMED = {"cpu": 256 << 20, "cuda": 2 << 30, "mps": 512 << 20}
"""Bytes read to measure memory: more than any cache holds."""
HASHED = 64 << 20


DATASHEETS: dict[str, tuple[str, dict[str, float], float, int]] = {
    "t4": ("NVIDIA T4", {"float16": 65e12, "bfloat16": 8.1e12, "float32": 8.1e12}, 320e9, 16),
    "l4": ("NVIDIA L4", {"float16": 121e12, "bfloat16": 121e12, "float32": 30.3e12}, 300e9, 24),
    "a100": ("NVIDIA A100 SXM", {"float16": 312e12, "bfloat16": 312e12, "float32": 19.5e12},
             2039e9, 80),
    "h100": ("NVIDIA H100 SXM", {"float16": 989e12, "bfloat16": 989e12, "float32": 67e12},
             3350e9, 80),
}  # fmt: skip
"""Name, operations a second without sparsity, bytes of memory a second, GB: as NVIDIA's data sheets
say. A T4 knows no bfloat16."""
REACHED_FLOPS, REACHED_MEMORY = 0.3, 0.7
"""Of a data sheet's numbers, what large matrices and long reads reach in practice: our choice. The
reference paper's fine-tune (gemma-2b-it on a T4, 82 min) took three times as long as they give."""
HASHED_ELSEWHERE = 5e8
"""Bytes a second on a machine that is not here."""


class Speed(NamedTuple):
    """What one device does in a second."""

    device: str
    name: str
    dtype: str
    flops: float
    """Of multiplying large matrices of that dtype."""
    memory_bytes: float
    """Read from memory, as decoding one token reads all weights."""
    hashed_bytes: float
    """SHA-256, one thread."""
    memory_free: int
    """Bytes of the device's memory that nobody uses."""
    memory_total: int


def announced(name: str, dtype: str) -> Speed:
    """A device that is not here, by its data sheet."""
    title, flops, memory, gigabytes = DATASHEETS[name]
    return Speed(
        device="cuda",
        name=f"{title}, by its data sheet",
        dtype=dtype,
        flops=REACHED_FLOPS * flops[dtype],
        memory_bytes=REACHED_MEMORY * memory,
        hashed_bytes=HASHED_ELSEWHERE,
        memory_free=gigabytes * 10**9,
        memory_total=gigabytes * 10**9,
    )


def measured(device: str, dtype: str, threads: int) -> Speed:
    """Measure the device, the best of a few rounds each: what others do meanwhile only slows it."""
    import torch

    torch.set_num_threads(threads)
    kind = device.partition(":")[0]
    number = getattr(torch, dtype)
    free, total = memory_of(device)
    with torch.inference_mode():
        return Speed(
            device=device,
            name=_name(device),
            dtype=dtype,
            flops=_flops(torch.device(device), number),
            memory_bytes=_streamed(torch.device(device), number, min(STREAMED[kind], free // 4)),
            hashed_bytes=_hashed(),
            memory_free=free,
            memory_total=total,
        )


def memory_of(device: str) -> tuple[int, int]:
    """(free, all) bytes of a device's memory; on a CPU what the system gives without swapping."""
    import psutil
    import torch

    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return int(free), int(total)
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def _flops(device: torch.device, dtype: torch.dtype) -> float:
    import torch

    for side in SIDES:
        a, b = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
        seconds = _best(partial(torch.matmul, a, b), device)
        if seconds >= LONG_ENOUGH_S / 10 or side == SIDES[-1]:
            return float(2.0 * side**3 / seconds)
    raise AssertionError("there is a last side")


def _streamed(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """A matrix times a vector: every weight is read once, as in decoding."""
    import torch

    item = torch.empty((), dtype=dtype).element_size()
    side = max(256, int((size / item) ** 0.5))
    weights = torch.ones((side, side), dtype=dtype, device=device)
    vector = torch.ones(side, dtype=dtype, device=device)
    return side * side * item / _best(lambda: weights @ vector, device)


def _hashed() -> float:
    block = bytes(HASHED)
    start = time.perf_counter()
    hashlib.sha256(block).digest()
    return HASHED / (time.perf_counter() - start)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest round, after one to warm up."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(ROUNDS))


def _name(device: str) -> str:
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"

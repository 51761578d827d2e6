"""Measure the speed of this machine in about two seconds, without a model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

MIN_SECONDS = 0.1
"""Shortest measurement: a shorter one depends on the clock more than on the machine."""
ROUNDS = 3
SIDES = (256, 512, 1024, 2048, 4096, 8192)
"""Sides of the square matrices; the first that takes long enough is used."""
STREAMED_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30, "mps": 512 << 20}
"""Bytes read to measure memory: more than any cache holds."""
HASHED_BYTES = 64 << 20


DATASHEETS: dict[str, tuple[str, dict[str, float], float, int]] = {
    "t4": ("NVIDIA T4", {"float16": 65e12, "bfloat16": 8.1e12, "float32": 8.1e12}, 320e9, 16),
    "l4": ("NVIDIA L4", {"float16": 121e12, "bfloat16": 121e12, "float32": 30.3e12}, 300e9, 24),
    "a100": ("NVIDIA A100 SXM", {"float16": 312e12, "bfloat16": 312e12, "float32": 19.5e12},
             2039e9, 80),
    "h100": ("NVIDIA H100 SXM", {"float16": 989e12, "bfloat16": 989e12, "float32": 67e12},
             3350e9, 80),
}  # fmt: skip
"""Name, operations per second without sparsity, memory bytes per second, GB: from NVIDIA's data
sheets. A T4 does not support bfloat16."""
FLOPS_EFFICIENCY, REACHED_MEMORY = 0.3, 0.7
"""Fractions of a data sheet's figures that large matrices and long reads reach: our choice. The
reference paper's fine-tune (gemma-2b-it on a T4, 82 min) took three times this estimate."""
ASSUMED_HASH_SPEED = 5e8
"""Assumed bytes hashed per second on another machine."""


class Speed(NamedTuple):
    """Speed of one device, per second."""

    device: str
    name: str
    dtype: str
    flops: float
    """Operations per second when multiplying large matrices of that dtype."""
    memory_bytes: float
    """Bytes read from memory per second; decoding one token reads all weights."""
    hashed_bytes: float
    """Bytes hashed per second with SHA-256, one thread."""
    memory_free: int
    """Free bytes of the device's memory."""
    memory_total: int


def datasheet_speed(name: str, dtype: str) -> Speed:
    """Return the speed of another device from its data sheet."""
    title, flops, memory, gigabytes = DATASHEETS[name]
    return Speed(
        device="cuda",
        name=f"{title} (data sheet)",
        dtype=dtype,
        flops=FLOPS_EFFICIENCY * flops[dtype],
        memory_bytes=REACHED_MEMORY * memory,
        hashed_bytes=ASSUMED_HASH_SPEED,
        memory_free=gigabytes * 10**9,
        memory_total=gigabytes * 10**9,
    )


def measure_speed(device: str, dtype: str, threads: int) -> Speed:
    """Measure the device; take the best of a few rounds, as other processes can only slow it."""
    import torch

    torch.set_num_threads(threads)
    kind = device.partition(":")[0]
    number = getattr(torch, dtype)
    free, total = memory_of(device)
    with torch.inference_mode():
        return Speed(
            device=device,
            name=_device_name(device),
            dtype=dtype,
            flops=_flops(torch.device(device), number),
            memory_bytes=_memory_speed(
                torch.device(device), number, min(STREAMED_BYTES[kind], free // 4)
            ),
            hashed_bytes=_hash_speed(),
            memory_free=free,
            memory_total=total,
        )


def memory_of(device: str) -> tuple[int, int]:
    """Return (free, total) bytes of a device's memory; on a CPU what is free without swapping."""
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
        seconds = _fastest_round(partial(torch.matmul, a, b), device)
        if seconds >= MIN_SECONDS / 10 or side == SIDES[-1]:
            return float(2.0 * side**3 / seconds)
    raise AssertionError("there is a last side")


def _memory_speed(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Time a matrix-vector product, which reads every weight once, as in decoding."""
    import torch

    item = torch.empty((), dtype=dtype).element_size()
    side = max(256, int((size / item) ** 0.5))
    weights = torch.ones((side, side), dtype=dtype, device=device)
    vector = torch.ones(side, dtype=dtype, device=device)
    return side * side * item / _fastest_round(lambda: weights @ vector, device)


def _hash_speed() -> float:
    block = bytes(HASHED_BYTES)
    start = time.perf_counter()
    hashlib.sha256(block).digest()
    return HASHED_BYTES / (time.perf_counter() - start)


def _fastest_round(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of the fastest round, after one warm-up round."""
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


def _device_name(device: str) -> str:
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"

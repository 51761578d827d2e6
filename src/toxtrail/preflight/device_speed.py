"""Measure how fast this machine multiplies matrices, in less than a second and without a model."""

from __future__ import annotations

import time
from typing import NamedTuple

SIDES = (256, 1024, 4096, 8192)
"""Sides of the square matrices; the first that takes long enough is used."""
MIN_SECONDS = 0.01
ROUNDS = 3
DATASHEETS = {
    "t4": ("NVIDIA T4", {"float16": 65e12, "bfloat16": 8.1e12, "float32": 8.1e12}, 16),
    "l4": ("NVIDIA L4", {"float16": 121e12, "bfloat16": 121e12, "float32": 30.3e12}, 24),
    "a100": ("NVIDIA A100 SXM", {"float16": 312e12, "bfloat16": 312e12, "float32": 19.5e12}, 80),
    "h100": ("NVIDIA H100 SXM", {"float16": 989e12, "bfloat16": 989e12, "float32": 67e12}, 80),
}
"""Name, operations per second without sparsity, GB: from NVIDIA's data sheets. A T4 does not
support bfloat16."""
DATASHEET_SHARE = 0.3
"""Share of a data sheet's operations per second that large matrices reach."""


class Speed(NamedTuple):
    """Speed and memory of one device."""

    device: str
    name: str
    dtype: str
    flops: float
    """Operations per second when multiplying large matrices of that dtype."""
    memory_total: int


def datasheet_speed(name: str, dtype: str) -> Speed:
    """Return the speed of another device from its data sheet."""
    title, flops, gigabytes = DATASHEETS[name]
    return Speed(
        "cuda", f"{title} (data sheet)", dtype, DATASHEET_SHARE * flops[dtype], gigabytes * 10**9
    )


def measure_speed(device: str, dtype: str, threads: int) -> Speed:
    """Measure the device; take the best of a few rounds, as other processes can only slow it."""
    import platform

    import psutil
    import torch

    torch.set_num_threads(threads)
    name = f"{platform.machine()}, {torch.get_num_threads()} thread(s)"
    memory = psutil.virtual_memory().total
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(torch.device(device))
        memory = torch.cuda.mem_get_info(torch.device(device))[1]
    return Speed(device, name, dtype, _flops(device, dtype), int(memory))


def _flops(device: str, dtype: str) -> float:
    import torch

    for side in SIDES:
        a = torch.ones((side, side), dtype=getattr(torch, dtype), device=device)
        seconds = []
        for _ in range(1 + ROUNDS):  # the first one warms up
            start = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
        if min(seconds[1:]) >= MIN_SECONDS:
            break
    return float(2 * side**3 / min(seconds[1:]))

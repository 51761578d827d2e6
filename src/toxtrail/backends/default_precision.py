"""The precision in which a new experiment generates on this machine."""

from __future__ import annotations

from typing import Literal, NamedTuple


class DefaultPrecision(NamedTuple):
    """A device, and the dtype for it."""

    device: str
    dtype: Literal["float32", "bfloat16"]


def default_precision() -> DefaultPrecision:
    """Return bfloat16 for a CUDA device that computes in it, else float32: processors without
    bfloat16 products are slower in it."""
    import torch

    from toxtrail.backends.compute.devices import pick_device

    device = pick_device("auto")
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return DefaultPrecision(device, "bfloat16")
    return DefaultPrecision(device, "float32")

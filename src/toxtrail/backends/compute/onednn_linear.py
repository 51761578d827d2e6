"""Linear layers on a CPU: the same products by oneDNN, with weights laid out once as it wants them.

torch multiplies float32 matrices by MKL and lays the weights out anew each time. On an AMD EPYC,
128 rows at once, oneDNN with weights laid out beforehand takes 0.8 of that time in float32 (0.6
where the output is a vocabulary) and 0.9 in bfloat16 (benchmarks/RESULTS.md). From two rows on each
row has the same bits in any company, also where MKL's depend on the number of rows.

The two operations are those that torch's own compiler uses for frozen models; no public function
leads to them. `agreement` and the scorers' own checks hold what comes out against the model's.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.compute.devices import machine_memory

if TYPE_CHECKING:
    import torch
    from torch import nn

PROCESSORS = ("x86_64", "AMD64")
"""Where it was measured to pay."""
MEMORY_SHARE = 0.25
"""Of the machine's memory that laid out weights, which are copies, may take. Our choice; a share of
what is free at the moment would let chance decide a float32 row's last bits."""
PRECISIONS = ("float32", "bfloat16")
"""Of weights that are laid out. Any other is left to torch."""
BATCH = 128
"""Rows for which weights are laid out; other numbers are multiplied as well. Our choice."""


class _Laid(NamedTuple):
    """A weight as oneDNN wants it."""

    copy: torch.Tensor
    original: torch.Tensor
    """Kept, so that no other weight can come to lie in its place."""
    version: int
    """How often it had been changed in place."""


class Linears:
    """A model's linear layers; weights that change after all are laid out again."""

    def __init__(self, model: nn.Module | None) -> None:
        """Args:
        model: None: torch multiplies, as it does where nothing can be laid out.
        """
        self._layers = [] if model is None else _layers(model)
        self._laid: dict[nn.Linear, _Laid] = {}

    def __bool__(self) -> bool:
        """Whether any layer is multiplied otherwise than by torch."""
        return bool(self._layers)

    @property
    def name(self) -> str:
        """Of what multiplies, for records."""
        return "onednn" if self else "torch"

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the model multiply by them for a while, in inference mode."""
        for layer in self._layers:
            vars(layer)["forward"] = self._product(layer)  # before the class's own
        try:
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)

    def _product(self, layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        import torch

        weight, bias = self._weight(layer), layer.bias
        multiply = torch.ops.mkldnn._linear_pointwise

        def product(rows: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = multiply(rows, weight, bias, "none", [], "")
            return made

        return product

    def _weight(self, layer: nn.Linear) -> torch.Tensor:
        import torch

        original, laid = layer.weight.detach(), self._laid.get(layer)
        version = 0 if original.is_inference() else original._version
        if (
            laid is None
            or laid.original.data_ptr() != original.data_ptr()
            or laid.version != version
        ):
            with torch.no_grad():
                copy = torch.ops.mkldnn._reorder_linear_weight(original, BATCH)
            laid = self._laid[layer] = _Laid(copy, original, version)
        return laid.copy


def _layers(model: nn.Module) -> list[nn.Linear]:
    """Those that can be laid out; none if not all copies may be made, so that it is never chance
    which are."""
    import torch
    from torch.nn import Linear

    if platform.machine() not in PROCESSORS or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    plain = [module for module in model.modules() if type(module) is Linear]
    found = [layer for layer in plain if _can(layer)]
    size = sum(layer.weight.nbytes for layer in found)
    return found if size <= MEMORY_SHARE * machine_memory() else []


def _can(layer: nn.Linear) -> bool:
    """Plain weights on the CPU, of no quantized kind, and nobody else's forward."""
    from torch.nn import Parameter

    weight = layer.weight
    if type(weight) is not Parameter or "forward" in vars(layer):
        return False
    return weight.device.type == "cpu" and weight.numel() > 0 and _known(weight.dtype)


def _known(dtype: torch.dtype) -> bool:
    import torch

    if str(dtype).removeprefix("torch.") not in PRECISIONS:
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

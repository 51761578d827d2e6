"""Compute linear layers on a CPU with oneDNN and prepacked weights.

torch multiplies float32 matrices with MKL and repacks the weights each time. On an AMD EPYC with
128 rows, oneDNN with prepacked weights takes 0.8 of that time in float32 (0.6 where the output is a
vocabulary) and 0.9 in bfloat16 (benchmarks/RESULTS.md). From two rows on, each row has the same
bits in any batch, also where MKL's depend on the number of rows.

The two operations are those that torch's compiler uses for frozen models; they have no public
function. `agreement` and the scorers' checks compare the results with the model's.
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
"""Processors on which it was measured to be faster."""
MEMORY_SHARE = 0.25
"""Fraction of the machine's memory for prepacked weights, which are copies. Our choice; with a
fraction of the free memory, a float32 row's last bits would depend on chance."""
PRECISIONS = ("float32", "bfloat16")
"""Dtypes of weights that are prepacked. Others are left to torch."""
BATCH = 128
"""Number of rows for which weights are prepacked; other numbers work as well. Our choice."""


class _PrepackedWeight(NamedTuple):
    """A weight prepacked for oneDNN."""

    copy: torch.Tensor
    original: torch.Tensor
    """Referenced, so that its memory is not reused for another weight."""
    version: int
    """Its count of in-place changes."""


class OneDnnLinears:
    """A model's linear layers; weights that change are prepacked again."""

    def __init__(self, model: nn.Module | None) -> None:
        """Args:
        model: None: torch multiplies, as it does where nothing can be prepacked.
        """
        self._layers = [] if model is None else _prepackable_layers(model)
        self._prepacked: dict[nn.Linear, _PrepackedWeight] = {}

    def __bool__(self) -> bool:
        """Return whether any layer is not computed by torch."""
        return bool(self._layers)

    @property
    def name(self) -> str:
        """Name of the implementation, for records."""
        return "onednn" if self else "torch"

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use these layers inside the block, in inference mode."""
        for layer in self._layers:
            vars(layer)["forward"] = self._product(layer)  # shadows the class's method
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
            result: torch.Tensor = multiply(rows, weight, bias, "none", [], "")
            return result

        return product

    def _weight(self, layer: nn.Linear) -> torch.Tensor:
        import torch

        original, prepacked = layer.weight.detach(), self._prepacked.get(layer)
        version = 0 if original.is_inference() else original._version
        if (
            prepacked is None
            or prepacked.original.data_ptr() != original.data_ptr()
            or prepacked.version != version
        ):
            with torch.no_grad():
                copy = torch.ops.mkldnn._reorder_linear_weight(original, BATCH)
            prepacked = self._prepacked[layer] = _PrepackedWeight(copy, original, version)
        return prepacked.copy


def _prepackable_layers(model: nn.Module) -> list[nn.Linear]:
    """List the layers that can be prepacked; none if memory does not suffice for all of them, so
    that the choice does not depend on chance."""
    import torch
    from torch.nn import Linear

    if platform.machine() not in PROCESSORS or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    plain = [module for module in model.modules() if type(module) is Linear]
    layers = [layer for layer in plain if _can_prepack(layer)]
    size = sum(layer.weight.nbytes for layer in layers)
    return layers if size <= MEMORY_SHARE * machine_memory() else []


def _can_prepack(layer: nn.Linear) -> bool:
    """Return whether a layer has plain CPU weights, not quantized, and no patched forward."""
    from torch.nn import Parameter

    weight = layer.weight
    if type(weight) is not Parameter or "forward" in vars(layer):
        return False
    return weight.device.type == "cpu" and weight.numel() > 0 and _is_supported(weight.dtype)


def _is_supported(dtype: torch.dtype) -> bool:
    import torch

    if str(dtype).removeprefix("torch.") not in PRECISIONS:
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

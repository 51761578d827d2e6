"""The lower limit of the time: the matrix products alone, without attention, norms and Python.

Every program that decodes this model with these weights in this precision needs at least this time,
unless it decodes more rows in parallel.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.compute.onednn_linear import OneDnnLinears

if TYPE_CHECKING:
    import torch
    from torch.nn import Module
    from transformers import PreTrainedModel

PREFILL = 1024
"""Prompt tokens in one product, as toxtrail starts them (`engine.START_TOKENS`)."""


class Work(NamedTuple):
    """Work to be computed."""

    rows: int
    prompt_tokens: int
    drawn: int
    """New tokens of all rows, the first of each included."""
    at_once: int
    """Rows decoded together."""

    @property
    def steps(self) -> float:
        """Decoding steps if no place in a step were ever empty; the prefill draws the first
        tokens."""
        return (self.drawn - self.rows) / self.at_once


class Seconds(NamedTuple):
    """Seconds of all linear layers, computed in two ways."""

    torch: float
    """As torch does it: what there was before toxtrail laid weights out."""
    laid_out: float
    """As toxtrail does it (`linear.Linears`)."""


def linear_seconds(model: PreTrainedModel, work: Work, repeats: int) -> Seconds:
    """Time all linear layers, prefill and decoding."""
    own, two_ways = layers(model), []
    for linears in (OneDnnLinears(None), OneDnnLinears(model)):
        with linears.used():
            two_ways.append(_generation(own, work, repeats))
    return Seconds(*two_ways)


def _generation(own: tuple[list[Module], Module], work: Work, repeats: int) -> float:
    body, head = own
    prefill = min(PREFILL, work.prompt_tokens)
    step = _seconds(body, work.at_once, repeats)
    last = _seconds([head], work.at_once, repeats)
    start = _seconds(body, prefill, max(1, repeats // 2))
    decoding = work.steps * (step + last)
    return decoding + work.prompt_tokens / prefill * start + work.rows / work.at_once * last


def encoder_seconds(model: PreTrainedModel, tokens: int, at_once: int, repeats: int) -> Seconds:
    """Time all linear layers of an encoder over a number of tokens."""
    own, two_ways = _linear(model), []
    for linears in (OneDnnLinears(None), OneDnnLinears(model)):
        with linears.used():
            two_ways.append(tokens / at_once * _seconds(own, at_once, repeats))
    return Seconds(*two_ways)


def layers(model: PreTrainedModel) -> tuple[list[Module], Module]:
    """Return every linear layer in the order of the model, and the last one, which computes the
    logits."""
    head: Any = model.get_output_embeddings()
    return [layer for layer in _linear(model) if layer is not head], head


def _linear(model: PreTrainedModel) -> list[Module]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D  # the same product, its weight the other way

    return [module for module in model.modules() if isinstance(module, Linear | Conv1D)]


def _width(layer: Any) -> int:
    """Return the input width of a layer."""
    return int(layer.weight.shape[1 if hasattr(layer, "in_features") else 0])


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[list[int]]:
    """Record the number of rows of logits of each forward pass in the block."""
    rows: list[int] = []
    head: Any = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda module, given: rows.append(given[0].numel() // given[0].shape[-1])
    )
    try:
        yield rows
    finally:
        hook.remove()


def _seconds(own: list[Module], rows: int, repeats: int) -> float:
    """Return the seconds of one pass through the layers, the median of `repeats`."""
    import torch

    weight: Any = own[0].weight
    inputs = {
        width: torch.randn(rows, width, dtype=weight.dtype, device=weight.device)
        for width in {_width(layer) for layer in own}
    }
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            settled(weight.device)
            start = time.perf_counter()
            for layer in own:
                layer(inputs[_width(layer)])
            settled(weight.device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first warms the caches


def settled(device: torch.device) -> None:
    """Wait for pending work of a GPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""How fast could it be at best? The matrix products alone: no attention, no norms, no Python.

Everything that decodes this model with these weights in this precision must do at least them, as
long as it does not decode more rows at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    Matrix = tuple[torch.Tensor, torch.Tensor | None]
    """Weight (out, in) and bias."""

PREFILL = 1024
"""Prompt tokens in one product, as toxtrail starts them (`engine.START_TOKENS`)."""


class Work(NamedTuple):
    """What is to be computed."""

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


def linear_seconds(model: PreTrainedModel, work: Work, repeats: int) -> float:
    """Seconds of all linear layers, prefill and decoding."""
    body, head = matrices(model)
    prefill = min(PREFILL, work.prompt_tokens)
    step = _seconds(body, work.at_once, repeats)
    last = _seconds([head], work.at_once, repeats)
    start = _seconds(body, prefill, max(1, repeats // 2))
    decoding = work.steps * (step + last)
    return decoding + work.prompt_tokens / prefill * start + work.rows / work.at_once * last


def matrices(model: PreTrainedModel) -> tuple[list[Matrix], Matrix]:
    """Every linear layer in the order of the model, and the last one, which makes the logits."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head: Any = model.get_output_embeddings()
    body: list[Matrix] = []
    for module in model.modules():
        if module is head:
            continue
        if isinstance(module, Linear):
            body.append((module.weight, module.bias))
        elif isinstance(module, Conv1D):  # the same product, its weight stored the other way round
            body.append((module.weight.T, module.bias))
    return body, (head.weight, head.bias)


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[list[int]]:
    """The rows of logits of each forward pass made meanwhile."""
    rows: list[int] = []
    head: Any = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(
        lambda module, given: rows.append(given[0].numel() // given[0].shape[-1])
    )
    try:
        yield rows
    finally:
        hook.remove()


def _seconds(layers: list[Matrix], rows: int, repeats: int) -> float:
    """Of one pass through the layers, one after another, the median of `repeats`."""
    import torch
    from torch.nn.functional import linear

    device = layers[0][0].device
    inputs = {
        width: torch.randn(rows, width, dtype=layers[0][0].dtype, device=device)
        for width in {weight.shape[1] for weight, _ in layers}
    }
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            settled(device)
            start = time.perf_counter()
            for weight, bias in layers:
                linear(inputs[weight.shape[1]], weight, bias)
            settled(device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first warms the caches


def settled(device: torch.device) -> None:
    """Wait for what a GPU has been told to do."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)

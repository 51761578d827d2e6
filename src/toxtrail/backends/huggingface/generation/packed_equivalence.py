"""Does the packed engine compute what the model computes? Asked of the loaded weights, each time.

An architecture may do in its attention what the engine does not know of (sinks, biases by distance,
states instead of keys). Nobody keeps a list of those: the logits say it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toxtrail.backends.compute.devices import row_block
from toxtrail.backends.compute.onednn_linear import Linears
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.weights.logit_probe import PROBES, largest_difference

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 3
"""Tokens drawn after each probe sentence."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference of two logits, in standard deviations of all logits: rounding stays below by
a factor of ten or more, another attention goes beyond. Our choice."""
CHANGING_ROTARY = ("dynamic", "longrope")
"""Kinds of positions whose frequencies change once *any* text in the batch is long."""


def packed_agrees(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, linears: Linears
) -> str:
    """Compare the two on the probe sentences and a few tokens after them.

    Args:
        linears: by which the engine multiplies.

    Returns:
        Why the packed engine must not be used; empty if it may. The model attends as before.
    """
    import torch

    texts = [tokenizer(text)["input_ids"] for text in PROBES]
    try:
        with packed_forward.by_slots(model), linears.used(), torch.inference_mode():
            drawn, found = _packed(model, texts)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError) as why:
        return f"{type(model).__name__} cannot attend by slots: {_short(why)}"
    expected = torch.cat([_plain(model, t + d) for t, d in zip(texts, drawn, strict=True)])
    allowed = TOLERANCE[str(model.dtype).removeprefix("torch.")] * float(expected.std())
    difference = largest_difference(found, expected)
    if difference <= allowed:
        return ""
    return (
        f"its logits differ from {type(model).__name__}'s own by {difference:.2g}, more than "
        f"{allowed:.2g}"
    )


def longest_packed(model: PreTrainedModel) -> int | None:
    """Tokens up to which no other text can change this one's positions; None: any number."""
    config: Any = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = [rotary, *(kind for kind in rotary.values() if isinstance(kind, dict))]
    if not any(kind.get("rope_type") in CHANGING_ROTARY for kind in kinds):
        return None
    first = (kind.get("original_max_position_embeddings") for kind in kinds)
    known = [int(n) for n in first if n] or [int(config.max_position_embeddings)]
    return min(known)


def _packed(model: PreTrainedModel, texts: list[list[int]]) -> tuple[list[list[int]], torch.Tensor]:
    """Tokens drawn after each text, and the logits (text * step, vocabulary) that they are from."""
    import torch

    capacity = -(-(max(map(len, texts)) + STEPS) // packed_forward.BLOCK) * packed_forward.BLOCK
    cache = packed_forward.SlotCache(len(texts), capacity)
    starts = [packed_forward.Start(slot, tuple(text)) for slot, text in enumerate(texts)]
    step = packed_forward.Step(cache, [], starts, model.device, row_block())
    logits = [packed_forward.forward(model, step, [token for text in texts for token in text])]
    drawn = [[int(token)] for token in logits[0].argmax(-1)]
    for extra in range(STEPS - 1):
        lengths = [len(text) + extra for text in texts]
        step = packed_forward.Step(cache, lengths, [], model.device, row_block())
        logits.append(packed_forward.forward(model, step, [own[-1] for own in drawn]))
        for own, token in zip(drawn, logits[-1].argmax(-1), strict=True):
            own.append(int(token))
    return drawn, torch.stack(logits, dim=1).flatten(0, 1).float().cpu()


def _plain(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """(STEPS, vocabulary) logits before each of the last STEPS tokens, as the model itself says."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([tokens[:-1]], device=model.device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, -STEPS:].float().cpu()


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0][:120] if lines else ''}"

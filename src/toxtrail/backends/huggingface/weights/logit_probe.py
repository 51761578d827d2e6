"""Is it the variant that it claims to be? Asked of loaded weights, on fixed sentences.

A dropped adapter, a merged copy that is the base and a LoRA without effect all answer like the
parent, and nothing else in a pipeline would notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.weights.pretrained import embedding_rows
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, ModelCard, Probe, probe_digest
from toxtrail.text_escaping import clipped, visible

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = (
    "The weather this morning was",
    "Question: what is the capital of France? Answer:",
    "She looked at him and said that he",
)
"""Fixed texts on which a variant must differ from its parent. Our choice: three unlike openings."""

SAME_MODEL = 0.75
"""Share of likeliest tokens that must be those on the card: another dtype or device may move a
near tie, another model moves most. Our choice."""


def prove(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, card: ModelCard
) -> torch.Tensor:
    """Probe a loaded model: it equals itself, it is finite, it answers as its card says, and its
    last adapter changes it.

    Returns:
        (token, vocabulary) logits, see `probe_logits`.

    Raises:
        BackendError: one of these is not so.
    """
    logits = probe_logits(model, tokenizer)
    if not logits.isfinite().all():
        raise BackendError(
            f"{card.key}: logits on the probe sentences are not finite. Another generation.dtype "
            "(float32, bfloat16) may help; else the weights are damaged."
        )
    noise = largest_difference(logits, probe_logits(model, tokenizer))
    if noise > 0:
        raise BackendError(
            f"{card.key}: the same probe gives logits that differ by {noise:g}: this device "
            "computes differently each time: no variant can be told from its parent. Use another."
        )
    if card.probe:
        refuse_stranger(card.key, card.probe, probe_of(logits, card.probe.dtype))
    if card.adapters:
        _prove_adapter(model, tokenizer, logits, card)  # type: ignore[arg-type]
    return logits


def probe_logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """(token, vocabulary) logits of all probe sentences one after another, float32, on the CPU."""
    import torch

    rows = []
    with torch.inference_mode():
        for text in PROBES:
            tokens = tokenizer(text)["input_ids"]
            refuse_unknown_token(tokens, model, tokenizer)
            ids = torch.tensor([tokens], device=model.device)
            rows.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def refuse_unknown_token(
    tokens: Sequence[int],
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Raise if the tokenizer makes a token that the model has no embedding for, or none at all."""
    rows = embedding_rows(model)
    if not tokens:
        raise BackendError(
            "The tokenizer turns a sentence into no tokens: it is not this model's. Fetch its "
            "files again, or choose another revision."
        )
    if (largest := max(tokens)) >= rows:
        raise BackendError(
            f"The tokenizer turns a sentence into token {largest} "
            f'("{visible(clipped(str(tokenizer.decode([largest])), 50))}"), and the model has '
            f"embeddings for {rows:,} tokens only: tokenizer and weights do not belong together. "
            "Fetch both again from one revision, or choose another model."
        )


def probe_of(logits: torch.Tensor, dtype: str) -> Probe:
    """What a card keeps of a probe."""
    tokens = tuple(int(token) for token in logits.argmax(dim=-1))
    digest = probe_digest(PROBES, dtype, tokens)
    return Probe(texts=PROBES, dtype=dtype, top_tokens=tokens, digest=digest)


def adapter_moves(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor
) -> bool:
    """Whether the attached adapter changes the likeliest token at any place of the probe."""
    with model.disable_adapter():  # type: ignore[operator]
        without = probe_logits(model, tokenizer)
    return bool((logits.argmax(dim=-1) != without.argmax(dim=-1)).any())


def agreement(left: Probe, right: Probe) -> float:
    """Share of places where both find the same token the likeliest; 0 for other texts."""
    if left.texts != right.texts or len(left.top_tokens) != len(right.top_tokens):
        return 0.0
    pairs = zip(left.top_tokens, right.top_tokens, strict=True)
    return sum(a == b for a, b in pairs) / len(left.top_tokens)


def refuse_stranger(key: str, recorded: Probe, found: Probe) -> None:
    """Raise if the loaded model is not the one whose probe is on the card."""
    share = agreement(recorded, found)
    if share < SAME_MODEL:
        raise BackendError(
            f"{key}: the loaded weights agree with the probe in model.json on {share:.0%} of the "
            "likeliest tokens: they are not the weights that were identified, or this version of "
            "the libraries loads them differently. Run the stage that makes its model.json again."
        )


def refuse_unlike_loads(key: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """Raise if two loads of the same files do not give the same logits."""
    noise = largest_difference(first, second)
    if noise > 0:
        raise BackendError(
            f"{key}: two loads of the same files give logits that differ by {noise:g}: something "
            "is drawn at random while loading. Numbers of such a model mean nothing."
        )


def refuse_copy(card: ModelCard, parent: ModelCard, own: torch.Tensor, its: torch.Tensor) -> None:
    """Raise if a variant answers exactly as the one that it claims to be tuned from.

    Raises:
        BackendError: the logits are the same, so its numbers would be its parent's.
    """
    if own.shape != its.shape or largest_difference(own, its) > 0:
        return
    same = [file.path for file in _weights(card) if file.sha256 in _hashes(parent)]
    why = (
        f"its weight files are its parent's own, byte by byte ({', '.join(same)})"
        if same
        else "its files differ, what they hold does not: a copy, or a merge of an adapter that was "
        "not trained or was lost in rounding"
    )
    raise BackendError(
        f"{card.key}: on {len(PROBES)} probe sentences its logits are exactly those of its parent "
        f"{parent.key}: {why}. Its numbers would be its parent's. Take the weights that were meant."
    )


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest absolute difference of two tensors of one shape."""
    return float((left - right).abs().max())


def _weights(card: ModelCard) -> list[FileHash]:
    files = card.base.converted or card.base.files
    return [file for file in files if file.path.lower().endswith((".safetensors", ".gguf"))]


def _hashes(card: ModelCard) -> set[str]:
    return {file.sha256 for file in _weights(card)}


def _prove_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, card: ModelCard
) -> None:
    with model.disable_adapter():
        parent = probe_logits(model, tokenizer)
    if largest_difference(logits, parent) == 0:
        raise BackendError(
            f"{card.key}: with and without its adapter {card.adapters[-1].key} the logits on "
            f"{len(PROBES)} probe sentences are the same: the adapter did not load, or has no "
            "effect at this dtype. Its numbers would be its parent's."
        )

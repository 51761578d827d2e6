"""Check on fixed sentences that loaded weights are those of the variant.

A missing adapter, a merged copy that equals the base and a LoRA without effect all give the
parent's outputs, and nothing else in a pipeline would notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.weights.pretrained import embedding_rows
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, LogitProbe, ModelIdentity, probe_digest
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = (
    "The weather this morning was",
    "Question: what is the capital of France? Answer:",
    "She looked at him and said that he",
)
"""Fixed texts on which a variant must differ from its parent. Our choice: three different ones."""

MIN_TOP_TOKEN_AGREEMENT = 0.75
"""Fraction of most likely tokens that must match the card: another dtype or device may change a
near tie, another model changes most of them. Our choice."""


def verify_weights(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, card: ModelIdentity
) -> torch.Tensor:
    """Probe a loaded model: its logits are finite and reproducible, match its card, and its last
    adapter changes them.

    Returns:
        (token, vocabulary) logits, see `probe_logits`.

    Raises:
        BackendError: one of these checks fails.
    """
    logits = probe_logits(model, tokenizer)
    if not logits.isfinite().all():
        raise BackendError(
            f"{card.key}: logits on the probe sentences are not finite. Try another "
            "generation.dtype (float32, bfloat16); else the weights are damaged."
        )
    noise = largest_difference(logits, probe_logits(model, tokenizer))
    if noise > 0:
        raise BackendError(
            f"{card.key}: repeating the probe gives logits that differ by {noise:g}. This device "
            "is not deterministic, so no variant can be distinguished from its parent. Use "
            "another device."
        )
    if card.probe:
        require_same_model(card.key, card.probe, probe_of(logits, card.probe.dtype))
    if card.adapters:
        _verify_adapter(model, tokenizer, logits, card)  # type: ignore[arg-type]
    return logits


def probe_logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """Return (token, vocabulary) logits of all probe sentences in order, float32, on the CPU."""
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
    """Raise if the tokenizer gives no tokens, or one for which the model has no embedding."""
    rows = embedding_rows(model)
    if not tokens:
        raise BackendError(
            "The tokenizer gives no tokens for a sentence, so it is not this model's. Fetch its "
            "files again, or choose another revision."
        )
    if (largest := max(tokens)) >= rows:
        raise BackendError(
            f"The tokenizer gives token {largest} "
            f'("{escape_control_chars(truncate_text(str(tokenizer.decode([largest])), 50))}") '
            "for a sentence, but the "
            f"model has only {rows:,} embeddings: tokenizer and weights do not match. "
            "Fetch both again from one revision, or choose another model."
        )


def probe_of(logits: torch.Tensor, dtype: str) -> LogitProbe:
    """Build the probe that is stored on a card."""
    tokens = tuple(int(token) for token in logits.argmax(dim=-1))
    digest = probe_digest(PROBES, dtype, tokens)
    return LogitProbe(texts=PROBES, dtype=dtype, top_tokens=tokens, digest=digest)


def adapter_moves(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor
) -> bool:
    """Return whether the attached adapter changes the most likely token anywhere in the probe."""
    with model.disable_adapter():  # type: ignore[operator]
        without = probe_logits(model, tokenizer)
    return bool((logits.argmax(dim=-1) != without.argmax(dim=-1)).any())


def top_token_agreement(left: LogitProbe, right: LogitProbe) -> float:
    """Return the fraction of positions with the same most likely token; 0 for other texts."""
    if left.texts != right.texts or len(left.top_tokens) != len(right.top_tokens):
        return 0.0
    pairs = zip(left.top_tokens, right.top_tokens, strict=True)
    return sum(a == b for a, b in pairs) / len(left.top_tokens)


def require_same_model(key: str, recorded: LogitProbe, actual: LogitProbe) -> None:
    """Raise if the loaded model does not match the probe on the card."""
    share = top_token_agreement(recorded, actual)
    if share < MIN_TOP_TOKEN_AGREEMENT:
        raise BackendError(
            f"{key}: the loaded weights agree with the probe in model.json on {share:.0%} of the "
            "most likely tokens: they are other weights, or this version of the libraries loads "
            "them differently. Run the stage that writes its model.json again."
        )


def require_deterministic_load(key: str, first: torch.Tensor, second: torch.Tensor) -> None:
    """Raise if two loads of the same files give different logits."""
    noise = largest_difference(first, second)
    if noise > 0:
        raise BackendError(
            f"{key}: two loads of the same files give logits that differ by {noise:g}: some "
            "weights are initialised at random, so no result would be valid. Use other files."
        )


def require_differs_from_parent(
    card: ModelIdentity, parent: ModelIdentity, logits: torch.Tensor, parent_logits: torch.Tensor
) -> None:
    """Raise if a variant gives exactly the logits of its parent.

    Raises:
        BackendError: the logits are equal, so its results would be its parent's.
    """
    if logits.shape != parent_logits.shape or largest_difference(logits, parent_logits) > 0:
        return
    same = [file.path for file in _weight_files(card) if file.sha256 in _weight_hashes(parent)]
    reason = (
        f"its weight files are identical to its parent's ({', '.join(same)})"
        if same
        else "its files differ, but not their content: a copy, or a merge of an adapter that was "
        "not trained or was lost in rounding"
    )
    raise BackendError(
        f"{card.key}: on {len(PROBES)} probe sentences its logits equal those of its parent "
        f"{parent.key}: {reason}. Its results would be its parent's. Use the intended weights."
    )


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    return float((left - right).abs().max())


def _weight_files(card: ModelIdentity) -> list[FileHash]:
    files = card.base.converted or card.base.files
    return [file for file in files if file.path.lower().endswith((".safetensors", ".gguf"))]


def _weight_hashes(card: ModelIdentity) -> set[str]:
    return {file.sha256 for file in _weight_files(card)}


def _verify_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, card: ModelIdentity
) -> None:
    with model.disable_adapter():
        parent = probe_logits(model, tokenizer)
    if largest_difference(logits, parent) == 0:
        raise BackendError(
            f"{card.key}: with and without its adapter {card.adapters[-1].key} the logits on "
            f"{len(PROBES)} probe sentences are equal: the adapter did not load, or has no "
            "effect at this dtype. Its results would be its parent's."
        )

"""Load a guard model: a causal language model that answers a fixed question about a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.backends.checkpoint_files.weight_files import refuse_unhashed_vocabulary
from toxtrail.backends.huggingface.weights.adapters import apply_adapter
from toxtrail.backends.huggingface.weights.load import merge_adapter
from toxtrail.backends.huggingface.weights.pretrained import load_base, load_tokenizer
from toxtrail.backends.protocols import Asset, Assets
from toxtrail.backends.scorers.guard import GuardScorer
from toxtrail.backends.scorers.guard_prompt import GuardPrompt, refusal_prompt
from toxtrail.backends.scorers.hf_classifier import check_files, converted_hashes, with_safetensors
from toxtrail.backends.scorers.sequence import window_tokens
from toxtrail.config.scorer_kinds.guard import GuardConfig, GuardQuestion
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def known_heads(config: GuardQuestion, folder: Path | None) -> tuple[str, ...]:
    """Return the names of the answers."""
    return tuple(config.answers)


def load(config: GuardConfig, assets: Assets, device: str, batch_size: int) -> GuardScorer:
    """Load from a folder or Hub repo, and apply the adapter if there is one; no code of the repo is
    run.

    Raises:
        ConfigError: the template fails or loses a text, or an answer is not a single token.
        BackendError: transformers cannot load it as a causal language model, a file is damaged or
            not hashed, or its tokenizer does not know the place of a token in a text.
    """
    asset = with_safetensors(assets.fetch(config.uri, config.sha256))
    check_files(asset, config.uri)
    tokenizer = guard_tokenizer(asset, config.uri)
    model, loaded = load_base(asset.path, config.uri, config.dtype, device), {"weights": asset}
    if config.adapter is not None:
        uri = config.adapter.uri
        adapter = loaded["adapter"] = with_safetensors(assets.fetch(uri, config.adapter.sha256))
        model = merge_adapter(apply_adapter(model, adapter.path, uri), uri)
    window = window_tokens(model.config, tokenizer)
    prompt = GuardPrompt(tokenizer, config, window, config.uri)
    pad = tokenizer.pad_token_id
    scorer = GuardScorer(
        model, prompt, config.max_other, 0 if pad is None else pad, window, batch_size,
        config.combination, refusal_prompt(tokenizer, config, window, config.uri),
    )  # fmt: skip
    scorer.converted = converted_hashes(**loaded)
    return scorer


def guard_tokenizer(asset: Asset, name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a guard model.

    Raises:
        BackendError: a file is damaged or not hashed, or it does not know the place of a token in a
            text.
    """
    tokenizer = load_tokenizer(asset.path, name)
    hashed = {file.path for file in asset.files}
    refuse_unhashed_vocabulary(tokenizer.vocab_files_names, asset.path, name, hashed)
    if not tokenizer.is_fast:
        raise BackendError(
            f"{name} has no tokenizer.json, so the place of a token in a text is not known. "
            "Choose a guard model with a tokenizer.json."
        )
    return tokenizer

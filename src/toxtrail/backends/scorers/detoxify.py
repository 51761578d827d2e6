"""Detoxify checkpoints: the released ones by name, custom ones by file.

The package's own loader unpickles before any check, asks the hub even when told not to, and cuts
texts at 512 tokens without a word. Here the hash comes first, `base` makes it offline, and long
texts
are scored in windows. Up to the window the scores are the package's own (tests hold them together).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.base import Assets
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.config import ScorerConfig
from toxtrail.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = {
    "toxic": "toxicity",
    "identity_hate": "identity_attack",
    "severe_toxic": "severe_toxicity",
}
"""Class names of the `original` models, as Detoxify itself renames them."""


def load(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> SequenceClassifier:
    """Load a checkpoint whose hash has been verified.

    Without `base`, the encoder's config and tokenizer come from the hub under the name that the
    checkpoint gives; with it, from that folder or pinned repo.

    Raises:
        ConfigError: the checkpoint can only be unpickled whole and is not pinned.
        BackendError: it is no Detoxify checkpoint, or its weights do not fit the encoder.
    """
    import transformers

    asset = assets.fetch(config.uri, config.sha256)
    checkpoint = _unpickled(asset.path, config)
    try:
        made = checkpoint["config"]["arch"]["args"]
        classes = checkpoint["config"]["dataset"]["args"]["classes"]
        model_class = getattr(transformers, made["model_name"])
        tokenizer_class = getattr(transformers, made["tokenizer_name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"{config.uri} is no Detoxify checkpoint: {error!r}.") from error
    source = assets.fetch(config.base.uri, config.base.sha256).path if config.base else None
    encoder = source or made["model_type"]
    settings = model_class.config_class.from_pretrained(
        encoder, num_labels=made["num_classes"], local_files_only=source is not None
    )
    tokenizer = tokenizer_class.from_pretrained(encoder, local_files_only=source is not None)
    model = model_class(settings)
    _fill(model, checkpoint["state_dict"], config.uri)
    heads = [NAMES.get(name, name) for name in classes]
    return SequenceClassifier(model.to(device), tokenizer, heads, "sigmoid", batch_size)


def _unpickled(path: Path, config: ScorerConfig) -> Any:
    """Tensors and plain values only; a whole pickle only if params.yaml pins its hash."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if config.sha256 is None:
            raise ConfigError(
                f"{config.uri} holds more than tensors, so loading it can run code: it is "
                "read only "
                "with its sha256 in params.yaml. `toxtrail pin` writes it."
            ) from None
        return torch.load(path, map_location="cpu", weights_only=False)


def _fill(model: PreTrainedModel, weights: Any, uri: str) -> None:
    """Every weight of the model must come from the checkpoint, and every one there must be used."""
    result = model.load_state_dict(weights, strict=False)
    unknown = [name for name in result.unexpected_keys if not name.endswith("position_ids")]
    if result.missing_keys or unknown:
        raise BackendError(
            f"{uri} does not fit its encoder: missing {result.missing_keys[:3]}, unknown "
            f"{unknown[:3]}. "
            "Is `base` the encoder that it was trained on?"
        )

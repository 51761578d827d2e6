"""Detoxify checkpoints: the released ones by name, custom ones by file.

The package's own loader unpickles before any check, asks the hub even when told not to, and cuts
texts at 512 tokens without a word. Here the hash comes first, nothing but tensors and plain values
is read, `base` makes it offline, and long texts are scored in windows. Up to the window the scores
are the package's own (tests hold them together).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import (
    content_problem,
    refuse_outside_names,
    refuse_unhashed_vocabulary,
)
from toxtrail.backends.protocols import Asset, Assets
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAMES = {
    "toxic": "toxicity",
    "identity_hate": "identity_attack",
    "severe_toxic": "severe_toxicity",
}
"""Class names of the `original` models, as Detoxify itself renames them."""


HOLDS_MORE = (
    "holds more than tensors and plain values, so loading it could run code: it is not read. Keep "
    "what a score needs, where you trust the file: c = torch.load(OLD, weights_only=False); "
    "torch.save({'config': {'arch': {'args': dict(c['config']['arch']['args'])}, 'dataset': "
    "{'args': {'classes': list(c['config']['dataset']['args']['classes'])}}}, 'state_dict': "
    "c['state_dict']}, NEW)."
)


OTHER_BASE = "Is `base` the encoder that it was trained on?"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> SequenceClassifier:
    """Load a checkpoint whose hash has been verified.

    Without `base`, the encoder's config and tokenizer come from the hub under the name that the
    checkpoint gives; with it, from that folder or pinned repo.

    Raises:
        BackendError: it is no Detoxify checkpoint, holds more than tensors and plain values, or its
            weights do not fit the encoder.
    """
    asset = assets.fetch(config.uri, config.sha256)
    checkpoint = read_checkpoint(asset.path, config.uri)
    made = _described(checkpoint, config.uri)
    source = assets.fetch(config.base.uri, config.base.sha256) if config.base else None
    model, tokenizer = _encoder(made, source, config)
    _fill(model, checkpoint["state_dict"], config.uri)
    heads = [NAMES.get(name, name) for name in made.classes]
    return SequenceClassifier(model.to(device), tokenizer, heads, "sigmoid", batch_size)


class Made(NamedTuple):
    """What a checkpoint says of itself."""

    model: type[PreTrainedModel]
    tokenizer: type[PreTrainedTokenizerBase]
    encoder: str
    """A repo of the hub, where config and tokenizer come from if `base` is not given."""
    classes: tuple[str, ...]


def _described(checkpoint: Any, name: str) -> Made:
    """Names are looked up among transformers' own classes of the right kind only."""
    import transformers

    try:
        made = checkpoint["config"]["arch"]["args"]
        classes = tuple(str(one) for one in checkpoint["config"]["dataset"]["args"]["classes"])
        model = getattr(transformers, made["model_name"])
        tokenizer = getattr(transformers, made["tokenizer_name"])
        encoder = str(made["model_type"])
        weights = checkpoint["state_dict"]
        right = (
            issubclass(model, transformers.PreTrainedModel)
            and issubclass(tokenizer, transformers.PreTrainedTokenizerBase)
            and model.__name__.endswith("ForSequenceClassification")
            and int(made["num_classes"]) == len(classes)
            and isinstance(weights, Mapping)
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BackendError(f"{name} is no Detoxify checkpoint: {error!r}.") from error
    if not right:
        raise BackendError(
            f"{name} is no Detoxify checkpoint: it names {model!r}, {tokenizer!r} and "
            f"{len(classes)} classes. A sequence classifier of transformers, its tokenizer and "
            "num_classes names are expected."
        )
    return Made(model, tokenizer, encoder, classes)


def _encoder(
    made: Made, source: Asset | None, config: ScorerConfig
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The classifier without its weights, and its tokenizer: from `base`, or from the hub."""
    if source is not None:
        hashed = {file.path for file in source.files}
        refuse_outside_names(source.path, source.uri, hashed)
    elif not HUB_NAME.fullmatch(made.encoder) or Path(made.encoder).exists():
        raise BackendError(
            f"{config.uri} names {made.encoder!r} as its encoder, which is not a repo of the hub "
            "or also a file or folder here. Name the encoder's folder or repo as `base`."
        )
    place = source.path if source else made.encoder
    local: dict[str, Any] = {"local_files_only": source is not None}
    try:
        settings = made.model.config_class.from_pretrained(  # type: ignore[union-attr]
            place, num_labels=len(made.classes), **local
        )
        tokenizer = made.tokenizer.from_pretrained(place, **local)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"{config.uri}: config and tokenizer of its encoder {place} cannot be had ({first}). "
            "Name a folder or pinned repo that has them as `base`."
        ) from error
    if source is not None:
        refuse_unhashed_vocabulary(tokenizer.vocab_files_names, source.path, source.uri, hashed)
    return made.model(settings), tokenizer


def read_checkpoint(path: Path, name: str) -> Any:
    """Tensors and plain values; nothing that could run code is read, pinned or not.

    Raises:
        BackendError: the file holds more than these, or is damaged.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = content_problem(path, "pickle")
        raise BackendError(f"{name} {problem or HOLDS_MORE}") from error
    except (RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        problem = content_problem(path, "pickle") or "is damaged. Download it again."
        raise BackendError(f"{name} {problem}") from error


def _fill(model: PreTrainedModel, weights: Any, uri: str) -> None:
    """Every weight of the model must come from the checkpoint, and every one there must be used."""
    try:
        result = model.load_state_dict(weights, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:  # another shape, or no tensor
        raise BackendError(f"{uri} does not fit its encoder: {error}. {OTHER_BASE}") from error
    if result.missing_keys:
        raise BackendError(
            f"{uri} does not fit its encoder: missing {result.missing_keys[:3]}. {OTHER_BASE}"
        )
    refuse_unplaced(uri, model, result.unexpected_keys)

"""Load Detoxify checkpoints: published ones by name, custom ones by file.

The package's own loader unpickles before any check, queries the Hub even in offline mode, and
truncates texts at 512 tokens without a warning. Here the hash is verified first, only tensors and
plain values are read, `base` allows offline use, and long texts are scored in windows. Up to the
window length the scores equal the package's (a test compares them).
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
from toxtrail.config.asset_uris import DetoxifyUri, parse_uri
from toxtrail.config.scorer_kinds.detoxify import DetoxifyConfig
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PUBLISHED_HEADS = (
    "toxicity", "severe_toxicity", "obscene", "identity_attack", "insult", "threat",
    "sexual_explicit", "male", "female", "homosexual_gay_or_lesbian", "christian", "jewish",
    "muslim", "black", "white", "psychiatric_or_mental_illness",
)  # fmt: skip
"""Heads of the checkpoints that the package publishes, under its names."""
HEAD_NAMES = {
    "toxic": "toxicity",
    "identity_hate": "identity_attack",
    "severe_toxic": "severe_toxicity",
}
"""Class names of the `original` models -> Detoxify's names for them."""


UNSAFE_CONTENT = (
    "contains more than tensors and plain values, so loading it could run code; it is not read. If "
    "you trust the file, save the required parts: c = torch.load(OLD, weights_only=False); "
    "torch.save({'config': {'arch': {'args': dict(c['config']['arch']['args'])}, 'dataset': "
    "{'args': {'classes': list(c['config']['dataset']['args']['classes'])}}}, 'state_dict': "
    "c['state_dict']}, NEW)."
)


BASE_HINT = "Is `base` the encoder that it was trained on?"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def known_heads(config: DetoxifyConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads that a published checkpoint can have; empty for a custom one."""
    return PUBLISHED_HEADS if isinstance(parse_uri(config.uri), DetoxifyUri) else ()


def load(
    config: DetoxifyConfig, assets: Assets, device: str, batch_size: int
) -> SequenceClassifier:
    """Load a checkpoint whose hash has been verified.

    Without `base`, the encoder's config and tokenizer come from the Hub under the name in the
    checkpoint; with it, from that folder or pinned repo.

    Raises:
        BackendError: it is not a Detoxify checkpoint, contains more than tensors and plain values,
            or its weights do not fit the encoder.
    """
    asset = assets.fetch(config.uri, config.sha256)
    checkpoint = read_checkpoint(asset.path, config.uri)
    info = _checkpoint_info(checkpoint, config.uri)
    source = assets.fetch(config.base.uri, config.base.sha256) if config.base else None
    model, tokenizer = _build_encoder(info, source, config)
    _load_weights(model, checkpoint["state_dict"], config.uri)
    heads = [HEAD_NAMES.get(name, name) for name in info.classes]
    return SequenceClassifier(
        model.to(device), tokenizer, heads, "sigmoid", batch_size, config.combination
    )


class CheckpointInfo(NamedTuple):
    """Metadata of a checkpoint."""

    model: type[PreTrainedModel]
    tokenizer: type[PreTrainedTokenizerBase]
    encoder: str
    """A Hub repo, from which config and tokenizer come if `base` is not given."""
    classes: tuple[str, ...]


def _checkpoint_info(checkpoint: Any, name: str) -> CheckpointInfo:
    """Read a checkpoint's metadata; class names must be transformers classes of the right kind."""
    import transformers

    try:
        args = checkpoint["config"]["arch"]["args"]
        classes = tuple(
            str(class_name) for class_name in checkpoint["config"]["dataset"]["args"]["classes"]
        )
        model = getattr(transformers, args["model_name"])
        tokenizer = getattr(transformers, args["tokenizer_name"])
        encoder = str(args["model_type"])
        weights = checkpoint["state_dict"]
        is_valid = (
            issubclass(model, transformers.PreTrainedModel)
            and issubclass(tokenizer, transformers.PreTrainedTokenizerBase)
            and model.__name__.endswith("ForSequenceClassification")
            and int(args["num_classes"]) == len(classes)
            and isinstance(weights, Mapping)
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BackendError(f"{name} is not a Detoxify checkpoint: {error!r}.") from error
    if not is_valid:
        raise BackendError(
            f"{name} is not a Detoxify checkpoint: it names {model!r}, {tokenizer!r} and "
            f"{len(classes)} classes. Expected a transformers sequence classifier, its tokenizer "
            "and num_classes names."
        )
    return CheckpointInfo(model, tokenizer, encoder, classes)


def _build_encoder(
    info: CheckpointInfo, source: Asset | None, config: DetoxifyConfig
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Build the classifier without its weights, and its tokenizer, from `base` or the Hub."""
    if source is not None:
        hashed = {file.path for file in source.files}
        refuse_outside_names(source.path, source.uri, hashed)
    elif not HUB_NAME.fullmatch(info.encoder) or Path(info.encoder).exists():
        raise BackendError(
            f"{config.uri} names {info.encoder!r} as its encoder, which is not a Hub repo name, "
            "or is also a local file or folder. Set `base` to the encoder's folder or repo."
        )
    path = source.path if source else info.encoder
    options: dict[str, Any] = {"local_files_only": source is not None}
    try:
        settings = info.model.config_class.from_pretrained(  # type: ignore[union-attr]
            path, num_labels=len(info.classes), **options
        )
        tokenizer = info.tokenizer.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"{config.uri}: cannot load config and tokenizer of its encoder {path} ({reason}). "
            "Set `base` to a folder or pinned repo that has them."
        ) from error
    if source is not None:
        refuse_unhashed_vocabulary(tokenizer.vocab_files_names, source.path, source.uri, hashed)
    return info.model(settings), tokenizer


def read_checkpoint(path: Path, name: str) -> Any:
    """Read tensors and plain values; anything that could run code is refused, pinned or not.

    Raises:
        BackendError: the file contains anything else, or is damaged.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        problem = content_problem(path, "pickle")
        raise BackendError(f"{name} {problem or UNSAFE_CONTENT}") from error
    except (RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError) as error:
        problem = content_problem(path, "pickle") or "is damaged. Download it again."
        raise BackendError(f"{name} {problem}") from error


def _load_weights(model: PreTrainedModel, weights: Any, uri: str) -> None:
    """Load the weights; every weight of the model must be in the checkpoint, and vice versa."""
    try:
        result = model.load_state_dict(weights, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:  # another shape, or not a tensor
        raise BackendError(f"{uri} does not fit its encoder: {error}. {BASE_HINT}") from error
    if result.missing_keys:
        raise BackendError(
            f"{uri} does not fit its encoder: missing {result.missing_keys[:3]}. {BASE_HINT}"
        )
    refuse_unplaced(uri, model, result.unexpected_keys)

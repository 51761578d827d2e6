"""Load Detoxify checkpoints: published ones by name, custom ones by file.

The package builds the model. Its own loader is not used: it downloads the checkpoint and unpickles
it before any check, and queries the Hub for the encoder. Here the hash is verified first, only
tensors and plain values are read, and config and tokenizer come from `base`.

`Detoxify.predict` truncates a text at the encoder's window (512 tokens) without a warning, so it
scores the first window only. Here each head is the largest of all windows, of which the first has
the same tokens: equal scores for texts that fit in a window, and never a lower one for longer texts
(a test compares both).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import (
    content_problem,
    refuse_outside_names,
    refuse_unhashed_vocabulary,
)
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.protocols import Asset, Assets
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.backends.silence import silence_libraries
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


BASE_HINT = "Set `base` to the encoder that it was trained on, with its config and tokenizer."


def known_heads(config: DetoxifyConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads that a published checkpoint can have; empty for a custom one."""
    return PUBLISHED_HEADS if isinstance(parse_uri(config.uri), DetoxifyUri) else ()


def load(
    config: DetoxifyConfig, assets: Assets, device: str, batch_size: int
) -> SequenceClassifier:
    """Load a checkpoint whose hash has been verified.

    Raises:
        BackendError: it is not a Detoxify checkpoint, contains more than tensors and plain values,
            or its weights do not fit the encoder.
    """
    asset = assets.fetch(config.uri, config.sha256)
    checkpoint = read_checkpoint(asset.path, config.uri)
    info = _checkpoint_info(checkpoint, config.uri)
    source = assets.fetch(config.base.uri, config.base.sha256)
    model, tokenizer = _build_model(info, checkpoint["state_dict"], source, config.uri)
    heads = [HEAD_NAMES.get(name, name) for name in info.classes]
    return SequenceClassifier(
        model.to(device),  # type: ignore[arg-type]
        tokenizer,
        heads,
        "sigmoid",
        batch_size,
        config.combination,
    )


class CheckpointInfo(NamedTuple):
    """Metadata of a checkpoint."""

    model_name: str
    """Class of the classifier, in transformers."""
    tokenizer_name: str
    """Class of its tokenizer, in transformers."""
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
        is_valid = (
            issubclass(model, transformers.PreTrainedModel)
            and issubclass(tokenizer, transformers.PreTrainedTokenizerBase)
            and model.__name__.endswith("ForSequenceClassification")
            and int(args["num_classes"]) == len(classes)
            and isinstance(checkpoint["state_dict"], Mapping)
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BackendError(f"{name} is not a Detoxify checkpoint: {error!r}.") from error
    if not is_valid:
        raise BackendError(
            f"{name} is not a Detoxify checkpoint: it names {model!r}, {tokenizer!r} and "
            f"{len(classes)} classes. Expected a transformers sequence classifier, its tokenizer "
            "and num_classes names."
        )
    return CheckpointInfo(args["model_name"], args["tokenizer_name"], classes)


def _build_model(
    info: CheckpointInfo, weights: Mapping[str, Any], source: Asset, uri: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Build the classifier and its tokenizer by the package, from the files of `base`.

    The package leaves missing weights random, ignores others, and rounds to the precision in the
    encoder's config, so all weights are placed again, in float32.
    """
    from detoxify.detoxify import get_model_and_tokenizer

    hashed = {file.path for file in source.files}
    refuse_outside_names(source.path, source.uri, hashed)
    what = f"{uri} does not fit its encoder {source.uri}"
    if "config.json" not in hashed:  # transformers would use the default settings of the class
        raise BackendError(f"{what}: it has no config.json. {BASE_HINT}")
    with library_errors(what, BASE_HINT), silence_libraries():
        model, tokenizer = get_model_and_tokenizer(
            str(source.path), info.model_name, info.tokenizer_name, len(info.classes), weights
        )
    refuse_unhashed_vocabulary(tokenizer.vocab_files_names, source.path, source.uri, hashed)
    model = model.float()
    placed = model.load_state_dict(weights, strict=False)
    if placed.missing_keys:
        raise BackendError(f"{what}: missing {placed.missing_keys[:3]}. {BASE_HINT}")
    refuse_unplaced(uri, model, placed.unexpected_keys)
    return model, tokenizer


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

"""Load any Hugging Face sequence classifier, e.g. the paper's scorer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toxtrail.backends.assets.cache_folder import default_cache
from toxtrail.backends.checkpoint_files.pickled_weights import safetensors_copy
from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import (
    checkpoint_files,
    has_only_pickled_weights,
    refuse_outside_names,
    refuse_unhashed_vocabulary,
    stored_tensors,
)
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.protocols import Asset, Assets
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.backends.silence import silence_libraries
from toxtrail.config.scorer_kinds.hf_classifier import HuggingFaceClassifierConfig
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.provenance.identity import tree_sha256
from toxtrail.regular_files import read_text

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def known_heads(config: HuggingFaceClassifierConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the labels in a local folder's config, read as transformers does; empty if unknown.

    Unnamed labels are LABEL_0, LABEL_1, ...
    """
    if folder is None:
        return ()
    try:
        settings: Any = json.loads(read_text(folder / "config.json"))
        labels = settings.get("id2label") or range(int(settings.get("num_labels", 2)))
        if isinstance(labels, range):
            return tuple(f"LABEL_{number}" for number in labels)
        return tuple(str(name) for name in labels.values())
    except (DataError, OSError, ValueError, TypeError, AttributeError):
        return ()  # loading it reports the problem


def load(
    config: HuggingFaceClassifierConfig, assets: Assets, device: str, batch_size: int
) -> SequenceClassifier:
    """Load from a folder or Hub repo; no code of the repo is run. Pickled weights are converted to
    safetensors first.

    Raises:
        ConfigError: how logits become probabilities is not configured.
        BackendError: transformers cannot load it as a classifier, a file is damaged, weights are
            missing or unexpected, or a file that is not hashed would be read.
    """
    asset = with_safetensors(assets.fetch(config.uri, config.sha256))
    check_files(asset, config.uri)
    model, tokenizer = _load_model(asset, config.uri)
    labels = model.config.id2label
    heads = [str(labels[i]) for i in range(len(labels))]
    activation_name = activation(config, model.config)
    scorer = SequenceClassifier(
        model.to(device), tokenizer, heads, activation_name, batch_size, config.combination
    )
    scorer.converted = converted_hashes(weights=asset)
    return scorer


def converted_hashes(**loaded: Asset) -> dict[str, str]:
    """Return name -> SHA-256 of the tree of the copy, for weights that `with_safetensors`
    converted."""
    hashes = {name: tree_sha256(asset.files) for name, asset in loaded.items()}
    return {name: sha256 for name, sha256 in hashes.items() if sha256 != loaded[name].sha256}


def with_safetensors(asset: Asset) -> Asset:
    """Return a model or an adapter with safetensors weights: itself, or its copy in the asset
    cache.

    Raises:
        BackendError: its weights are pickled and contain more than tensors.
    """
    names = [file.path for file in asset.files]
    if not asset.path.is_dir() or not has_only_pickled_weights(names):
        return asset
    copy = safetensors_copy(asset, default_cache())
    return replace(asset, path=copy.folder, files=copy.files)


def check_files(asset: Asset, name: str) -> None:
    """Check a classifier's files before they are loaded.

    Raises:
        BackendError: it is not a folder with intact safetensors files, or one is not hashed.
    """
    if not asset.path.is_dir():
        raise BackendError(
            f"{name} is a single file. Give the folder with config.json, model.safetensors and the "
            "tokenizer."
        )
    hashed = {file.path for file in asset.files}
    refuse_outside_names(asset.path, name, hashed)
    for file in checkpoint_files(asset.path, name, hashed):
        stored_tensors(file, name)


def _load_model(asset: Asset, name: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the model; every weight must be in the files, and every weight of the files used."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    cure = "Choose a safetensors classifier whose files belong together."
    with library_errors(f"{name} does not load as a classifier", cure), silence_libraries():
        tokenizer = AutoTokenizer.from_pretrained(asset.path, **options)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            asset.path, use_safetensors=True, output_loading_info=True, **options
        )
    if missing := sorted(report["missing_keys"]):
        raise BackendError(
            f"{name} lacks the weights {', '.join(missing[:3])}, which would be random: it is not "
            "a trained classifier. Choose another scorer."
        )
    refuse_unplaced(name, model, report["unexpected_keys"])
    hashed = {file.path for file in asset.files}
    refuse_unhashed_vocabulary(tokenizer.vocab_files_names, asset.path, name, hashed)
    return model, tokenizer


def activation(
    config: HuggingFaceClassifierConfig, model: PretrainedConfig
) -> Literal["softmax", "sigmoid"]:
    """Return the activation of params.yaml, else of the model's config, else sigmoid for one logit.

    Raises:
        ConfigError: none of them applies.
    """
    if config.activation is not None:
        return config.activation
    if model.problem_type == "multi_label_classification" or model.num_labels == 1:
        return "sigmoid"
    if model.problem_type == "single_label_classification":
        return "softmax"
    raise ConfigError(
        f"{config.uri} does not declare whether its {model.num_labels} labels are mutually "
        "exclusive. Set activation: softmax (exclusive) or sigmoid (not exclusive)."
    )

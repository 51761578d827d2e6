"""Any Hugging Face sequence classifier with safetensors weights, such as the paper's own scorer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import (
    checkpoint_files,
    refuse_outside_names,
    refuse_unhashed_vocabulary,
    stored_tensors,
)
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.protocols import Asset, Assets
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.backends.silence import quiet
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def load(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> SequenceClassifier:
    """Load from a folder or hub repo; no code of the repo is run, no pickle is read.

    Raises:
        ConfigError: nothing says how logits become probabilities.
        BackendError: transformers cannot load it as a classifier, a file is damaged, weights are
            missing or have no place, or a file would be read that is not hashed.
    """
    asset = assets.fetch(config.uri, config.sha256)
    check_files(asset, config.uri)
    model, tokenizer = _loaded(asset, config.uri)
    labels = model.config.id2label
    heads = [str(labels[i]) for i in range(len(labels))]
    way = activation(config, model.config)
    return SequenceClassifier(model.to(device), tokenizer, heads, way, batch_size)


def check_files(asset: Asset, name: str) -> None:
    """Look at a classifier's files before they are loaded.

    Raises:
        BackendError: it is no folder with whole safetensors files, or one is not hashed.
    """
    if not asset.path.is_dir():
        raise BackendError(
            f"{name} is a single file: name the folder with config.json, model.safetensors and the "
            "tokenizer."
        )
    hashed = {file.path for file in asset.files}
    refuse_outside_names(asset.path, name, hashed)
    for file in checkpoint_files(asset.path, name, hashed):
        stored_tensors(file, name)


def _loaded(asset: Asset, name: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """Every weight found in the files, and every weight of the files used."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    plain: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    cure = "Name a classifier in safetensors whose files belong together."
    with library_errors(f"{name} does not load as a classifier", cure), quiet():
        tokenizer = AutoTokenizer.from_pretrained(asset.path, **plain)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            asset.path, use_safetensors=True, output_loading_info=True, **plain
        )
    if missing := sorted(report["missing_keys"]):
        raise BackendError(
            f"{name} lacks the weights {', '.join(missing[:3])}: it is no trained classifier, and "
            "random weights would score."
        )
    refuse_unplaced(name, model, report["unexpected_keys"])
    hashed = {file.path for file in asset.files}
    refuse_unhashed_vocabulary(tokenizer.vocab_files_names, asset.path, name, hashed)
    return model, tokenizer


def activation(config: ScorerConfig, model: PretrainedConfig) -> Literal["softmax", "sigmoid"]:
    """As params.yaml says, else as the model says, else one logit means sigmoid.

    Raises:
        ConfigError: none of them does.
    """
    if config.activation is not None:
        return config.activation
    if model.problem_type == "multi_label_classification" or model.num_labels == 1:
        return "sigmoid"
    if model.problem_type == "single_label_classification":
        return "softmax"
    raise ConfigError(
        f"{config.uri} does not say whether its {model.num_labels} labels exclude each other: set "
        "activation: softmax (they do) or sigmoid (they do not)."
    )

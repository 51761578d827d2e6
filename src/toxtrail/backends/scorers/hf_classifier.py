"""Any Hugging Face sequence classifier with safetensors weights, such as the paper's own scorer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from toxtrail.backends.base import Assets
from toxtrail.backends.quiet import quiet
from toxtrail.backends.scorers.sequence import SequenceClassifier
from toxtrail.config import ScorerConfig
from toxtrail.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load(config: ScorerConfig, assets: Assets, device: str, batch_size: int) -> SequenceClassifier:
    """Load from a folder or hub repo; no code of the repo is run, no pickle is read.

    Raises:
        ConfigError: nothing says how logits become probabilities.
        BackendError: transformers cannot load it as a classifier, or weights are missing.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = assets.fetch(config.uri, config.sha256).path
    plain: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **plain)
        with quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **plain
            )
    except (OSError, ValueError) as error:
        raise BackendError(f"{config.uri} does not load as a classifier: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise BackendError(
            f"{config.uri} lacks the weights {', '.join(missing[:3])}: it is no trained "
            "classifier, "
            "and random weights would score."
        )
    labels = model.config.id2label
    heads = [str(labels[i]) for i in range(len(labels))]
    way = activation(config, model.config)
    return SequenceClassifier(model.to(device), tokenizer, heads, way, batch_size)


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

"""Call transformers' from_pretrained with safe options, and raise errors where it only warns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import content_problem
from toxtrail.backends.huggingface.weights.quantization import quantization_problem
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SAFE = {"local_files_only": True, "trust_remote_code": False}
TOKENIZER_JSON = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json",
)  # fmt: skip
CONFIG_CURE = (
    "Its entries must have the types that transformers writes: fetch the file again, correct the "
    "entry in a copy of the folder, or choose another revision."
)
TOKENIZER_CURE = (
    "tokenizer.json, tokenizer_config.json and chat_template.jinja must be as transformers writes "
    "them; a repo's code is never run. Fetch them again, or choose a model with a tokenizer.json."
)
WEIGHTS_CURE = (
    "Fetch its files again, install any package named here, or use a machine with more memory."
)


IMAGE_TEXT_TYPES = frozenset(
    (
        "aya_vision", "cohere2_vision", "deepseek_vl", "exaone4_5", "glm4v", "idefics2", "idefics3",
        "internvl", "lfm2_vl", "lighton_ocr", "llava", "llava_next", "llava_onevision", "mistral3",
        "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "smolvlm",
    )
)  # fmt: skip
"""Types of image-text models that, given a text alone, compute what their text model computes, to
the bit (tests/backends/huggingface/weights/test_image_text.py). Others do not: PaliGemma, for
example, attends to a prompt in both directions."""


def read_config(folder: Path, name: str) -> PreTrainedConfig:
    """Read the model's configuration. `name` is the model's name in error messages.

    Raises:
        BackendError: no config.json, or an architecture that needs code from the repo.
    """
    from transformers import AutoConfig

    values = read_json(folder / "config.json", name)
    if problem := model_type_problem(values.get("model_type"), "auto_map" in values):
        raise BackendError(f"{name}: {problem}")
    with (
        library_errors(f"{name}: transformers cannot read config.json", CONFIG_CURE),
        silence_libraries(),
    ):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **_SAFE)
    return config


def model_type_problem(model_type: object, has_code: bool) -> str | None:
    """Explain why a model of this `model_type` cannot be run; None if transformers supports it.

    The code of transformers is used, even if the repo has its own code."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    name = model_type if isinstance(model_type, str) else ""
    if name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or name in IMAGE_TEXT_TYPES:
        return None
    text = escape_control_chars(truncate_text(repr(model_type), 60))
    if name in auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES:
        return (
            f"model_type {text} is a multimodal model whose output for a text alone was not shown "
            "to be that of its text model. Use the text model that it was built from."
        )
    advice = (
        "It includes its own Python code, which is never run."
        if has_code
        else "Update transformers, or check that this is a causal language model."
    )
    return (
        f"model_type {text} is not a language model known to transformers "
        f"{transformers.__version__}. {advice}"
    )


def auto_class(model_type: str) -> Any:
    """Return the class of transformers that loads a type of model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if model_type in IMAGE_TEXT_TYPES else AutoModelForCausalLM


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a file of an asset."""
    try:
        values = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise BackendError(
            f"{name} has no {path.name}. Use a Hugging Face model folder or a GGUF file."
        ) from error
    except (ValueError, RecursionError) as error:
        problem = content_problem(path) or f"is not JSON ({error}). Fetch it again."
        raise BackendError(f"{name}: {path.name} {problem}") from error
    if not isinstance(values, dict):
        raise BackendError(f"{name}: {path.name} is not a JSON object. Fetch it again.")
    return values


def load_tokenizer(folder: Path, name: str, **options: object) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder.

    Raises:
        BackendError: there is none, or it needs code from the repo.
    """
    from transformers import AutoTokenizer

    if "gguf_file" not in options:
        refuse_damaged_tokenizer(folder, name)
    with (
        library_errors(f"{name}: its tokenizer cannot be loaded", TOKENIZER_CURE),
        silence_libraries(),
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, **_SAFE, **options
        )
        tokenizer("A text.")  # some entries are only read here
    return tokenizer


def refuse_damaged_tokenizer(folder: Path, name: str) -> None:
    """Raise if a tokenizer file is not JSON. Only the start of tokenizer.json is read."""
    for file in TOKENIZER_JSON:
        if (folder / file).is_file():
            read_json(folder / file, name)
    large = folder / "tokenizer.json"
    if large.is_file() and (problem := content_problem(large)):
        raise BackendError(f"{name}: {large.name} {problem}")


def load_base(
    folder: Path, name: str, dtype: str, device: str, quantization: object | None = None
) -> PreTrainedModel:
    """Load the weights of a folder; all of them must be in its files.

    Raises:
        BackendError: a weight is missing (it would be random) or of another shape, or a weight in
            the files is unexpected.
    """
    import torch

    config = read_config(folder, name)
    stored = read_json(folder / "config.json", name).get("quantization_config")
    if problem := quantization_problem(stored):
        raise BackendError(f"{name}: {problem}.")
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    if quantization is not None:
        options |= {"quantization_config": quantization, "device_map": {"": device}}
    for file in ("generation_config.json", "config.json"):
        if (folder / file).is_file():
            read_json(folder / file, name)
    with library_errors(f"{name} cannot be loaded", WEIGHTS_CURE), silence_libraries():
        loaded: Any = auto_class(config.model_type).from_pretrained(
            folder, output_loading_info=True, **_SAFE, **options
        )
    model: PreTrainedModel = loaded[0]
    require_all_weights(name, loaded[1])
    refuse_unplaced(name, model, loaded[1]["unexpected_keys"])
    model.eval()  # type: ignore[no-untyped-call]
    return model if quantization is not None else to_device(model, device)


def to_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """Move the model to a device."""
    result: PreTrainedModel = model.to(device)  # type: ignore[arg-type]
    return result


def require_all_weights(name: str, report: dict[str, Any]) -> None:
    """Raise if from_pretrained initialised a weight at random."""
    gaps = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    if gaps:
        raise BackendError(
            f"{name}: {len(gaps)} weight(s) are missing or of another shape, the first {gaps[0]}: "
            "they would be random. The files do not match this config.json."
        )


def meta_model(folder: Path, name: str) -> PreTrainedModel:
    """Build the model without memory for weights (torch's meta device)."""
    import torch

    config = read_config(folder, name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with (
        library_errors(f"{name}: no model can be built from config.json", CONFIG_CURE),
        silence_libraries(),
        torch.device("meta"),
    ):
        return model_from_config(config)


def embedding_rows(model: PreTrainedModel | PeftModel) -> int:
    """Return the number of embeddings of a model."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def model_from_config(config: PreTrainedConfig, **options: object) -> PreTrainedModel:
    """Build a model of this configuration without loading weights."""
    model: PreTrainedModel = auto_class(config.model_type).from_config(
        config, trust_remote_code=False, **options
    )
    return model


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash a tokenizer's vocabulary, merges, normaliser and special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    if backend is not None:
        rules = {key: rules[key] for key in rules if key not in ("truncation", "padding")}
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    return sha256_text(canonical_json({"rules": rules, "special": special}))


def chat_template_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Hash the chat template(s); None if there is none."""
    template = tokenizer.chat_template
    return None if template is None else sha256_text(canonical_json(template))

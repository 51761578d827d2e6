"""Check LoRA adapters and apply them to a model.

If tensor names do not match, peft loads the adapter without an error, and the model behaves like
the base. Here every tensor must match a parameter, and every parameter a tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.checkpoint_files.weight_files import PICKLED_ADAPTER, stored_tensors
from toxtrail.backends.huggingface.weights.adapter_config import (
    CONFIG,
    CONFIG_CURE,
    read_lora_config,
)
from toxtrail.backends.huggingface.weights.adapter_names import PREFIX, match_module_names
from toxtrail.backends.huggingface.weights.pretrained import embedding_rows, meta_model, read_json
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.silence import silence_libraries
from toxtrail.config.schema import LoraConfig as LoraSettings
from toxtrail.errors import BackendError, ConfigError, did_you_mean
from toxtrail.provenance import embedded_manifest
from toxtrail.provenance.identity import Manifest

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"


def check_adapter(folder: Path, base_folder: Path, name: str) -> int:
    """Check that an adapter fits a base and changes it, without loading the base.

    Returns:
        Number of embeddings of the base with the adapter, which may include embeddings.

    Raises:
        BackendError: not a safetensors LoRA, a wrong name or shape, a NaN, or no effect.
    """
    model = meta_model(base_folder, name)
    config, tensors = _read_adapter(folder, model, name)
    wrapped = _wrap_with_peft(model, config, tensors, name, True)
    require_matching_shapes(wrapped, {k: tuple(t.shape) for k, t in tensors.items()}, name)
    require_nonzero(tensors, name)
    return embedding_rows(model)


def apply_adapter(model: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    """Apply an adapter to a model, unmerged; the model is changed in place.

    Raises:
        BackendError: a tensor matches no parameter, or a parameter no tensor.
    """
    from peft import set_peft_model_state_dict

    config, tensors = _read_adapter(folder, model, name)
    wrapped = _wrap_with_peft(model, config, tensors, name, False)
    require_matching_shapes(wrapped, {k: tuple(t.shape) for k, t in tensors.items()}, name)
    with _peft_errors(name), silence_libraries():
        result: Any = set_peft_model_state_dict(wrapped, tensors)
    if dropped := [key for key in result.unexpected_keys if not _is_duplicate(key, tensors)]:
        raise BackendError(
            f"{name}: peft did not load {len(dropped)} tensor(s), the first {dropped[0]}. The "
            "adapter was created for another model or peft version."
        )
    return wrapped.eval()


def _read_adapter(
    folder: Path, model: PreTrainedModel, name: str
) -> tuple[LoraConfig, Mapping[str, torch.Tensor]]:
    """Read an adapter's settings and tensors, under the names of the model's modules.

    Raises:
        BackendError: it cannot be read, or changes only parts that do not affect a text.
    """
    config, tensors = read_lora_config(folder, name), read_tensors(folder, name)
    with _peft_errors(name):
        settings, renamed = match_module_names(config, tensors, model)
    if tensors and not renamed:
        raise BackendError(
            f"{name} changes only layers beside the text model (encoders of images or audio; the "
            f"first is {min(tensors)}), so it does not change a text. Use another adapter."
        )
    return settings, renamed


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Read all tensors of an adapter, on the CPU.

    Raises:
        BackendError: there is no weight file, or it is damaged.
    """
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).exists():
        raise BackendError(
            f"{name} has no {WEIGHTS} or {PICKLED_ADAPTER}. Choose an adapter that peft saved."
        )
    stored_tensors(folder / WEIGHTS, name)
    return load_file(folder / WEIGHTS)


def base_claim(folder: Path) -> object:
    """Return the base that an adapter's config names; None if it names none."""
    return read_json(folder / CONFIG, folder.name).get("base_model_name_or_path")


def require_matching_shapes(
    wrapped: PeftModel, stored: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raise unless an adapter's file contains exactly the tensors that peft saves for this model;
    the embeddings are optional."""
    expected = tensor_shapes(wrapped, embeddings=False)
    with_embeddings = tensor_shapes(wrapped, embeddings=True)
    expected |= {key: shape for key, shape in with_embeddings.items() if key in stored}
    missing, unexpected = (
        sorted(expected.keys() - stored.keys()),
        sorted(stored.keys() - expected.keys()),
    )
    shapes = [
        key for key in sorted(expected.keys() & stored.keys()) if expected[key] != stored[key]
    ]
    if not (missing or unexpected or shapes):
        return
    example = (unexpected or missing or shapes)[0]
    raise BackendError(
        f"{name} does not fit the base model: {len(missing)} tensor(s) missing, "
        f"{len(unexpected)} unexpected, {len(shapes)} of another shape; e.g. {example} (the base "
        f"has {expected.get(example, 'nothing')}, the file has {stored.get(example, 'nothing')}). "
        "Use the base that the adapter was trained on."
    )


def tensor_shapes(wrapped: PeftModel, embeddings: bool) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors that peft would save for this model."""
    from peft import get_peft_model_state_dict

    with silence_libraries():
        tensors = get_peft_model_state_dict(wrapped, save_embedding_layers=embeddings)
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _is_duplicate(key: str, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the same tensor is also loaded under its plain name: peft saves fully trained,
    resized embeddings under both names."""
    plain = tensors.get(key.replace(".modules_to_save.", "."))
    saved = tensors.get(key)
    return (
        plain is not None and saved is not None and plain is not saved and bool(plain.equal(saved))
    )


def _adapter_embedding_rows(
    model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]]
) -> int | None:
    module_name = _module_name(model, model.get_input_embeddings())
    for key in (f"{module_name}.weight", f"{module_name}.base_layer.weight"):
        if f"{PREFIX}{key}" in shapes:
            return shapes[f"{PREFIX}{key}"][0]
    return None


def _module_name(model: PreTrainedModel, target: object) -> str:
    return next((name for name, module in model.named_modules() if module is target), "")


def _resize_embeddings(
    model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Resize the model's embeddings to those of the adapter, which then replace all of them.

    Raises:
        BackendError: the adapter has new input embeddings, but no output embeddings.
    """
    rows, embeddings = _adapter_embedding_rows(model, shapes), model.get_input_embeddings()
    if rows is None or rows == embedding_rows(model):
        return
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tied = output is None or output.weight is embeddings.weight
    module_name = _module_name(model, output)
    keys = (f"{PREFIX}{module_name}.weight", f"{PREFIX}{module_name}.base_layer.weight")
    if not tied and not any(key in shapes for key in keys):
        raise BackendError(
            f"{name} has embeddings for {rows:,} tokens, the base has {embedding_rows(model):,}, "
            f"and the adapter has no {module_name}.weight of that size: the output weights of the "
            "new tokens would be random. Use the merged model instead."
        )
    with silence_libraries():
        model.resize_token_embeddings(rows, mean_resizing=False)


def require_nonzero(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Raise if an adapter contains a NaN, or only zeros in its output matrices."""
    if bad := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise BackendError(f"{name}: {bad[0]} has a value that is not finite. Do not use it.")
    outputs = [tensor for key, tensor in tensors.items() if "lora_B" in key or "embedding_B" in key]
    if not any(bool(tensor.any()) for tensor in outputs):
        raise BackendError(
            f"{name}: all {len(outputs)} lora_B tensors are zero, so it changes nothing. "
            "It was saved before it was trained."
        )


def add_lora(model: PreTrainedModel, lora: LoraSettings, quantized: bool) -> PeftModel:
    """Add a new, trainable adapter to the model.

    Raises:
        ConfigError: a target is not a linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    refuse_unknown_targets(model, lora)
    if quantized:
        model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model, use_gradient_checkpointing=False
        )
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=sorted(set(lora.targets)),
    )
    with silence_libraries():
        return get_peft_model(model, settings)


def refuse_unknown_targets(model: PreTrainedModel, lora: LoraSettings) -> None:
    """Raise if a LoRA target is not a linear layer; peft ignores it if another target matches."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    names = [n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    leaves = sorted({name.rpartition(".")[2] for name in names} - {"lm_head"})
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(
                f'finetunes.lora.targets: "{target}" is not a linear layer of '
                f"{type(model).__name__}." + did_you_mean(target, leaves)
            )


def write_adapter(model: PeftModel, base_uri: str, out: Path, manifest: Manifest) -> None:
    """Write the adapter: equal weights give equal bytes, which do not depend on this machine.

    Args:
        manifest: how it was created; stored in the file's metadata.

    Raises:
        BackendError: it has a NaN or has not learned anything.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    plain = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    require_nonzero(plain, "the new adapter")
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f"{WEIGHTS}.draft"
    draft.write_bytes(
        embedded_manifest.in_safetensors(save(plain, metadata={"format": "pt"}), manifest)
    )
    draft.replace(out / WEIGHTS)
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_uri, "inference_mode": True}
    (out / f"{CONFIG}.draft").write_text(_sorted_json(config) + "\n", encoding="utf-8")
    (out / f"{CONFIG}.draft").replace(out / CONFIG)


def _sorted_json(values: dict[str, Any]) -> str:
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in values.items()}
    return json.dumps(plain, sort_keys=True, indent=2)


def _wrap_with_peft(
    model: PreTrainedModel,
    config: LoraConfig,
    tensors: Mapping[str, torch.Tensor],
    name: str,
    without_memory: bool,
) -> PeftModel:
    """Wrap the model, in place, with parameters for an adapter's tensors."""
    from peft import get_peft_model

    with _peft_errors(name), silence_libraries():
        _resize_embeddings(
            model, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, name
        )
        return get_peft_model(model, config, low_cpu_mem_usage=without_memory)


def _peft_errors(name: str) -> AbstractContextManager[None]:
    return library_errors(f"{name} does not fit the base model", CONFIG_CURE)

"""LoRA adapters: does it fit, does it do anything, and put it on a model.

peft loads an adapter whose names do not match without a word and answers as the base would. Here
every tensor must have a place, and every place a tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail import embedding
from toxtrail.backends.huggingface.pretrained import empty_model, read_json
from toxtrail.backends.huggingface.weight_files import stored_tensors
from toxtrail.backends.quiet import quiet
from toxtrail.config import LoraConfig as LoraSettings
from toxtrail.errors import BackendError, ConfigError, nearest
from toxtrail.identity import Manifest

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def check_adapter(folder: Path, base_folder: Path, name: str) -> None:
    """Prove that an adapter fits a base and changes it, without loading the base.

    Raises:
        BackendError: not a LoRA in safetensors, a wrong name or shape, a NaN, or no effect.
    """
    tensors = read_tensors(folder, name)
    wrapped = _wrapped(empty_model(base_folder, name), read_lora_config(folder, name), name, True)
    refuse_misfits(tensor_shapes(wrapped), {k: tuple(t.shape) for k, t in tensors.items()}, name)
    refuse_powerless(tensors, name)


def attach(model: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    """Put an adapter on a model, unmerged; the model is changed in place.

    Raises:
        BackendError: a tensor has no place, or a place no tensor.
    """
    from peft import set_peft_model_state_dict

    tensors = read_tensors(folder, name)
    wrapped = _wrapped(model, read_lora_config(folder, name), name, False)
    refuse_misfits(tensor_shapes(wrapped), {k: tuple(t.shape) for k, t in tensors.items()}, name)
    with quiet():
        result: Any = set_peft_model_state_dict(wrapped, tensors)
    if result.unexpected_keys:
        raise BackendError(
            f"{name}: peft did not load {len(result.unexpected_keys)} tensor(s), the first "
            f"{result.unexpected_keys[0]}. The adapter was made for another model or peft version."
        )
    return wrapped.eval()


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """All tensors of an adapter, on the CPU.

    Raises:
        BackendError: there are none in safetensors, or their file is damaged.
    """
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).exists():
        pickled = (folder / "adapter_model.bin").exists()
        raise BackendError(
            f"{name} has no {WEIGHTS}"
            + (", only adapter_model.bin: a pickle is never loaded." if pickled else ".")
            + " Choose an adapter in safetensors."
        )
    stored_tensors(folder / WEIGHTS, name)
    return load_file(folder / WEIGHTS)


def read_lora_config(folder: Path, name: str) -> LoraConfig:
    """The adapter's settings.

    Raises:
        BackendError: it is not a LoRA.
    """
    from peft import LoraConfig

    values = read_json(folder / CONFIG, name)
    if values.get("peft_type") != "LORA":
        raise BackendError(
            f"{name}: {CONFIG} has peft_type {values.get('peft_type')!r}; only LORA can be applied."
        )
    config: LoraConfig = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.base_model_name_or_path = None  # a claim; which base it fits is checked by its tensors
    return config


def tensor_shapes(wrapped: PeftModel) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that peft would save for this model."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def refuse_misfits(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raise unless both name the same tensors with the same shapes."""
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    shapes = [key for key in sorted(wanted.keys() & found.keys()) if wanted[key] != found[key]]
    if not (missing or foreign or shapes):
        return
    example = (foreign or missing or shapes)[0]
    raise BackendError(
        f"{name} does not fit the base model: {len(missing)} tensor(s) missing, "
        f"{len(foreign)} without a place, {len(shapes)} of another shape; e.g. {example} (the base "
        f"wants {wanted.get(example, 'nothing')}, the file has {found.get(example, 'nothing')}). "
        "Name the base that the adapter was trained on."
    )


def refuse_powerless(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Raise if an adapter holds a NaN, or only zeros where its effect would come from."""
    if bad := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise BackendError(f"{name}: {bad[0]} holds a value that is not finite. Do not use it.")
    outputs = [tensor for key, tensor in tensors.items() if "lora_B" in key or "embedding_B" in key]
    if not any(bool(tensor.any()) for tensor in outputs):
        raise BackendError(
            f"{name}: all {len(outputs)} lora_B tensors are zero, so it changes nothing. "
            "It was saved before it was trained."
        )


def with_lora(model: PreTrainedModel, lora: LoraSettings, quantized: bool) -> PeftModel:
    """The model with a new, trainable adapter.

    Raises:
        ConfigError: a target is no linear layer of the model.
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
    with quiet():
        return get_peft_model(model, settings)


def refuse_unknown_targets(model: PreTrainedModel, lora: LoraSettings) -> None:
    """Raise if a LoRA target is no linear layer: peft ignores it as long as another one matches."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    names = [n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    leaves = sorted({name.rpartition(".")[2] for name in names} - {"lm_head"})
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(
                f'finetunes.lora.targets: "{target}" is no linear layer of {type(model).__name__}.'
                + nearest(target, leaves)
            )


def write_adapter(model: PeftModel, base_uri: str, out: Path, manifest: Manifest) -> None:
    """Write the adapter: equal weights give equal bytes, and nothing in them names this machine.

    Args:
        manifest: what made it; kept in the file's own metadata.

    Raises:
        BackendError: it holds a NaN or has not learned anything.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    plain = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    refuse_powerless(plain, "the new adapter")
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f"{WEIGHTS}.draft"
    draft.write_bytes(embedding.in_safetensors(save(plain, metadata={"format": "pt"}), manifest))
    draft.replace(out / WEIGHTS)
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_uri, "inference_mode": True}
    (out / f"{CONFIG}.draft").write_text(_sorted_json(config) + "\n", encoding="utf-8")
    (out / f"{CONFIG}.draft").replace(out / CONFIG)


def _sorted_json(values: dict[str, Any]) -> str:
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in values.items()}
    return json.dumps(plain, sort_keys=True, indent=2)


def _wrapped(
    model: PreTrainedModel, config: LoraConfig, name: str, without_memory: bool
) -> PeftModel:
    from peft import get_peft_model

    try:
        with quiet():
            return get_peft_model(model, config, low_cpu_mem_usage=without_memory)
    except ValueError as error:
        raise BackendError(f"{name} does not fit the base model: {error}") from error

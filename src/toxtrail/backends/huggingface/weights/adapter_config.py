"""Check that peft would apply every setting of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.huggingface.weights.pretrained import read_json
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG = "adapter_config.json"
CONFIG_CURE = (
    f"The entries of {CONFIG} must have the types that peft writes and name modules of the base: "
    "fetch the adapter again, or check that this is the base that it was trained on."
)
UNSUPPORTED = {
    "alora_invocation_tokens": "the adapter is active only after these tokens, and generation "
    "here would never activate it",
    "arrow_config": "it routes between several adapters",
}
"""Settings of peft that act outside the model's layers, where peft is not used here -> reason."""
HARMLESS = {"transformers_version", "unsloth_version", "unsloth_fixed", "library_name"}
"""Entries of other programs that record what created the file."""
NUMBERS = ("r", "lora_alpha", "lora_dropout")
SWITCHES = ("fan_in_fan_out", "use_rslora", "use_dora", "use_qalora", "lora_bias")


def read_lora_config(folder: Path, name: str) -> LoraConfig:
    """Read the adapter's settings.

    Raises:
        BackendError: it is not a LoRA adapter, or has a setting that would be ignored.
    """
    from peft import LoraConfig

    values = read_json(folder / CONFIG, name)
    if problems := list(lora_problems(values)):
        raise BackendError(f"{name}: {'; '.join(problems)}.")
    with library_errors(f"{name}: peft cannot read {CONFIG}", CONFIG_CURE), silence_libraries():
        config: LoraConfig = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.base_model_name_or_path = None  # a claim; which base it fits is checked by its tensors
    return config


def lora_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why the settings of an adapter cannot be applied as they are."""
    from dataclasses import fields

    import peft

    if values.get("peft_type") != "LORA":
        yield f"{CONFIG} has peft_type {values.get('peft_type')!r}; only LORA is supported"
        return
    for key, reason in UNSUPPORTED.items():
        if values.get(key):
            yield f"{CONFIG} has {key}, which is not supported: {reason}"
    allowed = {field.name for field in fields(peft.LoraConfig)} | {"peft_type"} | HARMLESS
    if unknown := [key for key in sorted(values.keys() - allowed) if values[key]]:
        listed = ", ".join(f"{key} = {truncate_text(repr(values[key]), 60)}" for key in unknown)
        yield escape_control_chars(
            f"{CONFIG} has settings that peft {peft.__version__} does not know and would ignore "
            f"({listed}), so the adapter would not behave as trained: update peft, or use an "
            "adapter without them"
        )
    yield from _type_problems(values)


def _type_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems with values that peft does not check: `"use_dora": "false"` counts as true."""
    patterns = [
        (f"{key}.{name}", value)
        for key in ("rank_pattern", "alpha_pattern")
        if isinstance(values.get(key), dict)
        for name, value in values[key].items()
    ]
    numbers = [(key, values[key]) for key in NUMBERS if key in values] + patterns
    for key, value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield escape_control_chars(
                f"{CONFIG} has {key} = {truncate_text(repr(value), 60)}; expected a number"
            )
    for key in SWITCHES:
        if not isinstance(values.get(key, False), bool | None):
            text = truncate_text(repr(values[key]), 60)
            yield escape_control_chars(f"{CONFIG} has {key} = {text}; expected true or false")

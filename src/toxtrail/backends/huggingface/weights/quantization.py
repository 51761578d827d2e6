"""Quantized weights: which can be loaded here, and what is computed with after loading."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

PACKAGES = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto_round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("kernels",),
    "gptq": ("optimum", "gptqmodel"),
    "hqq": ("hqq",),
    "quanto": ("optimum",),
    "quark": ("quark",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""Method -> modules of the packages without which transformers does not load it."""
UNQUANTIZED = "or use the unquantized repository"


def quantization_problem(settings: object) -> str | None:
    """Explain why weights with these settings cannot be loaded here; None if they can, or if they
    are not quantized.

    Args:
        settings: `quantization_config` of config.json.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if settings is None:
        return None
    values = settings if isinstance(settings, Mapping) else {}
    method = quantization_method(values)
    known = {name.partition("_4bit")[0].partition("_8bit")[0] for name in AUTO_QUANTIZER_MAPPING}
    if method not in known:
        text = escape_control_chars(truncate_text(repr(method), 60))
        return (
            f"its weights are quantized by the method {text}, which transformers does not load; it "
            f"would take the packed numbers for weights. Update transformers, {UNQUANTIZED}"
        )
    missing = [name for name in PACKAGES.get(method, ()) if find_spec(name) is None]
    if missing:
        return (
            f"its weights are quantized by {method}, for which transformers needs packages that "
            f"are not installed: {', '.join(missing)}. Install them, {UNQUANTIZED}"
        )
    return None


def quantization_method(settings: Mapping[str, Any]) -> str:
    """Return the method that settings name; older ones of bitsandbytes do not."""
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        return "bitsandbytes"
    return str(getattr(method, "value", method))


def quantization_in_memory(model: PreTrainedModel | PeftModel) -> str | None:
    """Return method and dtypes of the weights with which a loaded model computes; None if they are
    plain numbers.

    The same files may be computed with as they are on a GPU, and dequantized on a CPU (FP8, MXFP4).
    """
    import torch

    plain = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
    dtypes = {weight.dtype for weight in model.parameters()} - plain
    if not dtypes and not getattr(model, "is_quantized", False):
        return None
    settings: Any = getattr(model.config, "quantization_config", None) or {}
    values = settings if isinstance(settings, Mapping) else settings.to_dict()
    names = sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)
    method = [quantization_method(values)] if values else []
    return " ".join([*method, *names])

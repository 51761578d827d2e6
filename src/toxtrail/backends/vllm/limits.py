"""Limits of vLLM: weights and adapters that it would not load as the model card describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.backends.checkpoint_files.weight_files import stored_tensors
from toxtrail.backends.huggingface.weights.adapter_config import CONFIG
from toxtrail.backends.huggingface.weights.adapters import WEIGHTS
from toxtrail.backends.huggingface.weights.pretrained import read_json
from toxtrail.errors import BackendError

MAX_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM's --max-lora-rank accepts."""
UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "fully trained modules (modules_to_save)",
    "lora_bias": "biases (lora_bias)",
    "layer_replication": "repeated layers (layer_replication)",
    "target_parameters": "adapted parameters (target_parameters)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA (use_bdlora)",
}
"""Entries of adapter_config.json that vLLM does not apply -> what they are."""
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Initialisations that leave the base as it is; the others change its weights when peft loads the
adapter."""
LORA_TENSORS = (".lora_A.weight", ".lora_B.weight")
CURE = "Remove generation.engine: this process then loads the weights itself"


def require_supported(name: str, base: Path, adapters: Sequence[Path]) -> int:
    """Return the rank of the adapter for --max-lora-rank; 0 without an adapter.

    Args:
        name: of the variant.
        base: folder of the base's verified files.
        adapters: folders of the adapters' verified files, in the order in which they are applied.

    Raises:
        BackendError: vLLM cannot load these weights as they are.
    """
    if problems := list(weight_problems(base, adapters)):
        raise BackendError(
            f"{name}: generation.engine: vllm cannot be used, because "
            f"{'; '.join(problems)}. {CURE}."
        )
    return max_rank(read_json(adapters[-1] / CONFIG, name)) if adapters else 0


def weight_problems(base: Path, adapters: Sequence[Path]) -> Iterator[str]:
    """Yield the reasons why vLLM cannot load these weights as they are."""
    if read_json(base / "config.json", str(base)).get("quantization_config"):
        yield "its weights are quantized, and vLLM computes with them in another way"
    if len(adapters) > 1:
        yield f"vLLM applies one adapter, and this variant has {len(adapters)} on top of each other"
    for folder in adapters[-1:]:
        yield from _config_problems(read_json(folder / CONFIG, str(folder)))
        tensors = stored_tensors(folder / WEIGHTS, str(folder))
        if others := sorted(name for name in tensors if not name.endswith(LORA_TENSORS)):
            yield f"vLLM does not apply the adapter's tensor {others[0]}"


def max_rank(config: Mapping[str, Any]) -> int:
    """Return the smallest value of --max-lora-rank for an adapter.

    Raises:
        BackendError: its rank is too large.
    """
    rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    allowed = next((limit for limit in MAX_RANKS if limit >= rank), None)
    if allowed is None:
        raise BackendError(
            f"The adapter has rank {rank}, and vLLM supports at most {MAX_RANKS[-1]}. {CURE}."
        )
    return allowed


def _config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, what in UNSUPPORTED.items():
        if config.get(key):
            yield f"vLLM does not support {what} in adapters"
    if config.get("bias", "none") != "none":
        yield "vLLM does not support trained biases (bias) in adapters"
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        yield f"the adapter's initialisation ({init}) changes the base, which vLLM does not do"

"""Weights that vLLM would load in another way, or only in part, are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from toxtrail.backends.vllm.limits import max_rank, require_supported, weight_problems
from toxtrail.errors import BackendError

LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "init_lora_weights": True}
TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def folders(tmp_path):
    """Makes the folders of a base and of an adapter."""

    def make(lora=None, tensor=TENSOR, **base):
        (tmp_path / "base").mkdir()
        (tmp_path / "lora").mkdir()
        (tmp_path / "base" / "config.json").write_text(json.dumps(base))
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({**LORA, **(lora or {})}))
        zeros = np.zeros((1, 1), np.float32)
        save_file({tensor: zeros, TENSOR: zeros}, tmp_path / "lora" / "adapter_model.safetensors")
        return tmp_path / "base", tmp_path / "lora"

    return make


def test_a_plain_adapter_is_supported_with_the_next_rank(folders):
    base, lora = folders({"r": 9, "use_rslora": True, "init_lora_weights": "gaussian"})
    assert require_supported("v", base, [lora]) == 16
    assert require_supported("v", base, []) == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"layer_replication": [[0, 1]]},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"trainable_token_indices": [1]},
        {"init_lora_weights": "pissa"},
    ],
    ids=str,
)
def test_a_setting_that_vllm_does_not_apply_is_refused(folders, setting):
    base, lora = folders(setting)
    with pytest.raises(BackendError, match=r"Remove generation\.engine"):
        require_supported("v", base, [lora])


@pytest.mark.parametrize(
    "tensor",
    [
        "base_model.model.lm_head.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
    ],
)
def test_a_tensor_that_vllm_does_not_apply_is_refused(folders, tensor):
    base, lora = folders(tensor=tensor)
    (problem,) = weight_problems(base, [lora])
    assert tensor in problem


def test_quantized_weights_and_stacked_adapters_are_refused(folders):
    base, lora = folders(quantization_config={"quant_method": "gptq"})
    assert len(list(weight_problems(base, [lora, lora]))) == 2


@pytest.mark.parametrize(
    ("rank", "pattern", "limit"), [(1, {}, 1), (2, {}, 8), (16, {"q_proj": 17}, 32), (512, {}, 512)]
)
def test_the_limit_covers_every_rank(rank, pattern, limit):
    assert max_rank({"r": rank, "rank_pattern": pattern}) == limit


def test_a_rank_above_the_limit_is_refused():
    with pytest.raises(BackendError, match="rank 513"):
        max_rank({"r": 513})

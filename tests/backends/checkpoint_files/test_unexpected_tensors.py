"""A tensor of a checkpoint is used, or left out for a reason that is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.errors import BackendError

CHECKPOINT = "model.safetensors"


def add(folder: Path, **shapes: tuple[int, ...]) -> None:
    tensors = load_file(folder / CHECKPOINT)
    tensors |= {name: torch.ones(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / CHECKPOINT, metadata={"format": "pt"})


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_fewer_layers_in_the_config_than_in_the_file_are_refused(tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "cut")
    edit(folder / "config.json", num_hidden_layers=1)
    with pytest.raises(BackendError, match=r"cut: 9 tensor.*model\.layers\.1\..*fewer layers"):
        load_base(folder, "cut", "float32", "cpu")


def test_an_unmerged_adapter_in_the_file_is_refused(tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "lora")
    place = "model.layers.0.self_attn.q_proj"
    add(folder, **{f"{place}.lora_A.weight": (4, 32), f"{place}.lora_B.weight": (32, 4)})
    with pytest.raises(BackendError, match=r"2 tensor.*merge"):
        load_base(folder, "lora", "float32", "cpu")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.extra.weight",
        "extra_head.weight",
        "model.embed_scale",
    ],
)
def test_a_weight_that_the_config_does_not_know_is_refused(tiny_folder, copy_of, name):
    folder = copy_of(tiny_folder, "more")
    add(folder, **{name: (32,)})
    with pytest.raises(BackendError, match=f"first is {name}"):
        load_base(folder, "more", "float32", "cpu")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "lm_head.weight",
        "v_head.summary.weight",
        "mtp.layers.0.weight",
        "vision_tower.encoder.weight",
        "model.visual.blocks.0.attn.qkv.weight",
        "multi_modal_projector.linear.weight",
    ],
)
def test_what_a_language_model_never_uses_is_left_out(tiny_folder, copy_of, name):
    folder = copy_of(tiny_folder, "more")
    if name == "lm_head.weight":
        tensors = load_file(folder / CHECKPOINT)
        tensors[name] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / CHECKPOINT, metadata={"format": "pt"})
    else:
        add(folder, **{name: (4,)})
    load_base(folder, "more", "float32", "cpu")


def old_gpt2(layer: str) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.attn.bias": (1, 1, 16, 16), f"{layer}.attn.masked_bias": ()}


FAMILIES = {
    "gpt2": (
        transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2),
        old_gpt2("transformer.h.0"),
    ),
    "gptj": (
        transformers.GPTJConfig(
            vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2, rotary_dim=4
        ),
        old_gpt2("transformer.h.0"),
    ),
    "gpt_neo": (
        transformers.GPTNeoConfig(
            vocab_size=64, hidden_size=16, num_layers=1, num_heads=2, window_size=8,
            attention_types=[[["global"], 1]], max_position_embeddings=16,
        ),
        {
            "transformer.h.0.attn.attention.bias": (1, 1, 16, 16),
            "transformer.h.0.attn.attention.masked_bias": (),
        },
    ),
    "gpt_neox": (
        transformers.GPTNeoXConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=16,
        ),
        {
            "gpt_neox.layers.0.attention.bias": (1, 1, 16, 16),
            "gpt_neox.layers.0.attention.masked_bias": (),
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": (2,),
        },
    ),
    "bert": (
        transformers.BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, is_decoder=True,
        ),
        {
            "bert.embeddings.position_ids": (1, 512),
            "bert.pooler.dense.weight": (16, 16),
            "bert.pooler.dense.bias": (16,),
            "cls.seq_relationship.weight": (2, 16),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_old_checkpoints_load_with_the_buffers_that_they_saved(tmp_path, family):
    config, extra = FAMILIES[family]
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    add(tmp_path, **extra)
    load_base(tmp_path, family, "float32", "cpu")
    edit(tmp_path / "config.json", **{"num_hidden_layers": 0, "n_layer": 0, "num_layers": 0})
    if family not in ("gpt_neo",):  # its config counts layers twice and says so itself
        with pytest.raises(BackendError, match="not part of"):
            load_base(tmp_path, family, "float32", "cpu")


def test_layers_for_multi_token_prediction_are_counted_after_the_models_own(tiny):
    model = tiny.build_model(320)
    model.config.num_nextn_predict_layers = 1
    refuse_unplaced("x", model, ["model.layers.2.eh_proj.weight"])
    for layer in (1, 3):
        with pytest.raises(BackendError, match=f"layers.{layer}"):
            refuse_unplaced("x", model, [f"model.layers.{layer}.eh_proj.weight"])


def test_scales_of_activations_are_left_out_of_quantized_models_only(tiny):
    model = tiny.build_model(320)
    names = ["model.layers.0.self_attn.k_proj.k_scale"]
    with pytest.raises(BackendError, match="k_scale"):
        refuse_unplaced("x", model, names)
    model.config.quantization_config = {"quant_method": "fp8"}
    refuse_unplaced("x", model, names)
    with pytest.raises(BackendError, match="weight_scale_inv"):
        refuse_unplaced("x", model, ["model.layers.0.self_attn.k_proj.weight_scale_inv"])

"""An adapter of the image-text class acts on the text model as it does in peft, and vice versa."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from toxtrail.backends.huggingface.weights.adapters import apply_adapter, check_adapter
from toxtrail.backends.huggingface.weights.load import merge_adapter
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError

IDS = torch.tensor([[2, 9, 40, 41, 200]])
REGEX = r"^(?!.*visual).*(?:language_model).*\.(q_proj|up_proj)$"
TEXT = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
    "max_position_embeddings": 128, "layer_types": ["full_attention", "full_attention"],
}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.3}


def qwen():
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    vision = {**VISION, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 2,
              "num_position_embeddings": 16}  # fmt: skip
    config = Qwen3_5Config(text_config=TEXT, vision_config=vision)
    return Qwen3_5ForConditionalGeneration(config)


def gemma():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {**VISION, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
              "patch_size": 2}  # fmt: skip
    config = Gemma3Config(
        text_config={**TEXT, "sliding_window": 64}, vision_config=vision, mm_tokens_per_image=4,
        image_token_index=300, boi_token_index=301, eoi_token_index=302,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


def save_base(folder, make):
    with silence_libraries(), torch.random.fork_rng():
        torch.manual_seed(5)
        make().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image_text(tmp_path_factory):
    """A checkpoint of which transformers loads the text model alone."""
    return save_base(tmp_path_factory.mktemp("qwen"), qwen)


def tune(folder, model, **settings):
    """Save a random adapter of a model; return the logits that peft computes with it."""
    from peft import LoraConfig, get_peft_model

    with silence_libraries(), torch.random.fork_rng():
        torch.manual_seed(3)
        tuned = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, **settings})).eval()
        for name, weight in tuned.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                torch.nn.init.normal_(weight, std=0.3)
        tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return logits(tuned)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def image_text_model(folder):
    from transformers import AutoModelForImageTextToText

    with silence_libraries():
        return AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)


SETTINGS = {
    "by-suffix": {"target_modules": ["q_proj", "up_proj"]},
    "by-pattern": {"target_modules": REGEX},
    "with-the-encoder": {"target_modules": ["q_proj", "qkv", "linear_fc1"]},
    "ranks": {
        "target_modules": ["q_proj", "up_proj"],
        "rank_pattern": {"language_model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {r"language_model.layers.\d.mlp.up_proj": 1},
        "layers_to_transform": [0],
    },
    "dora": {"target_modules": ["down_proj"], "use_dora": True},
    "output": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "norms": {"target_modules": ["q_proj"], "modules_to_save": ["language_model.norm"]},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_adapter_of_an_image_text_class_acts_on_the_text_model(kind, image_text, tmp_path):
    expected = tune(tmp_path, image_text_model(image_text), **SETTINGS[kind])
    check_adapter(tmp_path, image_text, "lora")
    base = load_base(image_text, "base", "float32", "cpu")
    assert type(base).__name__ == "Qwen3_5ForCausalLM"
    unchanged = logits(base)
    model = apply_adapter(base, tmp_path, "lora")
    assert torch.equal(logits(model), expected)
    assert not torch.allclose(expected, unchanged, atol=0.1)
    assert torch.allclose(logits(merge_adapter(model, "lora")), expected, atol=1e-4)


def test_the_names_of_older_image_text_classes_are_matched(image_text, tmp_path):
    expected = tune(tmp_path, image_text_model(image_text), target_modules=["q_proj", "lm_head"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    older = {
        key.replace("model.language_model", "language_model.model").replace(
            "model.lm_head", "model.language_model.lm_head"
        ): tensor
        for key, tensor in tensors.items()
    }
    assert not older.keys() & tensors.keys()
    save_file(older, path)
    base = load_base(image_text, "base", "float32", "cpu")
    assert torch.equal(logits(apply_adapter(base, tmp_path, "lora")), expected)


def test_an_adapter_of_the_text_class_acts_on_the_image_text_class(tmp_path):
    from transformers import Gemma3ForCausalLM

    base = save_base(tmp_path / "gemma", gemma)
    whole = load_base(base, "base", "float32", "cpu")
    text_model = Gemma3ForCausalLM(whole.config.text_config)
    text_model.model.load_state_dict(whole.model.language_model.state_dict())
    text_model.tie_weights()
    assert torch.equal(logits(text_model.eval()), logits(whole))
    expected = tune(tmp_path / "lora", text_model, target_modules=["q_proj", "v_proj"])
    check_adapter(tmp_path / "lora", base, "lora")
    model = load_base(base, "base", "float32", "cpu")
    assert any("vision" in name for name, _ in model.named_modules())
    assert torch.equal(logits(apply_adapter(model, tmp_path / "lora", "lora")), expected)


def test_an_adapter_of_the_encoder_alone_is_refused(image_text, tmp_path):
    tune(tmp_path, image_text_model(image_text), target_modules=["qkv"])
    with pytest.raises(BackendError, match="encoders of images.*visual"):
        check_adapter(tmp_path, image_text, "lora")


def test_an_adapter_of_another_architecture_is_not_matched(image_text, tiny_adapter):
    with pytest.raises(BackendError, match="fit the base model"):
        check_adapter(tiny_adapter, image_text, "lora")

"""A card becomes the model it describes, or nothing."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from toxtrail.backends.huggingface.weights import load
from toxtrail.backends.huggingface.weights.load import cast_weights, load_model
from toxtrail.backends.huggingface.weights.logit_probe import probe_logits
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError


@pytest.fixture
def tuned(tiny, tiny_card, tiny_adapter):
    """The tiny model with one community adapter."""
    adapter = tiny.adapter_card("lora", tiny_adapter, f"file:{tiny_adapter}")
    return tiny_card.model_copy(update={"key": "tuned", "adapters": (adapter,)})


def logits_of(loaded):
    return probe_logits(loaded.model, loaded.tokenizer)


def test_a_plain_card_loads_the_plain_model(weights, tiny_card, tiny_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    loaded = load_model(tiny_card, tmp_path, weights, "float32", "cpu")
    with silence_libraries():
        plain = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True)
    assert torch.equal(logits_of(loaded), probe_logits(plain, loaded.tokenizer))


def test_an_adapter_changes_the_logits_and_can_be_switched_off(weights, tiny_card, tuned, tmp_path):
    plain = logits_of(load_model(tiny_card, tmp_path, weights, "float32", "cpu"))
    loaded = load_model(tuned, tmp_path, weights, "float32", "cpu")
    assert (logits_of(loaded) - plain).abs().max() > 0.01
    with loaded.model.disable_adapter():
        assert torch.equal(logits_of(loaded), plain)


def test_an_adapter_that_was_trained_here_lies_in_the_models_folder(
    weights, tiny, tuned, tiny_adapter, tmp_path
):
    folder = tmp_path / "models" / "m"
    tiny_adapter.rename(folder.parent.mkdir(parents=True) or tmp_path / "moved")
    (folder / "adapters").mkdir(parents=True)
    (tmp_path / "moved").rename(folder / "adapters" / "lora")
    here = tiny.adapter_card("lora", folder / "adapters" / "lora", None)
    card = tuned.model_copy(update={"adapters": (here,)})
    assert load_model(card, folder, weights, "float32", "cpu").model.peft_config.keys() == {
        "default"
    }


def test_a_second_adapter_is_applied_on_top_of_the_first(
    weights, tiny, tuned, tiny_folder, tiny_adapter, tmp_path
):
    from peft import PeftModel

    second = tiny.save_adapter(tmp_path / "second", tiny_folder, seed=2)
    card = tuned.model_copy(
        update={"adapters": (*tuned.adapters, tiny.adapter_card("b", second, f"file:{second}"))}
    )
    found = logits_of(load_model(card, tmp_path, weights, "float32", "cpu"))
    with silence_libraries():
        base = load_base(tiny_folder, "tiny", "float32", "cpu")
        merged = PeftModel.from_pretrained(base, tiny_adapter).merge_and_unload()
        both = PeftModel.from_pretrained(merged, second).eval()
    tokenizer = load_model(card, tmp_path, weights, "float32", "cpu").tokenizer
    assert torch.allclose(found, probe_logits(both, tokenizer), atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float8_e4m3fn"])
def test_a_second_adapter_on_weights_that_stay_quantized_is_refused(
    weights, tiny, tuned, tiny_folder, tmp_path, monkeypatch, dtype
):
    def quantized(*arguments):
        model = load_base(*arguments)
        up = model.model.layers[0].mlp.up_proj
        packed = up.weight.data.to(getattr(torch, dtype))
        up.weight = torch.nn.Parameter(packed, requires_grad=False)
        return model

    monkeypatch.setattr(load, "load_base", quantized)
    second = tiny.save_adapter(tmp_path / "second", tiny_folder, seed=2)
    both = (*tuned.adapters, tiny.adapter_card("b", second, f"file:{second}"))
    card = tuned.model_copy(update={"adapters": both})
    with pytest.raises(BackendError, match=rf"quantized weights \({dtype}\).*unquantized"):
        load_model(card, tmp_path, weights, "float32", "cpu")


def test_an_adapter_that_was_changed_since_is_refused(weights, tuned, tiny_adapter, tmp_path):
    (tiny_adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(BackendError, match=r"adapter_config.json differs from"):
        load_model(tuned, tmp_path, weights, "float32", "cpu")


def test_an_adapter_without_effect_fails_the_probe(weights, tiny, tuned, tiny_adapter, tmp_path):
    path = tiny_adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({k: t * 0 if "lora_B" in k else t for k, t in tensors.items()}, path)
    silent = tiny.adapter_card("lora", tiny_adapter, f"file:{tiny_adapter}")
    card = tuned.model_copy(update={"adapters": (silent,)})
    with pytest.raises(BackendError, match=r"lora the logits .* are equal"):
        load_model(card, tmp_path, weights, "float32", "cpu")


def test_an_adapter_whose_tensors_peft_would_drop_is_refused(
    weights, tiny, tuned, tiny_adapter, tmp_path
):
    path = tiny_adapter / "adapter_model.safetensors"
    save_file({k.replace("self_attn", "attention"): t for k, t in load_file(path).items()}, path)
    card = tiny.adapter_card("lora", tiny_adapter, f"file:{tiny_adapter}")
    with pytest.raises(BackendError, match=r"8 tensor.s. missing, 8 unexpected"):
        load_model(
            tuned.model_copy(update={"adapters": (card,)}), tmp_path, weights, "float32", "cpu"
        )


def test_a_weight_that_transformers_would_invent_is_refused(
    weights, tiny, tiny_folder, copy_of, tmp_path
):
    folder = copy_of(tiny_folder, "gap")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"missing.*layers.1.mlp.up_proj"):
        load_model(tiny.card(weights, folder), tmp_path, weights, "float32", "cpu")


def test_weights_that_are_not_finite_are_refused(weights, tiny, tiny_folder, copy_of, tmp_path):
    folder = copy_of(tiny_folder, "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"are not finite"):
        load_model(tiny.card(weights, folder), tmp_path, weights, "float32", "cpu")


def test_a_dtype_is_that_of_the_weights_and_spares_the_rotary_frequencies(tiny_folder):
    model = load_base(tiny_folder, "tiny", "float32", "cpu")
    before = model.model.rotary_emb.inv_freq.clone()
    cast_weights(model, "bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_precision_variant_loads_with_its_adapter(weights, tuned, tmp_path, dtype):
    loaded = load_model(tuned, tmp_path, weights, dtype, "cpu")
    plain = [w.dtype for n, w in loaded.model.named_parameters() if "lora" not in n]
    assert set(plain) == {getattr(torch, dtype)}

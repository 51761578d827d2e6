"""An adapter acts here as it does in peft, or is refused for the true reason."""

import json

import pytest
import torch

from toxtrail.backends.huggingface.weights.adapters import CONFIG, apply_adapter, check_adapter
from toxtrail.backends.huggingface.weights.load import merge_adapter
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError

IDS = torch.tensor([[2, 9, 40, 41, 200]])


@pytest.fixture
def changed(tiny_adapter):
    """The adapter with other settings."""

    def made(**values):
        path = tiny_adapter / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return tiny_adapter

    return made


@pytest.mark.parametrize(
    "values",
    [
        {"future_scale": 2.0},
        {"future_kind": "other"},
        {"future_list": ["a"]},
        {"future_map": {"a": 1}},
        {"future_switch": True},
    ],
    ids=str,
)
def test_an_active_setting_that_peft_does_not_know_is_refused_by_name(values, changed, tiny_folder):
    with pytest.raises(BackendError, match=rf"{next(iter(values))} = .*[Uu]pdate peft"):
        check_adapter(changed(**values), tiny_folder, "lora")


@pytest.mark.parametrize(
    "values",
    [
        {"future": None},
        {"future": False},
        {"future": []},
        {"future": {}},
        {"future": ""},
        {"future": 0.0},
        {"peft_version": "99.0", "auto_mapping": {"parent_library": "x"}, "revision": "main"},
        {"unsloth_version": "2026.1", "transformers_version": "9"},
        {"base_model_name_or_path": "somebody/else", "inference_mode": False},
        {"lora_alpha": 8.5},
    ],
    ids=str,
)
def test_what_changes_nothing_is_no_reason(values, changed, tiny_folder):
    check_adapter(changed(**values), tiny_folder, "lora")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config"),
        ({"r": "4"}, "r = '4'"),
        ({"r": True}, "r = True"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"rank_pattern": {"q_proj": "8"}}, "rank_pattern.q_proj"),
        ({"use_dora": "false"}, "use_dora = 'false'"),
        ({"use_rslora": 1}, "use_rslora = 1"),
        ({"r": 0}, "ValueError"),
        ({"rank_pattern": 5}, "lora"),
        ({"target_modules": 5}, "lora"),
        ({"target_modules": ["nowhere"]}, "fit the base model.*nowhere"),
        ({"layers_to_transform": "x"}, "lora"),
        ({"init_lora_weights": "nonsense"}, "lora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": ["LORA"]}, "LORA"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_applied_are_named(values, said, changed, tiny_folder):
    with pytest.raises(BackendError, match=said):
        check_adapter(changed(**values), tiny_folder, "lora")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"<html>", b"\xff", b"[" * 100_000, b"\0"])
def test_settings_that_are_no_json_object_are_named(content, tiny_adapter, tiny_folder):
    (tiny_adapter / CONFIG).write_bytes(content)
    with pytest.raises(BackendError, match=rf"lora: {CONFIG}"):
        check_adapter(tiny_adapter, tiny_folder, "lora")


# --- embeddings -----------------------------------------------------------------------------------


def saved(folder, base, tokens=0, embeddings="auto", trained=(), **settings):
    """An adapter as peft's users publish one, perhaps with more tokens, and what peft computes."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    def base_model():
        model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        if tokens:
            model.resize_token_embeddings(model.config.vocab_size + tokens, mean_resizing=False)
        return model

    with silence_libraries(), torch.random.fork_rng():
        torch.manual_seed(3)
        lora = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}
        model = get_peft_model(base_model(), LoraConfig(**lora))
        for name, weight in model.named_parameters():
            if any(part in name for part in ("lora_B", "lora_embedding_B", *trained)):
                torch.nn.init.normal_(weight, std=0.3)
        model.save_pretrained(folder, save_embedding_layers=embeddings)
        (folder / "README.md").unlink(missing_ok=True)
        return logits(PeftModel.from_pretrained(base_model(), folder).eval(), tokens)


def logits(model, tokens):
    ids = torch.cat([IDS, torch.tensor([[320 + n for n in range(tokens)]])], 1) if tokens else IDS
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def base(request, tiny, tmp_path):
    return tiny.save_model(tmp_path / "base", tiny.tokenizer(), tie_word_embeddings=request.param)


CARRIED = {
    "beside": {"embeddings": True},
    "targets-embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "targets-output": {"target_modules": ["q_proj", "lm_head"]},
    "targets-both": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "modules-to-save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "few-tokens": {"trainable_token_indices": [40, 41]},
    "larger": {"tokens": 8, "embeddings": True},
    "larger-trained": {"tokens": 8, "modules_to_save": ["embed_tokens", "lm_head"]},
    "larger-targets": {
        "tokens": 8, "embeddings": True, "target_modules": ["q_proj", "embed_tokens", "lm_head"],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CARRIED)
def test_an_adapter_that_holds_embeddings_computes_what_peft_computes(kind, base, tmp_path):
    folder = tmp_path / "adapter"
    expected = saved(folder, base, trained=("modules_to_save",), **CARRIED[kind])
    tokens = CARRIED[kind].get("tokens", 0)
    assert check_adapter(folder, base, "lora") == 320 + tokens
    model = apply_adapter(load_base(base, "base", "float32", "cpu"), folder, "lora")
    assert torch.equal(logits(model, tokens), expected)
    one_matrix_for_two = model.config.tie_word_embeddings and "targets" in kind
    if one_matrix_for_two and kind != "targets-embedding":
        with pytest.raises(BackendError, match="cannot be merged"):
            merge_adapter(model, "lora")
    else:
        assert torch.allclose(logits(merge_adapter(model, "lora"), tokens), expected, atol=1e-4)


def test_new_tokens_that_the_model_could_not_write_are_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    base = tiny.save_model(tmp_path / "base", tiny.tokenizer(), tie_word_embeddings=False)
    saved(tmp_path / "adapter", base, tokens=8, embeddings=True)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({k: t for k, t in load_file(path).items() if "lm_head" not in k}, path)
    with pytest.raises(BackendError, match=r"328 tokens, the base has 320.*lm_head"):
        check_adapter(path.parent, base, "lora")


def test_an_adapter_of_another_base_is_still_refused(tiny, tiny_folder, tmp_path):
    other = tiny.save_model(tmp_path / "other", tiny.tokenizer(), hidden_size=64)
    saved(tmp_path / "adapter", other, embeddings=True)
    with pytest.raises(BackendError, match="base model.*trained on"):
        check_adapter(tmp_path / "adapter", tiny_folder, "lora")


def test_nothing_is_drawn_at_random_while_an_adapter_is_attached(tiny, tmp_path):
    base = tiny.save_model(tmp_path / "base", tiny.tokenizer())
    saved(tmp_path / "adapter", base, tokens=8, embeddings=True)
    first, second = (
        apply_adapter(load_base(base, "base", "float32", "cpu"), tmp_path / "adapter", "lora")
        for _ in range(2)
    )
    assert torch.equal(logits(first, 8), logits(second, 8))


def test_an_adapter_of_a_compiled_model_changes_nothing_in_peft_and_is_refused(tiny, tmp_path):
    """The story of the README."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    base = tiny.save_model(tmp_path / "base", tiny.tokenizer())
    folder = tmp_path / "adapter"
    acting = saved(folder, base)
    path = folder / "adapter_model.safetensors"
    prefix, compiled = "base_model.model.", "base_model.model._orig_mod."
    save_file({k.replace(prefix, compiled, 1): t for k, t in load_file(path).items()}, path)
    alone, loaded = (AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    with pytest.warns(UserWarning, match="missing adapter keys"):
        without_effect = PeftModel.from_pretrained(loaded, folder)
    assert torch.equal(logits(without_effect.eval(), 0), logits(alone, 0))
    assert not torch.equal(acting, logits(alone, 0))
    with pytest.raises(BackendError, match=r"4 tensor\(s\) missing, 4 unexpected.*_orig_mod"):
        check_adapter(folder, base, "lora")

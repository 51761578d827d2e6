"""A variant is what it claims to be, and not its parent: asked before anything is generated."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from toxtrail.backends.huggingface.weights import load as weights_load
from toxtrail.backends.huggingface.weights.load import (
    HuggingFaceProver,
    adds_one_adapter,
    load_model,
)
from toxtrail.backends.huggingface.weights.logit_probe import (
    PROBES,
    probe_of,
    require_deterministic_load,
    require_differs_from_parent,
    require_same_model,
    top_token_agreement,
)
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import ModelIdentity, probe_digest


@pytest.fixture
def probed(weights, tmp_path):
    """Card -> its logits on the probe sentences."""
    return lambda card: load_model(card, tmp_path, weights, "float32", "cpu").probe


def other_weights(path, change):
    """The file's tensors changed; the same tensors still give other bytes."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt", "note": "merged"})


def test_two_loads_agree_and_their_probe_goes_on_the_card(weights, tiny_card, tmp_path):
    prover = HuggingFaceProver(weights, "cpu")
    probe = prover.prove(tiny_card, tmp_path)
    assert (probe.texts, probe.dtype) == (PROBES, "float32")
    assert probe.digest == probe_digest(probe.texts, probe.dtype, probe.top_tokens)
    assert prover.prove(tiny_card.model_copy(update={"probe": probe}), tmp_path) == probe


def test_a_load_that_draws_at_random_is_refused(weights, tiny_card, tmp_path, monkeypatch):
    """As transformers does with a head that the file does not have."""
    honest = weights_load.load_base

    def random_head(*arguments):
        model = honest(*arguments)
        torch.nn.init.normal_(model.lm_head.weight)
        return model

    monkeypatch.setattr(weights_load, "load_base", random_head)
    with pytest.raises(BackendError, match="logits that differ"):
        HuggingFaceProver(weights, "cpu").prove(tiny_card, tmp_path)


def test_a_byte_copy_of_the_parent_is_refused_with_its_file(tiny_card, probed):
    copy = tiny_card.model_copy(update={"key": "copy"})
    with pytest.raises(BackendError, match=r"parent.*\(model.safetensors\)"):
        require_differs_from_parent(copy, tiny_card, probed(copy), probed(tiny_card))


def test_a_merge_that_merged_nothing_is_refused(
    weights, tiny, tiny_card, tiny_folder, copy_of, probed
):
    folder = copy_of(tiny_folder, "merged")
    other_weights(folder / "model.safetensors", lambda tensors: None)
    merged = tiny.card(weights, folder).model_copy(update={"key": "merged"})
    assert merged.fingerprint != tiny_card.fingerprint
    with pytest.raises(BackendError, match=r"its files differ"):
        require_differs_from_parent(merged, tiny_card, probed(merged), probed(tiny_card))


def test_a_real_change_passes_however_small(weights, tiny, tiny_card, tiny_folder, copy_of, probed):
    folder = copy_of(tiny_folder, "nudged")

    def nudge(tensors):
        tensors["model.layers.0.mlp.up_proj.weight"] *= 1.01

    other_weights(folder / "model.safetensors", nudge)
    nudged = tiny.card(weights, folder)
    require_differs_from_parent(nudged, tiny_card, probed(nudged), probed(tiny_card))


def test_another_vocabulary_is_another_model(tiny_card):
    require_differs_from_parent(tiny_card, tiny_card, torch.zeros(4, 9), torch.zeros(4, 10))


def test_weights_that_are_not_those_of_the_card_are_refused(tiny_card, probed):
    logits = probed(tiny_card)
    own = probe_of(logits, "float32")
    require_same_model("v", own, own)
    stranger = probe_of(-logits, "float32")
    with pytest.raises(BackendError, match=r"agree .* on \d+% of"):
        require_same_model("v", own, stranger)


def test_a_near_tie_that_falls_otherwise_is_no_stranger(tiny_card, probed):
    own = probe_of(probed(tiny_card), "float32")
    moved = own.model_copy(update={"top_tokens": (own.top_tokens[0] + 1, *own.top_tokens[1:])})
    assert 0.75 < top_token_agreement(own, moved) < 1
    require_same_model("v", own, moved)


def test_other_sentences_agree_on_nothing(tiny_card, probed):
    own = probe_of(probed(tiny_card), "float32")
    assert top_token_agreement(own, own.model_copy(update={"texts": ("x",)})) == 0
    assert top_token_agreement(own, own.model_copy(update={"top_tokens": own.top_tokens[1:]})) == 0


def test_unlike_loads_are_measured():
    require_deterministic_load("v", torch.ones(2), torch.ones(2))
    with pytest.raises(BackendError, match=r"differ by 0\.5"):
        require_deterministic_load("v", torch.ones(2), torch.ones(2) / 2)


def test_an_adapter_alone_makes_a_child_of_its_own_base(tiny, tiny_card, tiny_adapter):
    adapter = tiny.adapter_card("lora", tiny_adapter, f"file:{tiny_adapter}")
    tuned = tiny_card.model_copy(update={"key": "tuned", "adapters": (adapter,)})
    assert adds_one_adapter(tuned, tiny_card)
    assert not adds_one_adapter(tiny_card, tiny_card)
    assert not adds_one_adapter(tuned, tuned)


def test_an_adapter_that_moves_no_likeliest_token_is_marked(
    weights, tiny, tiny_folder, tiny_adapter, tmp_path
):
    faint = tmp_path / "faint"
    shutil.copytree(tiny_adapter, faint)
    tensors = load_file(faint / "adapter_model.safetensors")
    scaled = {k: t * 1e-8 if "lora_B" in k else t for k, t in tensors.items()}
    save_file(scaled, faint / "adapter_model.safetensors", metadata={"format": "pt"})
    base = weights.describe(f"file:{tiny_folder}", None)
    unmoved = []
    for folder in (faint, tiny_adapter):
        own = weights.describe_adapter("v", f"file:{folder}", None, base)
        assert own.other_base is None
        card = ModelIdentity(key="v", base=base, adapters=(own,))
        unmoved.append(HuggingFaceProver(weights, "cpu").prove(card, tmp_path).unmoved)
    assert unmoved == [True, None]


def test_the_base_that_an_adapter_names_goes_on_its_card(weights, tiny_folder, tiny_adapter):
    path = tiny_adapter / "adapter_config.json"
    values = json.loads(path.read_text()) | {"base_model_name_or_path": "org/Other"}
    path.write_text(json.dumps(values))
    base = weights.describe(f"file:{tiny_folder}", None)
    own = weights.describe_adapter("v", f"file:{tiny_adapter}", None, base)
    assert own.other_base == "org/Other"

"""An adapter's own tokenizer and chat template are used, recorded, and held to fit the base."""

import json
import shutil

import pytest

from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel
from toxtrail.backends.huggingface.weights.load import load_model, verify_files
from toxtrail.backends.openai_api.server import local_parts
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import ModelIdentity

OWN = "[Q]{{ messages[-1].content }}[A]"


@pytest.fixture
def described(weights, tiny_chat_card):
    """A card of the chat model with one adapter."""

    def made(folder):
        adapter = weights.describe_adapter("lora", f"file:{folder}", None, tiny_chat_card.base)
        return ModelIdentity(key="tuned", base=tiny_chat_card.base, adapters=(adapter,))

    return made


@pytest.fixture
def with_tokenizer(tiny, tiny_adapter):
    """Saves a changed copy of the base's tokenizer beside the adapter."""

    def made(change=lambda tokenizer: None, template=tiny.chat_template):
        tokenizer = tiny.tokenizer()
        tokenizer.chat_template = template
        change(tokenizer)
        tokenizer.save_pretrained(tiny_adapter)
        return tiny_adapter

    return made


def test_an_adapter_without_a_tokenizer_leaves_no_trace_on_its_card(described, tiny_adapter):
    (adapter,) = described(tiny_adapter).adapters
    assert adapter.brings == ()
    assert not {"tokenizer_sha256", "chat_template_sha256"} & adapter.to_json().keys()


def test_a_copy_of_the_bases_tokenizer_is_not_its_own(described, with_tokenizer):
    (adapter,) = described(with_tokenizer()).adapters
    assert adapter.brings == ()


def test_a_tokenizer_without_a_template_keeps_the_bases(
    described, with_tokenizer, weights, tmp_path
):
    card = described(with_tokenizer(template=None))
    assert card.adapters[0].brings == ()
    assert "<|start|>" in verify_files(card, tmp_path, weights).tokenizer().chat_template


def test_its_own_template_is_used_here_and_for_a_server(
    described, with_tokenizer, weights, tmp_path
):
    card = described(with_tokenizer(template=OWN))
    assert [what for what, _ in card.adapters[0].brings] == ["chat template"]
    loaded = load_model(card, tmp_path, weights, "float32", "cpu")
    model = HuggingFaceModel(loaded.model, loaded.tokenizer, Decoding(2, 0.0, 1.0, "chat"), 64)
    assert loaded.tokenizer.decode(model.encode("The ship").token_ids) == "[Q]The ship[A]"
    assert local_parts(card, tmp_path, weights).tokenizer.chat_template == OWN


def test_a_template_alone_is_enough(described, tiny_adapter, weights, tmp_path):
    (tiny_adapter / "chat_template.jinja").write_text(OWN)
    card = described(tiny_adapter)
    assert [what for what, _ in card.adapters[0].brings] == ["chat template"]
    tokenizer = verify_files(card, tmp_path, weights).tokenizer()
    assert tokenizer.chat_template == OWN
    assert tokenizer("The ship")["input_ids"]


def test_settings_alone_are_put_on_the_bases_vocabulary(
    described, tiny_adapter, tiny_chat_folder, weights, tmp_path
):
    settings = json.loads((tiny_chat_folder / "tokenizer_config.json").read_text())
    changed = json.dumps({**settings, "eos_token": "<|start|>", "chat_template": OWN})
    (tiny_adapter / "tokenizer_config.json").write_text(changed)
    card = described(tiny_adapter)
    tokenizer = verify_files(card, tmp_path, weights).tokenizer()
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|start|>", OWN)
    assert [what for what, _ in card.adapters[0].brings] == ["tokenizer", "chat template"]


def test_of_two_adapters_the_last_that_brings_one_is_read_with(
    described, with_tokenizer, tiny, tiny_folder, weights, tmp_path
):
    card = described(with_tokenizer(template=OWN))
    plain = tiny.save_adapter(tmp_path / "plain", tiny_folder, seed=2)
    other = tiny.adapter_card("plain", plain, f"file:{plain}")
    both = card.model_copy(update={"adapters": (*card.adapters, other)})
    assert verify_files(both, tmp_path, weights).tokenizer().chat_template == OWN


def test_another_tokenizer_changes_the_tokens_and_the_identity(
    described, with_tokenizer, weights, tmp_path, tiny
):
    folder = with_tokenizer()
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["model"]["merges"] = []
    plain = described(shutil.copytree(folder, tmp_path / "copy")).fingerprint
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    card = described(folder)
    assert [what for what, _ in card.adapters[0].brings] == ["tokenizer"]
    assert card.fingerprint != plain
    ids = verify_files(card, tmp_path, weights).tokenizer()("The ship")["input_ids"]
    assert len(ids) == len("The ship") > len(tiny.tokenizer()("The ship")["input_ids"])


def test_tokens_without_an_embedding_are_refused_with_the_first(described, with_tokenizer):
    folder = with_tokenizer(lambda tokenizer: tokenizer.add_tokens(["<new>", "<newer>"]))
    with pytest.raises(BackendError, match=r'2 token\(s\).*no embedding.*"<new>" \(320\)'):
        described(folder)


def test_a_padding_token_needs_no_embedding(described, with_tokenizer):
    folder = with_tokenizer(lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "[PAD]"}))
    assert [what for what, _ in described(folder).adapters[0].brings] == ["tokenizer"]


def test_a_damaged_tokenizer_of_an_adapter_is_named(described, with_tokenizer):
    folder = with_tokenizer()
    (folder / "tokenizer.json").write_text("<html>")
    with pytest.raises(BackendError, match=rf"{folder.name}.*tokenizer"):
        described(folder)

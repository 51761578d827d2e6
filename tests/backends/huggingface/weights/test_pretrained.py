"""Whatever is wrong with a model's configuration or tokenizer is one error that names the file."""

import json

import pytest

from toxtrail.backends.huggingface.generation.generator import HuggingFaceModel, ends_of
from toxtrail.backends.huggingface.weights.load import load_model
from toxtrail.backends.huggingface.weights.pretrained import (
    embedding_rows,
    load_base,
    load_tokenizer,
)
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError, problem_of

CONFIG = [
    {"dtype": "torch.bfloat16"}, {"dtype": "auto"}, {"dtype": 5}, {"hidden_size": "32"},
    {"num_attention_heads": 0}, {"num_attention_heads": 5}, {"hidden_act": "nope"},
    {"vocab_size": None}, {"model_type": ["llama"]}, {"model_type": "nope"},
    {"eos_token_id": "x"}, {"quantization_config": "x"}, {"rope_parameters": 5},
    {"rope_parameters": {"rope_type": "linear", "factor": "2", "rope_theta": 1e4}},
]  # fmt: skip
TOKENIZER = [
    {"extra_special_tokens": "..."}, {"extra_special_tokens": [1]}, {"tokenizer_class": 5},
    {"added_tokens_decoder": {"x": {"content": "a"}}}, {"added_tokens_decoder": [1]},
    {"model_max_length": "x"}, {"eos_token": 5}, {"eos_token": {"a": 1}},
]  # fmt: skip
NO_JSON = [
    b"",
    b"{",
    b"[]",
    b"<html>",
    b"\xff",
    b"[" * 100_000,
    b"version https://git-lfs.github.com/",
]


@pytest.fixture
def edited(copy_of, tiny_folder):
    """A copy of the model with other entries in one of its files."""

    def made(file, values):
        folder = copy_of(tiny_folder, "edited")
        before = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**before, **values}))
        return folder

    return made


@pytest.mark.parametrize("values", CONFIG, ids=str)
def test_a_wrong_entry_of_config_json_is_named(values, edited, weights):
    with pytest.raises(BackendError, match=r"edited: .*(config\.json|model_type)"):
        weights.describe(f"file:{edited('config.json', values)}", None)


@pytest.mark.parametrize("values", TOKENIZER, ids=str)
def test_a_wrong_entry_of_the_tokenizer_is_named(values, edited, weights):
    with pytest.raises(BackendError, match="edited: its tokenizer.*tokenizer_config.json"):
        weights.describe(f"file:{edited('tokenizer_config.json', values)}", None)


def test_chat_templates_that_are_no_templates_are_named(edited, weights):
    with pytest.raises(BackendError, match="edited: its tokenizer"):
        weights.describe(f"file:{edited('tokenizer_config.json', {'chat_template': ['a']})}", None)


@pytest.mark.parametrize("content", NO_JSON, ids=repr)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_files_that_are_no_json_object_are_named(file, content, copy_of, tiny_folder, weights):
    folder = copy_of(tiny_folder, "edited")
    (folder / file).write_bytes(content[:40] if file == "tokenizer.json" else content)
    with pytest.raises(BackendError, match=rf"edited: .*{file}"):
        weights.describe(f"file:{folder}", None)


@pytest.mark.parametrize("content", [b"[]", b"<html>", b""])
def test_generation_settings_that_are_no_json_are_not_passed_over(content, copy_of, tiny_folder):
    folder = copy_of(tiny_folder, "edited")
    (folder / "generation_config.json").write_bytes(content)
    with pytest.raises(BackendError, match=r"generation_config\.json"):
        load_base(folder, "edited", "float32", "cpu")


@pytest.mark.parametrize("published", ["1", [[1]], ["1"], 1.0, True, {"a": 1}])
def test_ends_that_are_no_tokens_are_refused(published, tiny):
    with pytest.raises(BackendError, match="eos_token_id"):
        ends_of(published, tiny.tokenizer())


@pytest.mark.parametrize(
    ("published", "ends"), [(None, (1,)), (5, (1, 5)), ([7, 5], (1, 5, 7)), ([], (1,))]
)
def test_ends_are_the_published_ones_and_the_tokenizers(published, ends, tiny):
    assert ends_of(published, tiny.tokenizer()) == ends


def test_code_of_a_repo_beside_a_known_type_is_not_needed(edited, weights):
    auto_map = {"AutoConfig": "configuration.Own", "AutoModelForCausalLM": "modeling.Own"}
    assert weights.describe(f"file:{edited('config.json', {'auto_map': auto_map})}", None)


# --- tokens without an embedding ------------------------------------------------------------------


@pytest.fixture
def larger(copy_of, tiny, tiny_folder):
    """A model whose tokenizer has tokens that its embedding has not."""

    def made(*tokens, template=tiny.chat_template):
        folder, tokenizer = copy_of(tiny_folder, "larger"), tiny.tokenizer()
        tokenizer.chat_template = template
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained(folder)
        return folder

    return made


def test_a_token_of_the_probe_without_an_embedding_is_named(larger, tiny, weights, tmp_path):
    card = tiny.card(weights, larger("weather"))
    with pytest.raises(BackendError, match=r'token 320 \("weather"\).* 320 embeddings'):
        load_model(card, tmp_path, weights, "float32", "cpu")


def test_a_token_of_the_template_without_an_embedding_is_refused_at_load(
    larger, tiny, weights, tmp_path
):
    template = tiny.chat_template.replace("<|start|>", "<|turn|>")
    card = tiny.card(weights, larger("<|turn|>", template=template))
    loaded = load_model(card, tmp_path, weights, "float32", "cpu")
    with pytest.raises(Exception, match=r"'<\|turn\|>', token 320"):
        HuggingFaceModel(loaded.model, loaded.tokenizer, Decoding(2, 0.0, 1.0, "chat"), 64)


@pytest.mark.parametrize("engine", ["packed", "plain"])
def test_a_prompt_with_such_a_token_is_an_error_of_its_row_alone(
    larger, tiny, weights, tmp_path, engine
):
    card = tiny.card(weights, larger("<odd>"))
    loaded = load_model(card, tmp_path, weights, "float32", "cpu")
    decoding = Decoding(2, 0.0, 1.0, "none")
    model = HuggingFaceModel(loaded.model, loaded.tokenizer, decoding, 64, engine)
    asked = [model.encode(text) for text in ("The ship", "an <odd> word", "A tree in the garden")]
    rows = dict(model.complete(asked, [1, 2, 3]))
    assert [bool(rows[n].error) for n in range(3)] == [False, True, False]
    assert "token 320" in rows[1].error


def test_padding_beyond_the_embedding_is_not_read(larger, tiny, weights, tmp_path):
    folder = larger("[PAD]")
    tokenizer = load_tokenizer(folder, "larger")
    tokenizer.pad_token = "[PAD]"
    tokenizer.save_pretrained(folder)
    loaded = load_model(tiny.card(weights, folder), tmp_path, weights, "float32", "cpu")
    assert loaded.tokenizer.pad_token_id == embedding_rows(loaded.model) == 320
    decoding = Decoding(2, 0.0, 1.0, "none")
    model = HuggingFaceModel(loaded.model, loaded.tokenizer, decoding, 64, "plain")
    asked = [model.encode(text) for text in ("The", "A tree in the garden")]
    assert [row.error for _, row in model.complete(asked, [1, 2])] == ["", ""]


# --- the boundary ---------------------------------------------------------------------------------


class PanicException(BaseException):
    """As tokenizers and safetensors raise it."""


@pytest.mark.parametrize(
    "error", [TypeError("a\nb"), KeyError("x"), RecursionError(), PanicException("index")]
)
def test_whatever_a_library_raises_names_file_and_cure(error):
    with (
        pytest.raises(BackendError, match=rf"f\.json.*{type(error).__name__}.*Fetch it again"),
        library_errors("org/name: f.json cannot be read", "Fetch it again."),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError(28, "No space")])
def test_what_is_no_fault_of_a_file_passes(error):
    with pytest.raises(type(error)), library_errors("f.json", "Fetch it again."):
        raise error


def test_our_own_errors_and_what_the_system_refuses_pass():
    with pytest.raises(BackendError, match="^mine$"), library_errors("f.json", "Fetch it again."):
        raise BackendError("mine")
    refused = [PermissionError(13, "Permission denied", "/x/y"), MemoryError()]
    for error in refused:
        with pytest.raises(type(error)), library_errors("f.json", "Fetch it again."):
            raise error
    assert problem_of(refused[0]).startswith("/x/y: ")

"""Identity cards of weights and adapters."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from toxtrail.backends.huggingface.weights.resolve import pinned_uri, readme_license, stored_dtype
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file

ADAPTER = "adapter_model.safetensors"


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


# --- base weights ---


def test_a_card_counts_tied_weights_once_and_says_what_is_stored(weights, tiny_folder):
    card = weights.describe(f"file:{tiny_folder}", None)
    stored = sum(t.numel() for t in load_file(tiny_folder / "model.safetensors").values())
    assert card.parameters == stored
    assert card.architecture == "LlamaForCausalLM"
    assert card.stored_dtype == "float32"
    assert card.license == "apache-2.0"
    assert (card.quantization, card.converted, card.chat_template_sha256) == (None, (), None)
    assert {file.path for file in card.files} >= {"config.json", "model.safetensors"}


def test_another_vocabulary_or_template_gives_another_identity(weights, tiny, tiny_folder, copy_of):
    tiny_card = weights.describe(f"file:{tiny_folder}", None)
    other = copy_of(tiny_folder, "other")
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["zzz"])
    tokenizer.chat_template = tiny.chat_template
    tokenizer.save_pretrained(other)
    card = weights.describe(f"file:{other}", None)
    assert card.tokenizer_sha256 != tiny_card.tokenizer_sha256
    assert card.chat_template_sha256 is not None


def test_a_stored_format_is_named_by_its_share(tmp_path):
    import torch

    tensors = {"a": torch.zeros(10, dtype=torch.float16), "b": torch.zeros(3)}
    save_file(tensors, tmp_path / "x.safetensors")
    assert stored_dtype([tmp_path / "x.safetensors"], "x") == "float16+float32"


def test_weights_in_another_pickle_are_refused(weights, tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "pickled")
    (folder / "model.safetensors").rename(folder / "weights.pt")
    with pytest.raises(BackendError, match=r"found weights.pt.*only pytorch_model.bin"):
        weights.describe(f"file:{folder}", None)


def test_a_model_that_brings_its_own_code_is_refused(weights, tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "remote")
    edit_json(folder / "config.json", model_type="evil", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(BackendError, match=r"'evil'.*never run"):
        weights.describe(f"file:{folder}", None)


def test_a_known_model_with_superfluous_code_is_loaded_without_it(weights, tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "phi-like")
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert weights.describe(f"file:{folder}", None).architecture == "LlamaForCausalLM"


def test_a_folder_without_config_is_refused(weights, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(BackendError, match=r"has no config.json"):
        weights.describe(f"file:{tmp_path / 'empty'}", None)


def test_an_adapter_is_refused_as_a_model(weights, tiny_adapter):
    with pytest.raises(BackendError, match=r"adapter\.uri"):
        weights.describe(f"file:{tiny_adapter}", None)


def test_a_single_file_that_is_no_gguf_is_refused(weights, tiny_folder):
    with pytest.raises(BackendError, match=r"single file.*\.gguf"):
        weights.describe(f"file:{tiny_folder / 'model.safetensors'}", None)


def test_a_changed_file_is_refused_with_both_hashes(weights, tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "mine")
    base = weights.describe(f"file:{folder}", None)
    before = sha256_file(folder / "generation_config.json")
    edit_json(folder / "generation_config.json", eos_token_id=7)
    after = sha256_file(folder / "generation_config.json")
    with pytest.raises(BackendError, match=f"found {after}, the card has {before}"):
        weights.folder(base)


def test_a_missing_file_is_refused(weights, tiny_folder, copy_of):
    folder = copy_of(tiny_folder, "mine")
    base = weights.describe(f"file:{folder}", None)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BackendError, match=r"tokenizer.json.*found no file"):
        weights.folder(base)


def test_a_branch_is_fetched_by_the_commit_it_meant():
    commit = "a" * 40
    assert pinned_uri("hf:org/name@main", commit) == f"hf:org/name@{commit}"
    assert pinned_uri("hf:org/name@main/x.gguf", commit) == f"hf:org/name@{commit}/x.gguf"
    assert pinned_uri("file:folder", "b" * 64) == "file:folder"


@pytest.mark.parametrize("text", ["no front matter", "---\n: [\n---\n", "---\ntags: [a]\n---\n"])
def test_a_readme_without_a_licence_claims_none(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert readme_license(tmp_path) is None


# --- adapters ---


def describe_adapter(weights, folder, tiny_folder):
    base = weights.describe(f"file:{tiny_folder}", None)
    return weights.describe_adapter("mine", f"file:{folder}", None, base)


def test_a_fitting_adapter_gets_a_card(weights, tiny_adapter, tiny_folder):
    card = describe_adapter(weights, tiny_adapter, tiny_folder)
    assert {file.path for file in card.files} == {ADAPTER, "adapter_config.json"}
    assert (card.key, card.training) == ("mine", None)


@pytest.mark.parametrize(
    ("changes"),
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["norm"]},
    ],
    ids=str,
)
def test_the_kinds_of_lora_that_peft_knows_are_accepted(
    weights, tiny, tiny_folder, tmp_path, changes
):
    folder = tiny.save_adapter(tmp_path / "kind", tiny_folder, 1, **changes)
    assert describe_adapter(weights, folder, tiny_folder).key == "mine"


def test_a_lora_that_changes_nothing_is_refused(weights, tiny_adapter, tiny_folder):
    def silence(tensors):
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor.zero_()

    edit_tensors(tiny_adapter / ADAPTER, silence)
    with pytest.raises(BackendError, match=r"all 6 lora_B tensors are zero"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_an_adapter_with_a_nan_is_refused(weights, tiny_adapter, tiny_folder):
    edit_tensors(
        tiny_adapter / ADAPTER, lambda tensors: next(iter(tensors.values())).fill_(float("nan"))
    )
    with pytest.raises(BackendError, match=r"not finite"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_a_missing_tensor_is_refused(weights, tiny_adapter, tiny_folder):
    edit_tensors(tiny_adapter / ADAPTER, lambda tensors: tensors.pop(sorted(tensors)[0]))
    with pytest.raises(BackendError, match=r"1 tensor.s. missing, 0 unexpected"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_renamed_tensors_that_peft_would_ignore_are_refused(weights, tiny_adapter, tiny_folder):
    def rename(tensors):
        for name in list(tensors):
            tensors[name.replace("layers", "blocks")] = tensors.pop(name)

    edit_tensors(tiny_adapter / ADAPTER, rename)
    with pytest.raises(BackendError, match=r"12 tensor.s. missing, 12 unexpected"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_an_adapter_of_another_base_is_refused(weights, tiny, tiny_folder, tmp_path):
    other = tiny.save_model(tmp_path / "wide", tiny.tokenizer(), hidden_size=64)
    folder = tiny.save_adapter(tmp_path / "foreign", other, 1)
    with pytest.raises(BackendError, match=r"of another shape"):
        describe_adapter(weights, folder, tiny_folder)


def test_an_adapter_without_weights_is_refused(weights, tiny_adapter, tiny_folder):
    (tiny_adapter / ADAPTER).rename(tiny_adapter / "adapter.pt")
    with pytest.raises(
        BackendError, match=r"has no adapter_model.safetensors or adapter_model.bin"
    ):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_an_adapter_that_is_no_lora_is_refused(weights, tiny_adapter, tiny_folder):
    edit_json(tiny_adapter / "adapter_config.json", peft_type="PREFIX_TUNING")
    with pytest.raises(BackendError, match=r"'PREFIX_TUNING'; only LORA"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


def test_an_adapter_for_layers_that_the_base_lacks_is_refused(weights, tiny_adapter, tiny_folder):
    edit_json(tiny_adapter / "adapter_config.json", target_modules=["no_such_layer"])
    with pytest.raises(BackendError, match=r"fit the base model"):
        describe_adapter(weights, tiny_adapter, tiny_folder)


# --- GGUF ---


@pytest.fixture(scope="session")
def tiny_gguf(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model as a Q8_0 GGUF file that says: no BOS."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf", tiny_folder)


def write_gguf(path: Path, tiny_folder: Path, blocks: int = 2, extra: str | None = None) -> Path:
    """The tiny model; `blocks` is what its metadata says, `extra` the name of one more tensor."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = json.loads((tiny_folder / "tokenizer.json").read_text())["model"]
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary["vocab"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    writer.add_token_types([3, 3] + [1] * (len(vocabulary["vocab"]) - 2))
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    for name, tensor in load_file(tiny_folder / "model.safetensors").items():
        add_tensor(writer, name, tensor.numpy())
    if extra is not None:
        writer.add_tensor(extra, np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tensor(writer, name, values) -> None:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
    data = gguf.quants.quantize(values, kind)
    writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=kind)


def test_a_gguf_file_becomes_a_clean_safetensors_model(weights, tiny_gguf, tiny_folder):
    base = weights.describe(f"file:{tiny_gguf}", None)
    assert base.quantization == "Q8_0 (GGUF), dequantized to bfloat16"
    assert (base.license, base.stored_dtype) == ("mit", "bfloat16")
    assert base.parameters == weights.describe(f"file:{tiny_folder}", None).parameters
    assert {file.path for file in base.converted} >= {"model.safetensors", "tokenizer.json"}
    made = load_file(weights.folder(base) / "model.safetensors")
    original = load_file(tiny_folder / "model.safetensors")
    assert made.keys() == original.keys()
    name = "model.layers.1.mlp.down_proj.weight"
    assert (made[name].float() - original[name]).abs().max() < 0.02
    assert "quantization_config" not in (weights.folder(base) / "config.json").read_text()


def test_converting_twice_gives_equal_bytes(weights, tiny_gguf):
    base = weights.describe(f"file:{tiny_gguf}", None)
    shutil.rmtree(weights.folder(base))
    assert weights.describe(f"file:{tiny_gguf}", None) == base


def test_a_converted_tokenizer_adds_no_bos_where_the_file_says_so(weights, tiny_gguf):
    from toxtrail.backends.huggingface.weights.pretrained import load_tokenizer

    folder = weights.folder(weights.describe(f"file:{tiny_gguf}", None))
    tokenizer = load_tokenizer(folder, "tiny")
    assert tokenizer.bos_token_id == 0
    assert 0 not in tokenizer("Hello")["input_ids"]
    assert tokenizer.decode(tokenizer("The ship sailed")["input_ids"]) == "The ship sailed"


def test_a_tokenizer_that_disobeys_its_file_is_refused(tiny):
    from toxtrail.backends.huggingface.weights.gguf import Header, check_bos

    with pytest.raises(BackendError, match=r"add_bos_token = True"):
        check_bos(tiny.tokenizer(), Header("Q8_0", None, adds_bos=True), "x.gguf")


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda copy: change(copy / "model.safetensors"),
        lambda copy: (copy / "tokenizer.json").unlink(),
        lambda copy: (copy / "files.json").write_text("[]"),
        lambda copy: (copy / "files.json").unlink(),
        lambda copy: (copy / "adapter_config.json").write_text("{}"),
    ],
    ids=["bytes", "missing", "listing", "no listing", "one more file"],
)
def test_a_damaged_converted_copy_is_made_again(weights, tiny_gguf, damage):
    base = weights.describe(f"file:{tiny_gguf}", None)
    copy = weights.folder(base)
    damage(copy)
    assert weights.folder(base) == copy
    files = {f.relative_to(copy).as_posix(): sha256_file(f) for f in copy.rglob("*")}
    assert files.pop("files.json")
    assert files == {file.path: file.sha256 for file in base.converted}


def test_a_copy_that_these_libraries_make_otherwise_is_refused(weights, tiny_gguf):
    base = weights.describe(f"file:{tiny_gguf}", None)
    other = base.converted[0].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(BackendError, match=r"tiny.*convert its weights .*others"):
        weights.folder(base.model_copy(update={"converted": (other, *base.converted[1:])}))


def test_a_file_that_only_claims_to_be_gguf_is_refused(weights, tmp_path):
    (tmp_path / "fake.gguf").write_bytes(b"hello" * 100)
    with pytest.raises(BackendError, match=r"not an intact GGUF"):
        weights.describe(f"file:{tmp_path / 'fake.gguf'}", None)


@pytest.mark.parametrize(("blocks", "extra"), [(1, None), (2, "blk.0.attn_q.bias"), (2, "blk.1.x")])
def test_tensors_of_a_gguf_file_without_a_place_are_refused(
    weights, tiny_folder, tmp_path, blocks, extra
):
    path = write_gguf(tmp_path / "x.gguf", tiny_folder, blocks, extra)
    with pytest.raises(BackendError, match=f"x.gguf: .*{extra or 'blk.1'}"):
        weights.describe(f"file:{path}", None)


def test_rotary_factors_of_a_gguf_file_are_no_weights(weights, tiny_folder, tmp_path):
    path = write_gguf(tmp_path / "x.gguf", tiny_folder, extra="rope_freqs.weight")
    assert weights.describe(f"file:{path}", None).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("name", "kind"), [("general.license", "str"), ("tokenizer.ggml.add_bos_token", "bool")]
)
def test_metadata_of_the_wrong_type_are_named(tmp_path, name, kind):
    import gguf

    from toxtrail.backends.huggingface.weights.gguf import read_header

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32(name, 5)
    writer.add_tensor("a", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BackendError, match=rf"x\.gguf.*{name} is 5.*{kind}"):
        read_header(tmp_path / "x.gguf")


@pytest.mark.parametrize(("name", "parts"), [("x-00001-of-00003.gguf", None), ("x.gguf", 3)])
def test_a_part_of_a_split_gguf_file_is_refused_with_the_cure(tmp_path, name, parts):
    import gguf

    from toxtrail.backends.huggingface.weights.gguf import read_header

    writer = gguf.GGUFWriter(tmp_path / name, "llama")
    if parts:
        writer.add_uint16("split.count", parts)
    writer.add_tensor("a", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BackendError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        read_header(tmp_path / name)


def test_a_gguf_file_may_end_in_upper_case(weights, tiny_folder, tmp_path):
    folder = tmp_path / "upper"
    folder.mkdir()
    path = write_gguf(folder / "TINY.GGUF", tiny_folder)
    assert "GGUF" in weights.describe(f"file:{path}", None).quantization

"""Pickled weights become safetensors of the same values, and their code never runs."""

import json
import os
import pickle
import shutil
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file

from toxtrail.backends.checkpoint_files.pickled_weights import (
    read_pickled_tensors,
    safetensors_copy,
)
from toxtrail.backends.checkpoint_files.weight_files import has_only_pickled_weights
from toxtrail.backends.huggingface.weights.load import HuggingFaceProver, load_model
from toxtrail.backends.huggingface.weights.logit_probe import probe_logits
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import ModelIdentity, hash_tree

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


class Code:
    """A pickled command."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


def pickled(folder, shards=1):
    """Replace the safetensors of a checkpoint by the files that torch.save writes."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(OrderedDict(tensors), folder / "pytorch_model.bin")
        return folder
    names = [f"pytorch_model-{n + 1:05}-of-{shards:05}.bin" for n in range(shards)]
    weight_map = {key: names[n % shards] for n, key in enumerate(sorted(tensors))}
    for name in names:
        part = {key: tensors[key] for key, file in weight_map.items() if file == name}
        torch.save(part, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


# --- one file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_are_read_as_they_were_saved(tmp_path, zipped):
    torch.save(TENSORS, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    tensors = read_pickled_tensors(tmp_path / "x.bin", "x.bin")
    assert tensors.keys() == TENSORS.keys()
    assert all(tensors[key].equal(TENSORS[key]) for key in TENSORS)
    assert tensors["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, zipped):
    content = {**TENSORS, "c": Code(tmp_path / "ran")}
    torch.save(content, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(BackendError, match=r"x\.bin .*more than tensors.*mkdir.*safetensors"):
        read_pickled_tensors(tmp_path / "x.bin", "x.bin")
    (tmp_path / "x.bin").write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    with pytest.raises(BackendError, match=r"x\.bin"):
        read_pickled_tensors(tmp_path / "x.bin", "x.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([TENSORS["a"]], "type list"),
        ({}, "type dict"),
        ({"state_dict": TENSORS}, "entry 'state_dict'"),
        ({**TENSORS, "epoch": 3}, "entry 'epoch'"),
        (TENSORS["a"], "type Tensor"),
    ],
    ids=["list", "empty", "nested", "number", "tensor"],
)
def test_a_pickle_of_anything_else_is_no_weight_file(tmp_path, content, reason):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(BackendError, match=f"tensors by name.*{reason}"):
        read_pickled_tensors(tmp_path / "x.bin", "x.bin")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<!doctype html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04 cut", "damaged"),
        (b"\x80\x02}q\x00.", "tensors by name|damaged"),
        (b"text", "damaged"),
    ],
    ids=["empty", "page", "pointer", "cut", "pickle", "text"],
)
def test_a_file_that_is_no_pickle_of_tensors_is_named(tmp_path, data, reason):
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(BackendError, match=f"x.bin.*({reason})"):
        read_pickled_tensors(tmp_path / "x.bin", "x.bin")


def test_safetensors_have_precedence():
    assert has_only_pickled_weights({"pytorch_model.bin", "sub/model.safetensors"})
    assert not has_only_pickled_weights({"pytorch_model.bin", "model.safetensors"})
    assert not has_only_pickled_weights({"training_args.bin"})
    assert has_only_pickled_weights({"adapter_model.bin"})
    assert not has_only_pickled_weights({"adapter_model.bin", "adapter_model.safetensors"})


# --- a checkpoint ---------------------------------------------------------------------------------


def card(weights, folder):
    return ModelIdentity(key="tiny", base=weights.describe(f"file:{folder}", None), adapters=())


@pytest.mark.parametrize("shards", [1, 3])
def test_a_pickled_model_is_the_same_model(weights, tiny_folder, copy_of, tmp_path, shards):
    expected = load_model(card(weights, tiny_folder), tmp_path, weights, "float32", "cpu")
    folder = pickled(copy_of(tiny_folder, "pickled"), shards)
    identity = card(weights, folder)
    loaded = load_model(identity, tmp_path, weights, "float32", "cpu")
    logits = probe_logits(loaded.model, loaded.tokenizer)
    assert torch.equal(logits, probe_logits(expected.model, expected.tokenizer))
    original = {file.path for file in identity.base.files}
    converted = {file.path for file in identity.base.converted}
    assert all(path.endswith((".bin", ".bin.index.json")) for path in original - converted)
    assert {path.partition(".")[2] for path in converted - original} <= {
        "safetensors", "safetensors.index.json",
    }  # fmt: skip
    assert len(converted - original) == (1 if shards == 1 else shards + 1)
    assert (identity.base.stored_dtype, identity.base.license) == ("float32", "apache-2.0")
    assert HuggingFaceProver(weights, "cpu").prove(identity, tmp_path).top_tokens


def test_one_file_gives_the_bytes_of_the_safetensors(weights, tiny_folder, copy_of):
    base = card(weights, pickled(copy_of(tiny_folder, "pickled"))).base
    plain = {f.path: f.sha256 for f in card(weights, tiny_folder).base.files}
    assert {f.path: f.sha256 for f in base.converted} == plain


def test_tied_weights_are_written_separately(tiny, tmp_path):
    folder = tmp_path / "tied"
    folder.mkdir()
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": whole, "b": whole, "c": whole[1:], "d": whole.T}, folder / "pytorch_model.bin")
    asset = tiny.assets().fetch(f"file:{folder}", None)
    tensors = load_file(safetensors_copy(asset, tmp_path / "cache").folder / "model.safetensors")
    assert all(tensors[key].equal(whole) for key in "ab")
    assert tensors["c"].equal(whole[1:])
    assert tensors["d"].equal(whole.T)


def test_a_copy_is_complete_or_absent_and_made_once(weights, tiny_folder, copy_of, tmp_path):
    folder = pickled(copy_of(tiny_folder, "pickled"), 3)
    broken = folder / "pytorch_model-00003-of-00003.bin"
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(BackendError, match="00003.bin is damaged"):
        card(weights, folder)
    assert [p for p in (tmp_path / "cache/converted").iterdir() if p.suffix != ".lock"] == []
    broken.write_bytes(data)
    first = card(weights, folder)
    (copy,) = (p for p in (tmp_path / "cache/converted").iterdir() if p.is_dir())
    before = (copy / "files.json").stat().st_mtime_ns
    assert card(weights, folder) == first
    assert (copy / "files.json").stat().st_mtime_ns == before
    (copy / "config.json").write_text("{}")
    assert card(weights, folder) == first
    shutil.rmtree(copy)
    assert weights.folder(first.base) == copy


def test_a_part_that_the_index_names_and_that_is_missing_is_named(weights, tiny_folder, copy_of):
    folder = pickled(copy_of(tiny_folder, "pickled"), 3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(BackendError, match="00002-of-00003.bin is missing"):
        card(weights, folder)


def test_a_pickled_original_that_changed_is_refused(weights, tiny_folder, copy_of):
    folder = pickled(copy_of(tiny_folder, "pickled"))
    base = card(weights, folder).base
    torch.save(TENSORS, folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"pytorch_model\.bin differs .*model card"):
        weights.folder(base)


# --- an adapter -----------------------------------------------------------------------------------


def test_a_pickled_adapter_is_the_same_adapter(weights, tiny_card, tiny_adapter, tmp_path):
    def logits():
        adapter = weights.describe_adapter("lora", f"file:{tiny_adapter}", None, tiny_card.base)
        tuned = tiny_card.model_copy(update={"adapters": (adapter,)})
        loaded = load_model(tuned, tmp_path, weights, "float32", "cpu")
        return probe_logits(loaded.model, loaded.tokenizer), adapter

    expected, _ = logits()
    path = tiny_adapter / "adapter_model.safetensors"
    torch.save(load_file(path), tiny_adapter / "adapter_model.bin")
    path.unlink()
    actual, adapter = logits()
    assert torch.equal(actual, expected)
    assert {file.path for file in adapter.files} == {"adapter_config.json", "adapter_model.bin"}
    (copy,) = (p for p in (tmp_path / "cache/converted").iterdir() if p.is_dir())
    assert adapter.converted == tuple(hash_tree(copy, copy.glob("adapter_*")))
    trained = tmp_path / "adapters"
    assert weights.adapter_folder(adapter, trained) == copy
    other = adapter.converted[0].model_copy(update={"sha256": "0" * 64})
    changed = adapter.model_copy(update={"converted": (other, *adapter.converted[1:])})
    with pytest.raises(BackendError, match="model card"):
        weights.adapter_folder(changed, trained)
    cards = [tiny_card.model_copy(update={"adapters": (each,)}) for each in (adapter, changed)]
    assert len({card.fingerprint for card in cards}) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!doctype html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"text", "damaged"),
    ],
    ids=["empty", "page", "pointer", "text"],
)
def test_an_adapter_that_is_no_tensor_file_is_named(
    weights, tiny_card, tiny_adapter, tmp_path, content, reason
):
    (tiny_adapter / "adapter_model.safetensors").unlink()
    (tiny_adapter / "adapter_model.bin").write_bytes(content)
    with pytest.raises(BackendError, match=rf"adapter_model\.bin.*{reason}"):
        weights.describe_adapter("lora", f"file:{tiny_adapter}", None, tiny_card.base)
    assert [p for p in (tmp_path / "cache/converted").iterdir() if p.is_dir()] == []


def test_an_adapter_with_code_is_refused(weights, tiny_card, tiny_adapter, tmp_path):
    (tiny_adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": Code(tmp_path / "ran")}, tiny_adapter / "adapter_model.bin")
    with pytest.raises(BackendError, match=r"adapter_model\.bin .*more than tensors"):
        weights.describe_adapter("lora", f"file:{tiny_adapter}", None, tiny_card.base)
    assert not (tmp_path / "ran").exists()

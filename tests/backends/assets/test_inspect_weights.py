"""Weights are inspected by what the Hub says, before they are downloaded."""

from pathlib import Path

import pytest

from toxtrail.backends.assets.hub_info import HubAnswer, HubClient, RepoInfo
from toxtrail.backends.assets.inspect_weights import examine_weights
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import BackendError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Repo(HubClient):
    """A hub with one repo: files -> size, JSON files -> content."""

    def __init__(self, files, values=None, **facts):
        super().__init__()
        info = RepoInfo(name="org/name", commit=COMMIT, gated=False, files=files, **facts)
        self._answers["org/name", "model", None] = HubAnswer("there", "", info)
        self._answers["org/name", "model", "main"] = HubAnswer("there", "", info)
        self._values = values or {}

    def json_file(self, repo, commit, name):
        assert (repo, commit) == ("org/name", COMMIT)
        return self._values.get(name)


def examine(repo, uri="hf:org/name"):
    store = AssetStore(Path("cache"), Path(), NoProgress())
    return examine_weights(uri, Path(), store, repo)


# --- a folder of a repo ---------------------------------------------------------------------------

FOLDERS = {
    "model.safetensors": 100,
    "config.json": 1,
    "run/step-1/adapter_config.json": 2,
    "run/step-1/adapter_model.safetensors": 30,
    "run/step-1/optimizer.pt": 900,
    "run/step-1/tokenizer.json": 5,
    "full/config.json": 2,
    "full/model.safetensors": 70,
}


def test_an_adapter_in_a_folder_is_examined_as_one():
    settings = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    repo = Repo(FOLDERS, {"run/step-1/adapter_config.json": settings}, model_type="llama")
    candidate = examine(repo, "hf:org/name@main/run/step-1")
    assert candidate.uri == f"hf:org/name@{COMMIT}/run/step-1"
    assert (candidate.kind, candidate.size, candidate.name) == ("adapter", 37, "name-run-step-1")
    assert [claim.base for claim in candidate.claims] == ["org/base"]
    assert (candidate.unusable, candidate.model_type) == ((), None)
    assert any("tokenizer" in note for note in candidate.notes)


def test_a_checkpoint_in_a_folder_has_the_type_of_its_own_config():
    repo = Repo(FOLDERS, {"full/config.json": {"model_type": "gpt2"}}, model_type="t5")
    candidate = examine(repo, "hf:org/name@main/full/")
    assert (candidate.kind, candidate.model_type, candidate.size) == ("checkpoint", "gpt2", 72)
    assert candidate.unusable == ()


def test_a_folder_that_the_repo_does_not_have_is_refused():
    with pytest.raises(BackendError, match="no file .*folder run/step"):
        examine(Repo(FOLDERS), "hf:org/name@main/run/step")


# --- pickled weights ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"config.json": 1, "pytorch_model.bin": 20, "training_args.bin": 900}, 21),
        ({"pytorch_model.bin.index.json": 1, "pytorch_model-00001-of-00001.bin": 20}, 21),
        ({"adapter_config.json": 1, "adapter_model.bin": 5, "optimizer.bin": 900}, 6),
    ],
)
def test_pickled_weights_are_a_note(files, size):
    candidate = examine(Repo(files))
    assert (candidate.size, candidate.unusable) == (size, ())
    assert "pickled" in " ".join(candidate.notes)


def test_pickled_weights_beside_safetensors_are_not_downloaded():
    files = {"model.safetensors": 20, "pytorch_model.bin": 900}
    candidate = examine(Repo(files))
    assert (candidate.size, candidate.notes, candidate.unusable) == (20, (), ())


def test_a_repo_without_weights_is_unusable():
    assert "it has no model.safetensors" in " ".join(examine(Repo({"flax.msgpack": 1})).unusable)


# --- quantized weights ----------------------------------------------------------------------------

CHECKPOINT = {"model.safetensors": 20, "config.json": 1}


def test_a_method_that_transformers_does_not_load_is_refused_before_the_download():
    settings = {"quant_method": "modelopt"}
    candidate = examine(Repo(CHECKPOINT, model_type="llama", quantization=settings))
    assert "modelopt" in " ".join(candidate.unusable)


def test_a_method_that_needs_no_package_is_a_note():
    candidate = examine(Repo(CHECKPOINT, model_type="llama", quantization={"quant_method": "fp8"}))
    assert candidate.unusable == ()
    assert "quantized by fp8" in " ".join(candidate.notes)


# --- GGUF files -----------------------------------------------------------------------------------


def test_a_part_of_a_split_gguf_file_is_refused_before_the_download():
    files = {"x-00001-of-00002.gguf": 50, "x-00002-of-00002.gguf": 50, "y-00001-of-00001.gguf": 9}
    candidate = examine(Repo(files), "hf:org/name@main/x-00001-of-00002.gguf")
    assert "one of 2 parts" in " ".join(candidate.unusable)
    assert examine(Repo(files), "hf:org/name@main/y-00001-of-00001.gguf").unusable == ()

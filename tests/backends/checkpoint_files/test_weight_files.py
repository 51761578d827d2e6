"""What is loaded is what is hashed, and a file that holds no weights is named before it is read."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save, save_file

from toxtrail.backends.checkpoint_files.weight_files import (
    checkpoint_files,
    inspect_weights,
    refuse_outside_names,
    stored_tensors,
)
from toxtrail.errors import BackendError

WEIGHTS = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16)}
WHOLE = save(WEIGHTS)


def safetensors_of(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# --- one file ---


def test_a_header_says_what_is_stored(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(WHOLE)
    found = stored_tensors(tmp_path / "x.safetensors", "x")
    assert found == {"a": ("F32", (2, 3)), "b": ("F16", (4,))}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"PK\x03\x04" + b"\0" * 100, "pickle"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"GGUF" + b"\3\0\0\0" * 20, "GGUF"),
        (b"root:x:0:0:root:/root:/bin/bash\n" * 20, "not an intact safetensors"),
        (b"\xff" * 64, "not an intact safetensors"),
        (WHOLE[:-1], "not an intact safetensors"),
        (WHOLE[:40], "not an intact safetensors"),
        (WHOLE + b"more", "not an intact safetensors"),
        (safetensors_of(b"[" * 3000, b""), "not an intact safetensors"),
        (
            safetensors_of({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"),
            "F99",
        ),
        (
            safetensors_of(
                {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"abcdefgh"
            ),
            "offset",
        ),
    ],
)
def test_a_file_that_holds_no_weights_is_named_with_the_cure(tmp_path, content, word):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BackendError, match=f"mine: model.safetensors .*{word}.*\\."):
        stored_tensors(tmp_path / "model.safetensors", "mine")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200) | st.integers(0, len(WHOLE) - 1).map(lambda n: WHOLE[:n]))
def test_no_content_ends_in_another_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BackendError):
        stored_tensors(path, "x")
    with pytest.raises(BackendError):
        inspect_weights(path, "x.gguf", set())


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match="not a regular file"):
        stored_tensors(tmp_path / "model.safetensors", "x")


# --- a folder ---


def folder_with(root: Path, **files: object) -> Path:
    for name, content in {"config": {}, **files}.items():
        path = root / f"{name}.json"
        path.write_text(json.dumps(content), "utf-8")
    return root


def index_of(*names: str) -> dict[str, object]:
    return {"metadata": {}, "weight_map": {f"t{i}": name for i, name in enumerate(names)}}


def names_of(root: Path) -> set[str]:
    """What of a folder is hashed."""
    from toxtrail.backends.assets.local import content_of

    return {p.relative_to(root).as_posix() for p in content_of(root) if p.is_file()}


def loaded_from(root: Path) -> list[str]:
    found = checkpoint_files(root, "mine", names_of(root))
    return [path.relative_to(root).as_posix() for path in found]


@pytest.mark.parametrize("inner", ["", "shards/"])
def test_shards_are_found_by_their_index(tmp_path, inner):
    root = folder_with(tmp_path, **{"model.safetensors.index": index_of(f"{inner}b", f"{inner}a")})
    (root / "shards").mkdir()
    for name in "ab":
        save_file(WEIGHTS, root / f"{inner}{name}")
    assert loaded_from(root) == [f"{inner}a", f"{inner}b"]


def test_a_single_file_comes_before_an_index_as_in_transformers(tmp_path):
    root = folder_with(tmp_path, **{"model.safetensors.index": index_of("other.safetensors")})
    save_file(WEIGHTS, root / "model.safetensors")
    assert loaded_from(root) == ["model.safetensors"]


def test_a_file_that_the_config_names_comes_first(tmp_path):
    root = folder_with(tmp_path, config={"transformers_weights": "mine.safetensors"})
    for name in ("model", "mine"):
        save_file(WEIGHTS, root / f"{name}.safetensors")
    assert loaded_from(root) == ["mine.safetensors"]


OUTSIDE = [
    "../outside.safetensors",
    "/etc/passwd",
    ".hidden.safetensors",
    ".cache/x.safetensors",
    "sub/../../outside.safetensors",
    "sub/",
    "",
    7,
    None,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_names_only_hashed_files(tmp_path, name):
    save_file(WEIGHTS, tmp_path / "outside.safetensors")
    root = tmp_path / "model"
    (root / ".cache").mkdir(parents=True)
    (root / "sub").mkdir()
    save_file(WEIGHTS, root / ".hidden.safetensors")
    save_file(WEIGHTS, root / ".cache/x.safetensors")
    save_file(WEIGHTS, root / "one.safetensors")
    folder_with(root, **{"model.safetensors.index": index_of("one.safetensors", name)})
    with pytest.raises(BackendError, match="verified files"):
        loaded_from(root)
    (root / "model.safetensors.index.json").unlink()
    folder_with(root, config={"transformers_weights": name})
    if name is not None:
        with pytest.raises(BackendError, match="verified files"):
            loaded_from(root)


def test_a_file_beside_the_hashed_ones_is_not_loaded(tmp_path):
    """The hub's cache holds what other programs fetched, too."""
    root = folder_with(tmp_path, **{"model.safetensors.index": index_of("one.safetensors")})
    save_file(WEIGHTS, root / "one.safetensors")
    with pytest.raises(BackendError, match="verified files"):
        checkpoint_files(root, "mine", {"config.json", "model.safetensors.index.json"})


def test_a_missing_shard_is_named(tmp_path):
    root = folder_with(tmp_path, **{"model.safetensors.index": index_of("one", "two")})
    save_file(WEIGHTS, root / "one")
    with pytest.raises(BackendError, match="mine: two is missing"):
        loaded_from(root)


@pytest.mark.parametrize("index", [[], {"weight_map": []}, {"weight_map": {}, "metadata": {}}, {}])
def test_an_index_of_another_form_is_named(tmp_path, index):
    root = folder_with(tmp_path, **{"model.safetensors.index": index})
    with pytest.raises(BackendError, match=r"model\.safetensors\.index\.json"):
        loaded_from(root)


@pytest.mark.parametrize(
    "files",
    [
        {"config": {"configuration_files": ["config.json", "config.0.0.1/../../x.json"]}},
        {"tokenizer_config": {"fast_tokenizer_files": ["tokenizer.1.0.0/../../x.json"]}},
        {"tokenizer_config": {"gguf_file": "../x.gguf"}},
        {"tokenizer_config": {"vocab": "/etc/passwd"}},
        {"tokenizer_config": {"merges": "/etc/passwd"}},
    ],
)
def test_a_configuration_names_only_hashed_files(tmp_path, files):
    root = folder_with(tmp_path, **files)
    with pytest.raises(BackendError, match="verified files"):
        refuse_outside_names(root, "mine", names_of(root))


def test_what_transformers_does_not_follow_is_allowed(tmp_path):
    left = {"tokenizer_file": "/root/x/tokenizer.json", "name_or_path": "../x", "vocab_file": "a"}
    left |= {"fast_tokenizer_files": ["tokenizer.json"], "special_tokens_map_file": "/home/x"}
    root = folder_with(tmp_path, tokenizer={}, tokenizer_config=left)
    refuse_outside_names(root, "mine", names_of(root))


# --- what a load opens ---

IN_OPEN, IN_ISDIR = 0x20, 0x40000000


class Opened:
    """Names of the files of folders that anything opens, native code as well (inotify)."""

    def __init__(self, root: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK)
        self._folders = {}
        for folder in (root, *(p for p in root.rglob("*") if p.is_dir())):
            watch = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN)
            assert watch > 0
            self._folders[watch] = folder.relative_to(root)

    def names(self) -> set[str]:
        found = set()
        try:
            while events := os.read(self._fd, 1 << 20):
                while events:
                    watch, mask, _, length = struct.unpack_from("iIII", events)
                    name = events[16 : 16 + length].rstrip(b"\0").decode()
                    events = events[16 + length :]
                    if name and not mask & IN_ISDIR:
                        found.add((self._folders[watch] / name).as_posix())
        except BlockingIOError:
            os.close(self._fd)
        return found


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_every_file_that_a_load_opens_is_hashed(weights, tiny_chat_folder, copy_of):
    from toxtrail.backends.huggingface.weights.pretrained import load_base, load_tokenizer

    folder = copy_of(tiny_chat_folder, "watched")
    tensors = load_file(folder / "model.safetensors")
    half = sorted(tensors)[:4]
    save_file({k: tensors[k] for k in half}, folder / "one.safetensors", {"format": "pt"})
    rest = {k: v for k, v in tensors.items() if k not in half}
    save_file(rest, folder / "two.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    places = {k: "one.safetensors" if k in half else "two.safetensors" for k in tensors}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text("{{ messages }}")
    for name in (".hidden.safetensors", "pytorch_model.bin", ".git"):
        (folder / name).write_bytes(b"x")
    base = weights.describe(f"file:{folder}", None)
    hashed = {file.path for file in base.files} - {".hidden.safetensors", ".git"}
    opened = Opened(folder)
    load_base(folder, "mine", "float32", "cpu")
    load_tokenizer(folder, "mine")
    found = opened.names()
    assert {"one.safetensors", "two.safetensors", "additional_chat_templates/rag.jinja"} <= found
    assert found <= hashed - {"pytorch_model.bin"}


# --- through the stage's own door ---


def test_weights_outside_are_refused_when_described_and_when_loaded(
    weights, tiny_folder, copy_of, tmp_path
):
    """A card of before the check is no way around it."""
    folder = copy_of(tiny_folder, "model")
    base = weights.describe(f"file:{folder}", None)
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    keys = load_file(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BackendError, match="verified files"):
        weights.describe(f"file:{folder}", None)
    from toxtrail.provenance.identity import hash_tree, tree_sha256

    files = hash_tree(folder, [path for path in folder.rglob("*") if path.is_file()])
    forged = base.model_copy(update={"files": files, "sha256": tree_sha256(files)})
    with pytest.raises(BackendError, match="verified files"):
        weights.folder(forged)

"""Check weight files before a library reads them: which are loaded, and whether they are intact.

Only headers are read. Files that transformers would open must be among the hashed files; otherwise
weights could change while their identity stays the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.library_errors import library_errors
from toxtrail.errors import BackendError
from toxtrail.regular_files import open_regular, read_text

if TYPE_CHECKING:
    from gguf import GGUFReader

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED_SINGLE = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
ADAPTER = "adapter_model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"
TOKENIZER_CONFIG = "tokenizer_config.json"
PICKLED = (".bin", ".pt", ".pth")
SPLIT_GGUF = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)
HEAD = 512
"""Number of leading bytes by which a file's type is detected."""
DOWNLOAD_AGAIN = "Download it again."
KINDS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    (
        (b"version https://git-lfs.github.com", b"version https://hawser.github.com"),
        "a Git LFS pointer, not the file itself",
        "Run `git lfs pull` in its repository, or download the file itself.",
    ),
    (
        (b"# xet version",),
        "a Xet pointer, not the file itself",
        "Download the file itself (`hf download`).",
    ),
    (
        (b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--"),
        "a web page, not the file itself",
        "Download the file itself; the page is often that of a site that requires a login.",
    ),
    (
        (b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle of PyTorch under another name",
        "Give it the name that PyTorch writes (pytorch_model.bin), or choose safetensors weights.",
    ),
    ((b"gguf",), "a GGUF file", "Give the file itself, with the suffix .gguf."),
    ((b"\x1f\x8b", b"7z\xbc\xaf", b"bzh", b"\xfd7zxz"), "a compressed archive", "Unpack it."),
)
"""First bytes in lower case -> what the file is, what to do."""


class TensorEntry(NamedTuple):
    """A tensor's entry in a safetensors file."""

    dtype: str
    """Name of the dtype in safetensors: `F32`, `BF16`."""
    shape: tuple[int, ...]


def checkpoint_files(folder: Path, name: str, hashed: Collection[str]) -> list[Path]:
    """List the safetensors files that transformers would load from a folder, by its own rules.

    Args:
        name: name of the weights in error messages.
        hashed: names of the hashed files, relative to the folder.

    Raises:
        BackendError: there are none, one is missing, or one is not hashed.
    """
    explicit = _json_object(folder / "config.json", name).get("transformers_weights")
    if explicit is not None:
        chosen = str(explicit)
        where = "config.json (transformers_weights)"
        _require_hashed(folder, [explicit], where, name, hashed)
    else:
        chosen = SINGLE if (folder / SINGLE).is_file() else INDEX
        _require_hashed(folder, [chosen], "the folder", name, hashed)
    indexed = chosen.endswith(".index.json")
    names = index_names(folder, name, chosen, hashed) if indexed else [chosen]
    for file in names:
        _require_present(folder / file, name)
    return [folder / file for file in names]


def refuse_outside_names(folder: Path, name: str, hashed: Collection[str]) -> None:
    """Raise if a configuration names a file to read that is not hashed.

    transformers reads each of these files. It ignores other paths that are often in configurations,
    such as `tokenizer_file` or `name_or_path`.

    Raises:
        BackendError: a file is not hashed.
    """
    config = _json_object(folder / "config.json", name)
    tokenizer = _json_object(folder / TOKENIZER_CONFIG, name)
    for file, values, key in (
        ("config.json", config, "configuration_files"),
        (TOKENIZER_CONFIG, tokenizer, "fast_tokenizer_files"),
    ):
        listed = values.get(key)
        if isinstance(listed, list):
            _require_hashed(folder, listed, f"{file} ({key})", name, hashed)
    for key in ("gguf_file", "vocab", "merges"):
        if isinstance(tokenizer.get(key), str):
            raise BackendError(
                f"{name}: {TOKENIZER_CONFIG} names a file to read as {key} ({tokenizer[key]!r}), "
                "which is not part of the verified files. Remove that entry."
            )


def refuse_unhashed_vocabulary(
    names: Mapping[str, str | None], folder: Path, name: str, hashed: Collection[str]
) -> None:
    """Raise if the tokenizer is built from a file in the folder that is not hashed.

    Args:
        names: the tokenizer's `vocab_files_names`.
    """
    for file in names.values():
        if file and file not in hashed and (folder / file).is_file():
            raise BackendError(
                f"{name}: its tokenizer is built from {file}, which is not among the files that "
                "are downloaded and hashed. Save the tokenizer as tokenizer.json "
                "(`AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)`) and use that "
                "folder."
            )


def inspect_weights(path: Path, name: str, hashed: Collection[str]) -> None:
    """Check the headers of a checkpoint folder, an adapter folder or a GGUF file.

    Raises:
        BackendError: a file is missing, truncated, or not a weight file; with what to do.
    """
    if path.is_file():
        open_gguf(path, name)
    elif (path / ADAPTER).exists():
        stored_tensors(path / ADAPTER, name)
    elif has_only_pickled_weights(hashed):
        for file_name in pickled_files(path, name, hashed):
            _require_pickle(path / file_name, name)
    else:
        for file in checkpoint_files(path, name, hashed):
            stored_tensors(file, name)


def has_only_pickled_weights(files: Collection[str]) -> bool:
    """Return whether the weights of a checkpoint or an adapter are pickled (`.bin`) and not also
    safetensors.

    Args:
        files: names relative to its folder.
    """
    if any(name.endswith(".safetensors") and "/" not in name for name in files):
        return False
    return any(name in files for name in (PICKLED_SINGLE, PICKLED_INDEX, PICKLED_ADAPTER))


def pickled_files(folder: Path, name: str, hashed: Collection[str]) -> list[str]:
    """List the pickled files of the weights of an adapter or a checkpoint."""
    for single in (PICKLED_ADAPTER, PICKLED_SINGLE):
        if single in hashed:
            return [single]
    return index_names(folder, name, PICKLED_INDEX, hashed)


def _require_pickle(path: Path, name: str) -> None:
    """Raise if a file is missing or its first bytes are not those of a pickle of PyTorch."""
    _require_present(path, name)
    if problem := content_problem(path, "pickle"):
        raise BackendError(f"{_display_name(path, name)} {problem}")


def stored_tensors(path: Path, name: str) -> dict[str, TensorEntry]:
    """Read names, dtypes and shapes of a safetensors file; its data is not read.

    Raises:
        BackendError: it is not an intact safetensors file; with what to do.
    """
    from safetensors import safe_open

    with _header_errors(path, name, "safetensors"), safe_open(path, framework="np") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {
            key: TensorEntry(tensor.get_dtype(), tuple(tensor.get_shape()))
            for key, tensor in slices.items()
        }


def open_gguf(path: Path, name: str) -> GGUFReader:
    """Read the header of a GGUF file, and check that it is complete.

    Raises:
        BackendError: it is not an intact GGUF file; with what to do.
    """
    from gguf import GGUFReader

    with _header_errors(path, name, "GGUF"):
        return GGUFReader(path)


def gguf_value(reader: GGUFReader, key: str, name: str) -> Any:
    """Return a value of a GGUF file's metadata; None if it has none of this key.

    Raises:
        BackendError: it cannot be read.
    """
    field = reader.get_field(key)
    with library_errors(f"{name}: its metadata {key} cannot be read", DOWNLOAD_AGAIN):
        return None if field is None else field.contents()


def split_gguf_problem(name: str, count: object = None) -> str | None:
    """Explain why one part of a split GGUF file cannot be used; None if it is a complete file.

    Args:
        count: number of parts in its metadata (`split.count`), if known.
    """
    match = SPLIT_GGUF.search(name)
    parts = int(match[1]) if match else count
    if not isinstance(parts, int) or parts < 2:
        return None
    return (
        f"it is one of {parts} parts of a split GGUF file, which transformers does not read. Merge "
        "them (`llama-gguf-split --merge FIRST.gguf MERGED.gguf` of llama.cpp) and use "
        "file:MERGED.gguf, or use the model's safetensors repository"
    )


def content_problem(path: Path, expected: str = "") -> str | None:
    """Detect what an invalid weight file is, and what to do; None if its first bytes do not tell.

    Args:
        expected: the expected kind: `pickle` or `GGUF`.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
    if not head:
        return f"is empty. {DOWNLOAD_AGAIN}"
    if not any(head):
        return (
            f"starts with {len(head)} zero bytes: it was not written completely. {DOWNLOAD_AGAIN}"
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginnings, kind, advice in KINDS:
        if start.startswith(beginnings) and not (expected and expected in kind):
            return f"is {kind}. {advice}"
    return None


@contextmanager
def _header_errors(path: Path, name: str, kind: str) -> Iterator[None]:
    """Convert a library's error to one that states what the file is, and what to do."""
    _require_present(path, name)
    called = _display_name(path, name)
    what = f"{called} is not an intact {kind} file ({path.stat().st_size:,} bytes)"
    try:
        with library_errors(what, DOWNLOAD_AGAIN):
            yield
    except BackendError as error:
        problem = content_problem(path, kind)
        if problem is None:
            raise
        raise BackendError(f"{called} {problem}") from error


def _display_name(path: Path, name: str) -> str:
    """Return the names of weights and file, or only the file where both are the same."""
    return name if name.endswith(path.name) else f"{name}: {path.name}"


def _require_present(path: Path, name: str) -> None:
    """Raise unless it is a regular file; reading a pipe would never end."""
    if path.is_file():
        return
    what = "is not a regular file" if path.exists() else "is missing"
    if path.is_symlink() and not path.exists():
        what = "is a link to a missing file"
    raise BackendError(f"{_display_name(path, name)} {what}. {DOWNLOAD_AGAIN}")


def index_names(folder: Path, name: str, index: str, hashed: Collection[str]) -> list[str]:
    """List the files that an index names, each once."""
    path = folder / index
    if not path.is_file():
        raise BackendError(_no_weights(folder, name))
    values = _json_object(path, name)
    weight_map = values.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not isinstance(values.get("metadata"), dict)
        or not weight_map
    ):
        raise BackendError(
            f"{name}: {index} must contain `metadata` and `weight_map` (tensor: file). "
            f"{DOWNLOAD_AGAIN}"
        )
    names = list(weight_map.values())
    _require_hashed(folder, names, index, name, hashed)
    return sorted(set(names))


def _require_hashed(
    folder: Path, names: list[Any], where: str, name: str, hashed: Collection[str]
) -> None:
    """Raise if a name is not one of the hashed files; names may be of any type."""
    for file_name in names:
        if isinstance(file_name, str) and (file_name in hashed or _is_missing(file_name, folder)):
            continue
        raise BackendError(
            f"{name}: {where} names {file_name!r}, which is not one of its verified files: the "
            "files directly in its folder, without hidden ones. Put the file there under a plain "
            "name, and use that name."
        )


def _is_missing(file_name: str, folder: Path) -> bool:
    """Return whether it is a plain name of a missing file, which is reported when it is read."""
    plain = (
        bool(file_name)
        and "/" not in file_name
        and "\\" not in file_name
        and not file_name.startswith(".")
    )
    return plain and not (folder / file_name).is_file()


def _no_weights(folder: Path, name: str) -> str:
    present = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    return (
        f"{name} has no {SINGLE} (found {', '.join(present) or 'no weights at all'}). "
        f"Of pickled weights, only {PICKLED_SINGLE} and its parts are read: choose a revision with "
        "safetensors."
    )


def _json_object(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        problem = content_problem(path) or f"is not JSON ({error}). {DOWNLOAD_AGAIN}"
        raise BackendError(f"{name}: {path.name} {problem}") from error
    if not isinstance(values, dict):
        raise BackendError(f"{name}: {path.name} is not a JSON object. {DOWNLOAD_AGAIN}")
    return values

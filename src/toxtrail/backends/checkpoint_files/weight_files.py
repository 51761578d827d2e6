"""Files of weights before a library reads them: which ones are loaded, and are they whole?

Only headers are read. What transformers would open must be among the files whose hashes are kept;
otherwise weights could change while their identity stays.
"""

from __future__ import annotations

import json
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
ADAPTER = "adapter_model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
PICKLED = (".bin", ".pt", ".pth")
HEAD = 512
"""Bytes of a file that are looked at to say what it is."""
AGAIN = "Download it again."
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
        "Download the file itself: a page of a site that asks for a login is often saved instead.",
    ),
    (
        (b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle of PyTorch under another name",
        "A pickle is never loaded here: choose weights in safetensors.",
    ),
    ((b"gguf",), "a GGUF file", "Name the file itself, with the ending .gguf."),
    ((b"\x1f\x8b", b"7z\xbc\xaf", b"bzh", b"\xfd7zxz"), "a compressed archive", "Unpack it."),
)
"""First bytes in lower case -> what the file is, what to do."""


class Stored(NamedTuple):
    """One tensor as a safetensors file declares it."""

    dtype: str
    """As safetensors calls it: `F32`, `BF16`."""
    shape: tuple[int, ...]


def checkpoint_files(folder: Path, name: str, hashed: Collection[str]) -> list[Path]:
    """The safetensors files that transformers would load from a folder, in its own order of choice.

    Args:
        name: what error messages call the weights.
        hashed: names of the files whose hashes are kept, relative to the folder.

    Raises:
        BackendError: there are none (a pickle is never loaded), one is missing, or one is not among
            the hashed files.
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
    names = _index_names(folder, name, chosen, hashed) if indexed else [chosen]
    for one in names:
        _require_present(folder / one, name)
    return [folder / one for one in names]


def refuse_outside_names(folder: Path, name: str, hashed: Collection[str]) -> None:
    """Raise if a configuration names a file to read that is not among the hashed ones.

    transformers follows each of these names. It ignores other paths that such files often hold,
    such as `tokenizer_file` or `name_or_path`.

    Raises:
        BackendError: one is outside.
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
    """Raise if a file from which the tokenizer is built lies in the folder but is not hashed.

    Args:
        names: the tokenizer's `vocab_files_names`.
    """
    for file in names.values():
        if file and file not in hashed and (folder / file).is_file():
            raise BackendError(
                f"{name}: its tokenizer is built from {file}, which is not among the files that "
                "are downloaded and hashed. Save the tokenizer as tokenizer.json "
                "(`AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)`) and name that "
                "folder."
            )


def inspect_weights(place: Path, name: str, hashed: Collection[str]) -> None:
    """Look at the headers of a checkpoint folder, an adapter folder or a GGUF file.

    Raises:
        BackendError: a file is missing, cut, or no file of weights; with the cure.
    """
    if place.is_file():
        open_gguf(place, name)
    elif (place / ADAPTER).exists():
        stored_tensors(place / ADAPTER, name)
    else:
        for file in checkpoint_files(place, name, hashed):
            stored_tensors(file, name)


def stored_tensors(path: Path, name: str) -> dict[str, Stored]:
    """Names, dtypes and shapes of a safetensors file; its header is checked, its data not read.

    Raises:
        BackendError: it is not a whole safetensors file; with the cure.
    """
    from safetensors import safe_open

    with _reading(path, name, "safetensors"), safe_open(path, framework="np") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {key: Stored(one.get_dtype(), tuple(one.get_shape())) for key, one in slices.items()}


def open_gguf(path: Path, name: str) -> GGUFReader:
    """The header of a GGUF file, every tensor's bytes there.

    Raises:
        BackendError: it is not a whole GGUF file; with the cure.
    """
    from gguf import GGUFReader

    with _reading(path, name, "GGUF"):
        return GGUFReader(path)


def content_problem(path: Path, expected: str = "") -> str | None:
    """What a file that should hold weights is instead, and the cure; None if its first bytes do not
    tell.

    Args:
        expected: the kind that it should be: `pickle` or `GGUF`.
    """
    with open_regular(path) as file:
        head = file.read(HEAD)
    if not head:
        return f"is empty. {AGAIN}"
    if not any(head):
        return f"begins with {len(head)} zero bytes: it was not written completely. {AGAIN}"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginnings, kind, cure in KINDS:
        if start.startswith(beginnings) and not (expected and expected in kind):
            return f"is {kind}. {cure}"
    return None


@contextmanager
def _reading(path: Path, name: str, kind: str) -> Iterator[None]:
    """Whatever a library says of a file becomes what the file is, and the cure."""
    _require_present(path, name)
    called = _called(path, name)
    what = f"{called} is not a whole {kind} file ({path.stat().st_size:,} bytes)"
    try:
        with library_errors(what, AGAIN):
            yield
    except BackendError as error:
        problem = content_problem(path, kind)
        if problem is None:
            raise
        raise BackendError(f"{called} {problem}") from error


def _called(path: Path, name: str) -> str:
    """The weights and the file, or the file alone where that is the name."""
    return name if name.endswith(path.name) else f"{name}: {path.name}"


def _require_present(path: Path, name: str) -> None:
    """Raise unless it is a regular file: a pipe would never end."""
    if path.is_file():
        return
    what = "is not a regular file" if path.exists() else "is missing"
    if path.is_symlink() and not path.exists():
        what = "is a link to a file that is not there"
    raise BackendError(f"{_called(path, name)} {what}. {AGAIN}")


def _index_names(folder: Path, name: str, index: str, hashed: Collection[str]) -> list[str]:
    """The files that an index names, each once."""
    path = folder / index
    if not path.is_file():
        raise BackendError(_no_weights(folder, name))
    values = _json_object(path, name)
    places = values.get("weight_map")
    if not isinstance(places, dict) or not isinstance(values.get("metadata"), dict) or not places:
        raise BackendError(
            f"{name}: {index} must hold `metadata` and `weight_map` (tensor: file). {AGAIN}"
        )
    names = list(places.values())
    _require_hashed(folder, names, index, name, hashed)
    return sorted(set(names))


def _require_hashed(
    folder: Path, names: list[Any], where: str, name: str, hashed: Collection[str]
) -> None:
    """Raise if a name is not one of the hashed files; names are not trusted to be text."""
    for one in names:
        if isinstance(one, str) and (one in hashed or _is_missing(one, folder)):
            continue
        raise BackendError(
            f"{name}: {where} names {one!r}, which is not among its verified files: they are the "
            "files of its folder itself, without hidden ones. Put the file there under a plain "
            "name, and name that."
        )


def _is_missing(one: str, folder: Path) -> bool:
    """Whether it is a plain name of no file: that it is missing is said where it would be read."""
    plain = bool(one) and "/" not in one and "\\" not in one and not one.startswith(".")
    return plain and not (folder / one).is_file()


def _no_weights(folder: Path, name: str) -> str:
    present = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    return (
        f"{name} has no {SINGLE} (found {', '.join(present) or 'no weights at all'}). "
        "Pickled weights are never loaded: choose a revision with safetensors."
    )


def _json_object(path: Path, name: str) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        problem = content_problem(path) or f"is not JSON ({error}). {AGAIN}"
        raise BackendError(f"{name}: {path.name} {problem}") from error
    if not isinstance(values, dict):
        raise BackendError(f"{name}: {path.name} is not a JSON object. {AGAIN}")
    return values

"""Convert PyTorch's pickled checkpoints (`.bin`) to safetensors, without running their code.

A pickle is a program. torch's restricted unpickler rebuilds tensors and plain values and refuses
everything else, so a file that wants to run code is an error. What is loaded afterwards are
safetensors, whose hashes are recorded beside those of the original.
"""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.backends.checkpoint_files.converted_copies import (
    ConvertedCopy,
    CopyMetadata,
    converted_copy,
)
from toxtrail.backends.checkpoint_files.weight_files import (
    DOWNLOAD_AGAIN,
    INDEX,
    PICKLED,
    PICKLED_ADAPTER,
    PICKLED_INDEX,
    PICKLED_SINGLE,
    content_problem,
    pickled_files,
)
from toxtrail.backends.library_errors import described
from toxtrail.backends.protocols import Asset
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError, is_of_the_system
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    import torch

CHOOSE_SAFETENSORS = (
    "Choose a revision with safetensors: the Hub's SFconvertbot offers one for many repositories "
    "(Community, pull requests), whose commit can be pinned."
)


def safetensors_copy(asset: Asset, cache: Path) -> ConvertedCopy:
    """Return the copy of the folder of a checkpoint or an adapter with safetensors in place of its
    pickled weights.

    Raises:
        BackendError: a file contains more than tensors, is damaged or is missing.
    """
    names = [file.path for file in asset.files]
    return converted_copy(
        asset.uri, asset.sha256, cache, lambda draft: _write_copy(asset, names, draft)
    )


def _write_copy(asset: Asset, names: Sequence[str], draft: Path) -> CopyMetadata:
    pickled = pickled_files(asset.path, asset.uri, names)
    for name in pickled:
        tensors = read_pickled_tensors(asset.path / name, f"{asset.uri}: {name}")
        _write_tensors(tensors, draft / _safetensors_name(name))
    if not {PICKLED_SINGLE, PICKLED_ADAPTER} & set(pickled):
        _write_index(asset, draft)
    for name in names:
        if not name.endswith((*PICKLED, PICKLED_INDEX)):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asset.path / name, draft / name)
    return CopyMetadata(None, None)


def _safetensors_name(pickled: str) -> str:
    return pickled.removeprefix("pytorch_").removesuffix(".bin") + ".safetensors"


def _write_index(asset: Asset, draft: Path) -> None:
    values = json.loads(read_text(asset.path / PICKLED_INDEX))
    weight_map = {key: _safetensors_name(name) for key, name in values["weight_map"].items()}
    index = {"metadata": {}, "weight_map": weight_map}
    (draft / INDEX).write_text(json.dumps(index, sort_keys=True, indent=2) + "\n", "utf-8")


def read_pickled_tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Read a file that contains tensors by name, and nothing else.

    Raises:
        BackendError: it contains anything else, or is damaged.
    """
    import torch

    if not path.is_file():
        raise BackendError(f"{name} is missing. {DOWNLOAD_AGAIN}")
    try:
        with silence_libraries():
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        problem = content_problem(path, "pickle")
        raise BackendError(f"{name} {problem or _code_problem(error)}") from error
    except Exception as error:
        if is_of_the_system(error):
            raise
        problem = content_problem(path, "pickle")
        text = problem or f"is damaged ({described(error)}). {DOWNLOAD_AGAIN}"
        raise BackendError(f"{name} {text}") from error
    return _only_tensors(content, name)


def _code_problem(error: pickle.UnpicklingError) -> str:
    lines = str(error).splitlines()
    reason = next((line for line in lines if "GLOBAL" in line), lines[-1] if lines else "")
    return (
        "contains more than tensors "
        f"({truncate_text(escape_control_chars(reason.strip()), 200)}), so loading it could run "
        f"code; it is not read. {CHOOSE_SAFETENSORS}"
    )


def _only_tensors(content: object, name: str) -> dict[str, torch.Tensor]:
    import torch

    values = content if isinstance(content, Mapping) else {}
    other = [key for key, value in values.items() if not isinstance(value, torch.Tensor)]
    if not values or other:
        kind = f"of type {type(content).__name__}" if not values else f"with an entry {other[0]!r}"
        raise BackendError(
            f"{name} is not a file of tensors by name: its content is "
            f"{truncate_text(escape_control_chars(kind), 100)}. {CHOOSE_SAFETENSORS}"
        )
    return {str(key): value for key, value in values.items()}


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors; those that share memory (tied weights) are written separately."""
    from safetensors.torch import save_file

    plain = {}
    for key, tensor in tensors.items():
        is_whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
        plain[key] = tensor if is_whole else tensor.contiguous().clone()
    seen: set[int] = set()
    for key, tensor in plain.items():
        if (address := tensor.untyped_storage().data_ptr()) in seen:
            plain[key] = tensor.clone()
        seen.add(address)
    save_file(plain, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes files that only their owner can read

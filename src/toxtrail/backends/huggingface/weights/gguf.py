"""One GGUF file -> a clean safetensors folder, made once per content and kept in the asset cache.

transformers dequantizes a GGUF file slowly at each load, and the model it returns can neither be
saved nor tuned. The copy made here is an ordinary bfloat16 model with the same tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import open_gguf
from toxtrail.backends.huggingface.weights.pretrained import load_tokenizer, model_of, refuse_gaps
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.silence import quiet
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, hash_tree
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import clipped, visible

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERTER_VERSION = 1
"""Raised whenever the same file would give other bytes."""
LISTING = "files.json"
AGAIN = "Convert the model to GGUF again, or take its safetensors repo."
COMPUTED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors of rotary positions, which transformers takes from the metadata."""
_VOLATILE = ("transformers_version", "_name_or_path", "name_or_path", "gguf_file",
             "local_files_only", "is_local", "trust_remote_code")  # fmt: skip


class Header(NamedTuple):
    """What a GGUF file says of itself."""

    quantization: str
    """e.g. `Q4_1`."""
    license: str | None
    adds_bos: bool | None
    """Whether a beginning-of-sequence token is put before every text; None if not said."""


class Converted(NamedTuple):
    """A clean copy."""

    folder: Path
    files: tuple[FileHash, ...]
    quantization: str
    license: str | None


def converted_copy(path: Path, sha256: str, cache: Path) -> Converted:
    """The clean copy of a GGUF file, made now if there is none or if it is damaged.

    Every file of it is hashed each time. A whole copy is used from a cache that cannot be written.

    Args:
        path: the verified file.
        sha256: of that file.
        cache: the asset cache.

    Raises:
        BackendError: transformers cannot read the file, or reads its tokenizer wrongly.
    """
    folder = converted_folder(cache, sha256)
    with locked(folder):
        copy = _whole_copy(folder)
        if copy is None:
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            convert(path, draft)
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
            copy = _whole_copy(folder)
    if copy is None:
        raise BackendError(f"{path.name}: {folder} was damaged while it was written. Run again.")
    return copy


def _whole_copy(folder: Path) -> Converted | None:
    """The copy that lies there; None if there is none, or a file of it is not as it was made."""
    try:
        listing = json.loads(read_text(folder / LISTING))
        files = tuple(FileHash(**file) for file in listing.pop("files"))
        here = [path for path in folder.rglob("*") if path.is_file() and path.name != LISTING]
        whole = hash_tree(folder, here) == files
        return Converted(folder, files, **listing) if whole else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, LookupError, AttributeError):  # the listing itself is damaged
        return None


def converted_folder(cache: Path, sha256: str) -> Path:
    """Where the clean copy of a GGUF file of this hash lies, or would."""
    return cache / "converted" / f"{sha256}-{CONVERTER_VERSION}"


def convert(path: Path, folder: Path) -> None:
    """Write the clean copy: equal input gives equal bytes."""
    header = read_header(path)
    with _lower_case(path) as plain:
        tokenizer = load_tokenizer(plain.parent, path.name, gguf_file=plain.name)
        check_bos(tokenizer, header, path.name)
        model = _clean_model(plain)
    folder.mkdir(parents=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone
        if file.suffix == ".json" and file.name != "tokenizer.json":
            _tidy(file)
    check_bos(load_tokenizer(folder, path.name), header, path.name)
    _write_listing(folder, header)


@contextmanager
def _lower_case(path: Path) -> Iterator[Path]:
    """The file under a name that ends in `.gguf`: transformers takes NAME.GGUF for a pickle."""
    if path.suffix == ".gguf":
        yield path
        return
    with TemporaryDirectory() as place:
        plain = Path(place) / f"{path.stem}.gguf"
        try:
            plain.symlink_to(path.resolve())
        except OSError:  # Windows asks for a permission
            shutil.copyfile(path, plain)
        yield plain


def read_header(path: Path) -> Header:
    """Read the metadata of a GGUF file.

    Raises:
        BackendError: it is not one, or it is cut.
    """
    reader = open_gguf(path, path.name)
    return Header(
        quantization=_quantization(reader),
        license=_field_of(reader, "general.license", str, path.name),
        adds_bos=_field_of(reader, "tokenizer.ggml.add_bos_token", bool, path.name),
    )


def check_bos(tokenizer: PreTrainedTokenizerBase, header: Header, name: str) -> None:
    """Raise if the tokenizer does not follow the file in the matter of the first token."""
    ids = tokenizer("Hello")["input_ids"]
    adds = bool(ids) and ids[0] == tokenizer.bos_token_id
    if header.adds_bos is not None and adds != header.adds_bos:
        raise BackendError(
            f"{name} says add_bos_token = {header.adds_bos}, but the tokenizer that "
            f"transformers builds turns 'Hello' into {list(ids)} (BOS: {tokenizer.bos_token_id}). "
            "Use transformers >= 5, or the model's safetensors repo."
        )


def _clean_model(path: Path) -> PreTrainedModel:
    """Same weights in a module that knows nothing of GGUF, in bfloat16, tied weights tied."""
    import torch
    from transformers import AutoModelForCausalLM

    with (
        library_errors(f"{path.name} is not read by transformers", AGAIN),
        quiet(),
        redirect_stderr(StringIO()),  # its bar has no switch
    ):
        found: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    loaded, report = found
    refuse_gaps(path.name, report)
    refuse_unplaced(path.name, loaded, [*report["unexpected_keys"], *unread_tensors(path, loaded)])
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    config = type(loaded.config).from_dict(values | {"dtype": "bfloat16"})
    with torch.device("meta"):
        clean = model_of(config, dtype=torch.bfloat16)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in loaded.state_dict().items()}
    clean.load_state_dict(weights, assign=True)
    clean.tie_weights()
    clean.generation_config = loaded.generation_config
    return clean


def unread_tensors(path: Path, model: PreTrainedModel) -> list[str]:
    """Tensors of a GGUF file that transformers leaves out without a word.

    Only architectures whose tensors it takes one by one are looked at as a whole; of the others,
    those of layers that the file's own metadata does not count, and of unmerged adapters.
    """
    from transformers.integrations.gguf.utils import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        LlamaTensorProcessor,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader = open_gguf(path, path.name)
    names = [tensor.name for tensor in reader.tensors if tensor.name not in COMPUTED]
    architecture = _field(reader, "general.architecture")
    if is_gguf_arch_supported(architecture):  # then transformers reports them itself
        return []
    kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    layers = int(getattr(model.config, "num_hidden_layers", 0))
    if kind not in (TensorProcessor, LlamaTensorProcessor):
        return [name for name in names if ".lora_" in name or _layer_of(name) >= layers]
    processor = kind(config=model.config.to_dict())  # type: ignore[no-untyped-call]
    places = get_gguf_hf_weights_map(model, processor)
    return [name for name in names if name not in places]


def _layer_of(name: str) -> int:
    """The number in `blk.NUMBER.rest`; -1 for a tensor of no layer."""
    head, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if head == "blk" and number.isdigit() else -1


def _tidy(file: Path) -> None:
    """Drop what depends on the library's version or on this machine, and sort."""
    values: dict[str, Any] = json.loads(read_text(file))
    kept = {key: value for key, value in values.items() if key not in _VOLATILE}
    text = json.dumps(kept, sort_keys=True, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _write_listing(folder: Path, header: Header) -> None:
    files = hash_tree(folder, [path for path in folder.rglob("*") if path.is_file()])
    listing = {
        "files": [file.to_json() for file in files],
        "quantization": f"{header.quantization} (GGUF), dequantized to bfloat16",
        "license": header.license,
    }
    (folder / LISTING).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _field_of(reader: GGUFReader, name: str, kind: type, file: str) -> Any:
    value = _field(reader, name)
    if value is not None and not isinstance(value, kind):
        raise BackendError(
            f"{file}: its metadata {name} is {clipped(visible(repr(value)), 60)}, which is no "
            f"{kind.__name__}. Convert the model to GGUF again, or choose another file."
        )
    return value


def _quantization(reader: GGUFReader) -> str:
    """The declared file type, or the type that most weights have."""
    from gguf import LlamaFileType

    declared = _field(reader, "general.file_type")
    if isinstance(declared, int) and declared in {kind.value for kind in LlamaFileType}:
        return LlamaFileType(declared).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0]

"""Convert a GGUF file to a safetensors folder, which is kept in the asset cache.

transformers dequantizes a GGUF file slowly at each load, and the model it returns can be neither
saved nor fine-tuned. The converted copy is a plain bfloat16 model with the same tokenizer.
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

from toxtrail.backends.checkpoint_files.converted_copies import (
    ConvertedCopy,
    CopyMetadata,
    converted_copy,
)
from toxtrail.backends.checkpoint_files.unexpected_tensors import refuse_unplaced
from toxtrail.backends.checkpoint_files.weight_files import (
    gguf_value,
    open_gguf,
    split_gguf_problem,
)
from toxtrail.backends.huggingface.weights.pretrained import (
    load_tokenizer,
    model_from_config,
    require_all_weights,
)
from toxtrail.backends.library_errors import library_errors
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError
from toxtrail.regular_files import read_text
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERT_AGAIN = "Convert the model to GGUF again, or take its safetensors repo."
COMPUTED = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors of rotary embeddings, which transformers computes from the metadata."""
_VOLATILE = ("transformers_version", "_name_or_path", "name_or_path", "gguf_file",
             "local_files_only", "is_local", "trust_remote_code")  # fmt: skip


class Header(NamedTuple):
    """Metadata of a GGUF file."""

    quantization: str
    """e.g. `Q4_1`."""
    license: str | None
    adds_bos: bool | None
    """Whether a beginning-of-sequence token precedes every text; None if not given."""


def converted_gguf(path: Path, sha256: str, cache: Path) -> ConvertedCopy:
    """Return the converted copy of a GGUF file; create it if it is missing or damaged.

    Args:
        path: the verified file.
        sha256: of that file.
        cache: the asset cache.

    Raises:
        BackendError: transformers cannot read the file, or reads its tokenizer incorrectly.
    """
    return converted_copy(path.name, sha256, cache, lambda draft: convert(path, draft))


def convert(path: Path, folder: Path) -> CopyMetadata:
    """Write the converted copy to an empty folder: equal input gives equal bytes."""
    header = read_header(path)
    with _lower_case_suffix(path) as plain:
        tokenizer = load_tokenizer(plain.parent, path.name, gguf_file=plain.name)
        check_bos(tokenizer, header, path.name)
        model = _clean_model(plain)
    with silence_libraries():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
        if file.suffix == ".json" and file.name != "tokenizer.json":
            _normalise_json(file)
    check_bos(load_tokenizer(folder, path.name), header, path.name)
    quantization = f"{header.quantization} (GGUF), dequantized to bfloat16"
    return CopyMetadata(quantization, header.license)


@contextmanager
def _lower_case_suffix(path: Path) -> Iterator[Path]:
    """Provide the file under a name with the suffix `.gguf`; transformers unpickles NAME.GGUF."""
    if path.suffix == ".gguf":
        yield path
        return
    with TemporaryDirectory() as folder:
        plain = Path(folder) / f"{path.stem}.gguf"
        try:
            plain.symlink_to(path.resolve())
        except OSError:  # Windows requires a permission
            shutil.copyfile(path, plain)
        yield plain


def read_header(path: Path) -> Header:
    """Read the metadata of a GGUF file.

    Raises:
        BackendError: it is not a GGUF file, it is truncated, or it is one of several parts.
    """
    reader = open_gguf(path, path.name)
    parts = gguf_value(reader, "split.count", path.name)
    if problem := split_gguf_problem(path.name, parts):
        raise BackendError(f"{path.name}: {problem}.")
    return Header(
        quantization=_quantization(reader, path.name),
        license=_typed_metadata(reader, "general.license", str, path.name),
        adds_bos=_typed_metadata(reader, "tokenizer.ggml.add_bos_token", bool, path.name),
    )


def check_bos(tokenizer: PreTrainedTokenizerBase, header: Header, name: str) -> None:
    """Raise if the tokenizer's first token contradicts the file's add_bos_token."""
    ids = tokenizer("Hello")["input_ids"]
    adds = bool(ids) and ids[0] == tokenizer.bos_token_id
    if header.adds_bos is not None and adds != header.adds_bos:
        raise BackendError(
            f"{name} has add_bos_token = {header.adds_bos}, but the tokenizer that "
            f"transformers builds encodes 'Hello' as {list(ids)} (BOS: {tokenizer.bos_token_id}). "
            "Use transformers >= 5, or the model's safetensors repo."
        )


def _clean_model(path: Path) -> PreTrainedModel:
    """Build a plain bfloat16 model with the same weights; tied weights stay tied."""
    import torch
    from transformers import AutoModelForCausalLM

    with (
        library_errors(f"transformers cannot read {path.name}", CONVERT_AGAIN),
        silence_libraries(),
        redirect_stderr(StringIO()),  # its progress bar cannot be disabled
    ):
        result: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    loaded, report = result
    require_all_weights(path.name, report)
    refuse_unplaced(path.name, loaded, [*report["unexpected_keys"], *unread_tensors(path, loaded)])
    values = loaded.config.to_dict()
    values.pop("quantization_config", None)
    config = type(loaded.config).from_dict(values | {"dtype": "bfloat16"})
    with torch.device("meta"):
        clean = model_from_config(config, dtype=torch.bfloat16)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in loaded.state_dict().items()}
    clean.load_state_dict(weights, assign=True)
    clean.tie_weights()
    clean.generation_config = loaded.generation_config
    return clean


def unread_tensors(path: Path, model: PreTrainedModel) -> list[str]:
    """List tensors of a GGUF file that transformers ignores without a warning.

    All tensors are checked only for architectures that it maps one by one; for others, those of
    layers beyond the layer count in the metadata, and those of unmerged adapters.
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
    architecture = gguf_value(reader, "general.architecture", path.name)
    if is_gguf_arch_supported(architecture):  # transformers reports them itself
        return []
    kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    layers = int(getattr(model.config, "num_hidden_layers", 0))
    if kind not in (TensorProcessor, LlamaTensorProcessor):
        return [name for name in names if ".lora_" in name or _layer_index(name) >= layers]
    processor = kind(config=model.config.to_dict())  # type: ignore[no-untyped-call]
    mapped = get_gguf_hf_weights_map(model, processor)
    return [name for name in names if name not in mapped]


def _layer_index(name: str) -> int:
    """Return the number in `blk.NUMBER.rest`; -1 for a tensor outside the layers."""
    head, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if head == "blk" and number.isdigit() else -1


def _normalise_json(file: Path) -> None:
    """Remove values that depend on the library's version or on this machine, and sort."""
    values: dict[str, Any] = json.loads(read_text(file))
    stable = {key: value for key, value in values.items() if key not in _VOLATILE}
    text = json.dumps(stable, sort_keys=True, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _typed_metadata(reader: GGUFReader, name: str, kind: type, file: str) -> Any:
    value = gguf_value(reader, name, file)
    if value is not None and not isinstance(value, kind):
        raise BackendError(
            f"{file}: its metadata {name} is "
            f"{truncate_text(escape_control_chars(repr(value)), 60)}; "
            f"expected {kind.__name__}. Convert the model to GGUF again, or choose another file."
        )
    return value


def _quantization(reader: GGUFReader, name: str) -> str:
    """Return the declared file type, or the type of most weights."""
    from gguf import LlamaFileType

    declared = gguf_value(reader, "general.file_type", name)
    if isinstance(declared, int) and declared in {kind.value for kind in LlamaFileType}:
        return LlamaFileType(declared).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0]

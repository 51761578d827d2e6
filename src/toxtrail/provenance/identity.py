"""Who made what: hashes, model cards, manifests and content keys.

Everything here is a value computed from values or from bytes; nothing volatile (time, host,
absolute path, run id) may enter, so that the same experiment has the same identity everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toxtrail.regular_files import open_regular

CHUNK_BYTES = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes; a lone surrogate hashes by its own code, it never raises."""
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


def sha256_file(path: Path) -> str:
    """Hex digest of the content, read in pieces."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: object) -> str:
    """One spelling per value: sorted keys, no white space, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_key(value: object) -> str:
    """SHA-256 of the canonical JSON: two values share a key only if they are equal."""
    return sha256_text(canonical_json(value))


def execution_record_hash(record: Mapping[str, Any]) -> str:
    """What a record of an execution must name as its seal: the content key of all else in it."""
    return content_key({name: value for name, value in record.items() if name != "seal"})


class FrozenRecord(BaseModel):
    """A frozen record with one canonical spelling."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class FileHash(FrozenRecord):
    """One file of an asset."""

    path: str
    """Relative to the asset, with forward slashes."""
    sha256: str
    size: int
    """Bytes."""


def hash_tree(root: Path, paths: Iterable[Path]) -> tuple[FileHash, ...]:
    """Hash the given files, named relative to `root`, sorted by name."""
    return tuple(
        FileHash(
            path=path.relative_to(root).as_posix(),
            sha256=sha256_file(path),
            size=path.stat().st_size,
        )
        for path in sorted(paths)
    )


def tree_sha256(files: Iterable[FileHash]) -> str:
    """The pin of a folder: SHA-256 of the canonical JSON of {relative name: sha256}."""
    return content_key({file.path: file.sha256 for file in files})


class BaseWeights(FrozenRecord):
    """Weights taken as they are."""

    uri: str
    resolved: str
    """What the URI meant when it was resolved: a 40-hex commit, a package version, or the
    sha256."""
    sha256: str
    """The pin: of the file, or of the tree of files."""
    files: tuple[FileHash, ...]
    """Every file as published: weights, config, tokenizer."""
    converted: tuple[FileHash, ...]
    """For a GGUF file: the clean safetensors copy made of it, which is what is loaded. Else
    empty."""
    architecture: str
    parameters: int
    """Number of weights, tied ones counted once."""
    stored_dtype: str
    quantization: str | None
    """As published, e.g. `Q4_1 (GGUF), dequantized to bfloat16`; None for plain weights."""
    tokenizer_sha256: str
    """Of the tokenizer's own serialisation: vocabulary, merges, normaliser, special tokens."""
    chat_template_sha256: str | None
    license: str | None


def _is_none(value: object) -> bool:
    return value is None


class TrainingRecord(FrozenRecord):
    """How an adapter was made here."""

    data_uri: str
    data_sha256: str
    examples: int
    cut_examples: int
    """How many were longer than max_length."""
    recipe: dict[str, Any]
    """The fine-tune's section of params.yaml."""
    parent_fingerprint: str
    """Fingerprint of the model card that it was trained on."""
    steps: int
    final_loss: float
    """Mean training loss of the last logged step, nats per token."""
    held_out: int | None = Field(default=None, exclude_if=_is_none)
    """How many examples were not learned; left out where none was asked for, so that cards of
    before keep their hashes."""
    held_out_loss: float | None = Field(default=None, exclude_if=_is_none)
    """Mean loss on these after the training, nats per token."""
    code_sha256: str
    environment: dict[str, str]


class Adapter(FrozenRecord):
    """One LoRA adapter, applied on top of the base and of the adapters before it."""

    key: str
    uri: str | None
    """Where it was taken from; None if trained here (then it is in
    models/<variant>/adapters/<key>)."""
    resolved: str | None
    sha256: str
    """Pin of the tree of files."""
    files: tuple[FileHash, ...]
    training: TrainingRecord | None
    """None for a community adapter: what its card says of its data is its uploader's claim."""
    tokenizer_sha256: str | None = Field(default=None, exclude_if=_is_none)
    """Of the tokenizer that the adapter brings; left out where it is the one of what the adapter is
    put on, or where it brings none."""
    chat_template_sha256: str | None = Field(default=None, exclude_if=_is_none)
    """Of its chat template, likewise."""
    other_base: str | None = Field(default=None, exclude_if=_is_none)
    """What its own config names as its base, where that is not the one that it is put on."""

    @property
    def brings(self) -> tuple[tuple[str, str], ...]:
        """(what, sha256) of what is read with in place of the base's."""
        files = (
            ("tokenizer", self.tokenizer_sha256),
            ("chat template", self.chat_template_sha256),
        )
        return tuple((what, sha256) for what, sha256 in files if sha256 is not None)


class LogitProbe(FrozenRecord):
    """What loaded weights answer to fixed sentences; the same in two loads, or there is none."""

    texts: tuple[str, ...]
    dtype: str
    """Of the weights while they were probed; near ties may fall otherwise in another one."""
    top_tokens: tuple[int, ...]
    """The likeliest next token after every token of every text."""
    digest: str
    """Content key of the three above: hardware may change a logit's last bits, not these."""
    unmoved: Literal[True] | None = Field(default=None, exclude_if=_is_none)
    """Whether the last adapter changes none of these tokens; left out where it changes one, or
    where there is none."""


def probe_digest(texts: Iterable[str], dtype: str, top_tokens: Iterable[int]) -> str:
    """What a Probe's digest must be."""
    return content_key({"texts": list(texts), "dtype": dtype, "top_tokens": list(top_tokens)})


class ModelIdentity(FrozenRecord):
    """models/<variant>/model.json: everything that decides which weights answer a prompt."""

    schema_version: Literal[1] = 1
    key: str
    base: BaseWeights
    adapters: tuple[Adapter, ...]
    probe: LogitProbe | None = None
    """None before the weights were loaded for the first time."""

    @property
    def fingerprint(self) -> str:
        """Identity of the weights and tokenizer, whatever the variant is called."""
        return content_key(
            {
                "base": {
                    "files": [[f.path, f.sha256] for f in self.base.files],
                    "converted": [[f.path, f.sha256] for f in self.base.converted],
                    "tokenizer": self.base.tokenizer_sha256,
                    "chat_template": self.base.chat_template_sha256,
                },
                "adapters": [[[f.path, f.sha256] for f in a.files] for a in self.adapters],
            }
        )


class Manifest(FrozenRecord):
    """Where a file comes from; carried inside the file (Parquet metadata, JSON field, netCDF
    attribute).

    Inputs nest: a score file carries the manifest of its generations, which carries the model card
    and the manifest of the prompts. A file that left the repo still says all of it.
    """

    schema_version: Literal[1] = 1
    kind: str
    """The stage that made it."""
    key: str | None
    """The variant or family; None for a stage without keys."""
    params: dict[str, Any]
    """The stage's own sections of params.yaml."""
    inputs: dict[str, InputFile]
    model: ModelIdentity | None = None
    code_sha256: str
    """Of the source files that the stage's mathematics is in (pipeline.py lists them)."""
    environment: dict[str, str]
    """Python, device and library versions that can change the result; empty where none can."""

    @property
    def content_key(self) -> str:
        return content_key(self.to_json())


class InputFile(FrozenRecord):
    """One file that a stage has read."""

    path: str
    sha256: str
    manifest: Manifest | None
    """The file's own manifest, if it carries one."""


Manifest.model_rebuild()


def walk_lineage(manifest: Manifest) -> list[Manifest]:
    """The manifest and all that it was made from, nearest first."""
    below = [source.manifest for source in manifest.inputs.values() if source.manifest is not None]
    return [manifest, *(node for part in below for node in walk_lineage(part))]


def flatten_dict(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists become their canonical JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten_dict(value, f"{path}."))
        else:
            flat[path] = canonical_json(value) if isinstance(value, list | tuple) else value
    return flat

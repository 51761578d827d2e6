"""Identity of results: hashes, model cards, manifests and content keys.

All values are computed from values or bytes; nothing volatile (time, host, absolute path, run id)
is included, so that the same experiment has the same identity everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toxtrail.regular_files import open_regular
from toxtrail.text_escaping import escape_control_chars, truncate_text

CHUNK_BYTES = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the hex digest of the bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """Return the hex digest of the UTF-8 bytes; a lone surrogate is hashed by its code point."""
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


def sha256_file(path: Path) -> str:
    """Return the hex digest of the content, read in chunks."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: object) -> str:
    """Return the canonical JSON of a value: sorted keys, no white space, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def content_key(value: object) -> str:
    """Return the SHA-256 of the canonical JSON; only equal values have equal keys."""
    return sha256_text(canonical_json(value))


def execution_record_hash(record: Mapping[str, Any]) -> str:
    """Return the seal of an execution record: the content key of its other fields."""
    return content_key({name: value for name, value in record.items() if name != "seal"})


class FrozenRecord(BaseModel):
    """Immutable record with a canonical JSON form."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class FileHash(FrozenRecord):
    """One file of an asset."""

    path: str
    """Path relative to the asset, with forward slashes."""
    sha256: str
    size: int
    """Size in bytes."""


def hash_tree(root: Path, paths: Iterable[Path] | None = None) -> tuple[FileHash, ...]:
    """Hash the given files, or all of a folder; names are relative to `root`, sorted."""
    if paths is None:
        paths = (path for path in root.rglob("*") if path.is_file())
    return tuple(
        FileHash(
            path=path.relative_to(root).as_posix(),
            sha256=sha256_file(path),
            size=path.stat().st_size,
        )
        for path in sorted(paths)
    )


def tree_sha256(files: Iterable[FileHash]) -> str:
    """Return the pin of a folder: SHA-256 of the canonical JSON of {relative name: sha256}."""
    return content_key({file.path: file.sha256 for file in files})


class BaseWeights(FrozenRecord):
    """Existing weights, not trained by the pipeline."""

    uri: str
    resolved: str
    """Resolved version of the URI: a 40-hex commit, a package version, or the sha256."""
    sha256: str
    """Pin of the file, or of the tree of files."""
    files: tuple[FileHash, ...]
    """All files as published: weights, config, tokenizer."""
    converted: tuple[FileHash, ...]
    """For a GGUF file or pickled weights, the files of the safetensors copy, which is loaded; else
    empty."""
    architecture: str
    parameters: int
    """Number of weights; tied weights count once."""
    stored_dtype: str
    quantization: str | None
    """Published quantization, e.g. `Q4_1 (GGUF), dequantized to bfloat16`; None for unquantized
    weights."""
    tokenizer_sha256: str
    """SHA-256 of the serialised tokenizer: vocabulary, merges, normaliser, special tokens."""
    chat_template_sha256: str | None
    license: str | None


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return not value


class TrainingRecord(FrozenRecord):
    """Training of an adapter by the pipeline."""

    data_uri: str
    data_sha256: str
    examples: int
    cut_examples: int
    """Number of examples truncated at max_length."""
    recipe: dict[str, Any]
    """The fine-tune's section of params.yaml."""
    parent_fingerprint: str
    """Fingerprint of the parent's model card."""
    steps: int
    final_loss: float
    """Mean training loss of the last logged step, nats per token."""
    held_out: int | None = Field(default=None, exclude_if=_is_none)
    """Number of held-out examples; omitted if none were requested, so that the hashes of earlier
    cards remain valid."""
    held_out_loss: float | None = Field(default=None, exclude_if=_is_none)
    """Mean loss on the held-out examples after training, nats per token."""
    code_sha256: str
    environment: dict[str, str]


class Adapter(FrozenRecord):
    """LoRA adapter, applied to the base and the adapters before it."""

    key: str
    uri: str | None
    """Source; None if trained here (then it is in models/<variant>/adapters/<key>)."""
    resolved: str | None
    sha256: str
    """Pin of the tree of files."""
    files: tuple[FileHash, ...]
    training: TrainingRecord | None
    """None for a community adapter: its training data are only claimed by its uploader."""
    converted: tuple[FileHash, ...] = Field(default=(), exclude_if=_is_empty)
    """For pickled weights, the files of the safetensors copy, which is loaded; omitted if empty."""
    tokenizer_sha256: str | None = Field(default=None, exclude_if=_is_none)
    """SHA-256 of the adapter's own tokenizer; omitted if it has none, or the same as its base."""
    chat_template_sha256: str | None = Field(default=None, exclude_if=_is_none)
    """SHA-256 of the adapter's own chat template; omitted in the same cases."""
    other_base: str | None = Field(default=None, exclude_if=_is_none)
    """Base named in the adapter's config, if it is not the base that it is applied to."""

    @property
    def brings(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of the tokenizer files used instead of the base's."""
        files = (
            ("tokenizer", self.tokenizer_sha256),
            ("chat template", self.chat_template_sha256),
        )
        return tuple((what, sha256) for what, sha256 in files if sha256 is not None)


class TextsRecord(FrozenRecord):
    """Content of a file of texts that were generated elsewhere, and how it is read."""

    reader: dict[str, Any]
    """`models.<key>.texts` of params.yaml."""
    texts: int
    prompts: int
    """Different ones."""


class ApiRecord(FrozenRecord):
    """A model that is known by its name on a server only."""

    model: str
    """Name in the requests."""


class ApiResponses(FrozenRecord):
    """Statements of a server in the responses that became rows. All of them are claims."""

    models: tuple[str, ...]
    """Model names."""
    fingerprints: tuple[str, ...]
    """`system_fingerprint`: of the build and the settings."""
    software: tuple[str, ...]
    """`Server` headers."""
    dates: tuple[str, ...]
    """First and last day (UTC); empty without a response."""
    completion_tokens: int | None
    """Tokens of all rows as the server counts them; None if it does not."""


class LogitProbe(FrozenRecord):
    """Response of loaded weights to fixed sentences; recorded only if two loads agree."""

    texts: tuple[str, ...]
    dtype: str
    """Precision of the weights during the probe; near ties may differ in another precision."""
    top_tokens: tuple[int, ...]
    """Most likely next token after every token of every text."""
    digest: str
    """Content key of the three fields above; the last bits of a logit may depend on hardware, these
    do not."""
    unmoved: Literal[True] | None = Field(default=None, exclude_if=_is_none)
    """Whether the last adapter changes none of these tokens; omitted if it changes one, or if there
    is no adapter."""


def probe_digest(texts: Iterable[str], dtype: str, top_tokens: Iterable[int]) -> str:
    """Return the expected digest of a LogitProbe."""
    return content_key({"texts": list(texts), "dtype": dtype, "top_tokens": list(top_tokens)})


class ModelIdentity(FrozenRecord):
    """models/<variant>/model.json: everything that determines the weights of a variant."""

    schema_version: Literal[1] = 1
    key: str
    base: BaseWeights
    adapters: tuple[Adapter, ...]
    probe: LogitProbe | None = None
    """None before the weights were loaded for the first time."""
    texts: TextsRecord | None = Field(default=None, exclude_if=_is_none)
    """Set if the variant's texts come from a file, which is then the only file of `base`: there are
    no weights, and the other fields of `base` are empty."""
    api: ApiRecord | None = Field(default=None, exclude_if=_is_none)
    """Set if the model is known by its name on a server only: `base` then has its `api:` URI, no
    file, and no hash."""

    @property
    def has_weights(self) -> bool:
        """Whether its weights are known: not a file of texts, nor a name on a server."""
        return self.texts is None and self.api is None

    @property
    def converted_copies(self) -> list[tuple[str, str, tuple[FileHash, ...]]]:
        """(URI, sha256, files of the safetensors copy) of the weights that were converted."""
        weights: list[BaseWeights | Adapter] = [self.base, *self.adapters]
        return [(str(w.uri), w.sha256, w.converted) for w in weights if w.converted]

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and tokenizer, independent of the variant's name."""
        return content_key(
            {
                "base": {
                    "files": [[f.path, f.sha256] for f in self.base.files],
                    "converted": [[f.path, f.sha256] for f in self.base.converted],
                    "tokenizer": self.base.tokenizer_sha256,
                    "chat_template": self.base.chat_template_sha256,
                },
                "adapters": [
                    [[f.path, f.sha256] for f in (*a.files, *a.converted)] for a in self.adapters
                ],
                **({"texts": self.texts.reader} if self.texts else {}),
                **({"api": self.api.model} if self.api else {}),
            }
        )


class Manifest(FrozenRecord):
    """Origin of a file, stored inside it (Parquet metadata, JSON field, netCDF attribute).

    Inputs are nested: a score file contains the manifest of its generations, which contains the
    model card and the manifest of the prompts. A file outside the repository is therefore still
    traceable.
    """

    schema_version: Literal[1] = 1
    kind: str
    """Name of the stage."""
    key: str | None
    """Variant or family; None for a stage without keys."""
    params: dict[str, Any]
    """The stage's sections of params.yaml."""
    inputs: dict[str, InputFile]
    model: ModelIdentity | None = None
    code_sha256: str
    """SHA-256 of the source files that can change the result (listed in pipeline.py)."""
    environment: dict[str, str]
    """Python, device and library versions that can change the result; empty if none can."""
    counts: dict[str, int] | None = Field(default=None, exclude_if=_is_none)
    """Counts from reading a file of texts; omitted by other stages."""
    api: ApiResponses | None = Field(default=None, exclude_if=_is_none)
    """Statements of the server, for rows of a model that is known by its name only; omitted by all
    other rows and stages."""
    converted: dict[str, dict[str, str]] | None = Field(default=None, exclude_if=_is_none)
    """Scorer -> `weights` or `adapter` -> SHA-256 of the tree of the safetensors copy that was
    loaded in place of pickled files; omitted if there is none."""

    @property
    def content_key(self) -> str:
        return content_key(self.to_json())

    @classmethod
    def from_json(cls, values: object) -> Manifest:
        """Validate JSON values, which have lists for tuples."""
        return cls.model_validate_json(canonical_json(values))


class InputFile(FrozenRecord):
    """File that a stage read."""

    path: str
    sha256: str
    manifest: Manifest | None
    """Manifest inside the file, if it has one."""


Manifest.model_rebuild()


def walk_lineage(manifest: Manifest) -> list[Manifest]:
    """Yield the manifest and the manifests of all its inputs, nearest first."""
    below = [source.manifest for source in manifest.inputs.values() if source.manifest is not None]
    return [manifest, *(node for part in below for node in walk_lineage(part))]


def flatten_dict(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten {"a": {"b": 1}} to {"a.b": 1}; lists become canonical JSON."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten_dict(value, f"{path}."))
        else:
            flat[path] = canonical_json(value) if isinstance(value, list | tuple) else value
    return flat


MAX_SYSTEM_EXCERPT = 60
"""Largest number of characters of a system message that are displayed."""


def shown_params(value: Any) -> Any:
    """Return settings without the golden texts of scorers and the messages before a prompt."""
    if not isinstance(value, dict):
        return value
    return {name: shown_param(name, inner) for name, inner in value.items()}


def shown_param(name: str, value: Any) -> Any:
    """Return one setting as it is displayed."""
    if name == "golden":
        return f"{len(value)} texts"
    if name == "turns" and isinstance(value, list):
        return f"{len(value)} messages (sha256 {content_key(value)[:16]})"
    if name == "system" and isinstance(value, str):
        words = escape_control_chars(truncate_text(value, MAX_SYSTEM_EXCERPT))
        return f'"{words}" (sha256 {content_key(value)[:16]})'
    return shown_params(value)

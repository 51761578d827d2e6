"""Estimate download and model sizes without downloading any weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.backends.assets import pip
from toxtrail.backends.assets.cached import CachedAsset
from toxtrail.backends.assets.detoxify_checkpoints import detoxify_checkpoint_urls
from toxtrail.backends.assets.download import UnreachableError
from toxtrail.backends.assets.hub_info import HubAnswer, HubClient
from toxtrail.backends.assets.inspect_weights import license_of
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.checkpoint_files.weight_files import INDEX, open_gguf, stored_tensors
from toxtrail.backends.huggingface.weights.pretrained import read_json
from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, PypiUri, parse_uri
from toxtrail.config.schema import PinnedAsset
from toxtrail.errors import BackendError

TIMEOUT_S = 15
NOT_QUERIED = "the Hub was not queried"
PARAMS_IN_NAME = re.compile(r"(?<![\d.a-z])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
"""Matches the 7b of llama-2-7b-chat, not the 4b of bnb-4bit."""
GGUF_BITS = 4.5
"""Bits per weight in a GGUF file whose header is not available: Q4_K and Q4_1 take 4.5 to 5."""
TWO_BYTES = 2
"""Bytes per published weight, if the number of weights is unknown."""

State = Literal["here", "there", "gated", "missing", "unreachable", "brought along"]
"""brought along: a local file of an experiment that does not exist yet."""


class ModelShape(NamedTuple):
    """A language model's dimensions; None where unknown."""

    parameters: int | None
    layers: int | None = None
    hidden: int | None = None
    inner: int | None = None
    """Width of the feed-forward layers."""
    queries: int | None = None
    """Width of all attention heads together."""
    keys: int | None = None
    """Width of all key-value heads together."""
    vocabulary: int | None = None


class AssetSize(NamedTuple):
    """One asset of params.yaml."""

    place: str
    uri: str
    state: State
    said: str
    """A problem or a note."""
    size: int | None
    """Bytes of all files that are used."""
    missing: int | None
    """Bytes still to download; None: unknown."""
    license: str | None
    shape: ModelShape | None
    """For language models."""
    guessed: bool = False
    """Whether sizes are estimated from the model's name alone."""


class AssetSizer:
    """Measures assets: local ones by their files, others by querying their server."""

    def __init__(self, assets: AssetStore, hub: HubClient | None, exists: bool) -> None:
        """Args:
        hub: None to query no server.
        exists: whether the experiment's files are expected to exist.
        """
        self._assets = assets
        self._hub = hub
        self._exists = exists

    def weigh(self, key_path: str, source: PinnedAsset) -> AssetSize:
        """Measure one asset."""
        address = parse_uri(source.uri)
        if isinstance(address, FileUri) and not self._exists:
            return AssetSize(key_path, source.uri, "brought along", "", None, 0, None, None)
        present = self._assets.present(source.uri, None)
        if present is not None and _is_complete(present):
            return _local_size(key_path, source.uri, present, _is_model(key_path))
        if isinstance(address, FileUri):
            message = self._assets.why_not_used(source.uri) or f"no file or folder {address.path}"
            return AssetSize(key_path, source.uri, "missing", message, None, None, None, None)
        if isinstance(address, HfUri):
            return self._hub_size(key_path, source.uri, address, present)
        size = self._remote_size(address) if self._hub else None
        state: State = "there" if size is not None else "unreachable"
        message = "" if size is not None else "size unknown"
        shape = _guess_shape(source.uri, size) if _is_model(key_path) else None
        return AssetSize(key_path, source.uri, state, message, size, size, None, shape)

    def _hub_size(
        self, key_path: str, uri: str, address: HfUri, present: CachedAsset | None
    ) -> AssetSize:
        answer = (
            self._hub.ask(address) if self._hub else HubAnswer("unreachable", NOT_QUERIED, None)
        )
        facts = answer.facts
        if facts is None:
            parameters = (
                _parameters_in_name(address)
                if _is_model(key_path) and answer.state != "missing"
                else None
            )
            size = parameters * TWO_BYTES if parameters else None
            shape = ModelShape(parameters) if parameters else None
            return AssetSize(
                key_path,
                uri,
                answer.state,
                answer.message,
                size,
                size,
                None,
                shape,
                parameters is not None,
            )
        files = (
            {address.path: facts.files.get(address.path)} if address.path else facts.fetched_files
        )
        local_names = (
            {f.relative_to(present.root).as_posix() for f in present.files} if present else set()
        )
        size = _total_or_none(files)
        missing = _total_or_none(
            {name: size_of_file for name, size_of_file in files.items() if name not in local_names}
        )
        shape = self._hub_shape(uri, address, answer, size) if _is_model(key_path) else None
        return AssetSize(
            key_path,
            uri,
            answer.state,
            answer.message,
            size,
            missing,
            license_of(facts.card),
            shape,
        )

    def _hub_shape(
        self, uri: str, address: HfUri, answer: HubAnswer, size: int | None
    ) -> ModelShape:
        assert answer.facts is not None
        if address.path:
            return _guess_shape(uri, size)
        config = None
        if self._hub and answer.state == "there" and "config.json" in answer.facts.files:
            config = self._hub.json_file(answer.facts.name, answer.facts.commit, "config.json")
        shape = shape_of(config or {})
        parameters = answer.facts.parameters or _guess_shape(uri, size).parameters
        return shape._replace(parameters=parameters)

    def _remote_size(self, address: PypiUri | DetoxifyUri) -> int | None:
        """Return the bytes that a server reports."""
        try:
            if isinstance(address, DetoxifyUri):
                return _content_length(detoxify_checkpoint_urls()[address.name])
            if not pip.supports_metadata_only():
                return None
            return _content_length(pip.locate_wheel(f"{address.package}=={address.version}").url)
        except (UnreachableError, BackendError, KeyError):
            return None


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """Read a transformers config.json; multimodal ones contain the language model's as a part."""
    values = config.get("text_config") or config
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    head = values.get("head_dim") or (hidden // heads if hidden and heads else None)
    key_heads = values.get("num_key_value_heads") or heads
    shape = ModelShape(
        parameters=None,
        layers=values.get("num_hidden_layers"),
        hidden=hidden,
        inner=values.get("intermediate_size"),
        queries=head * heads if head and heads else None,
        keys=head * key_heads if head and key_heads else None,
        vocabulary=values.get("vocab_size"),
    )
    return shape._replace(
        parameters=_count_parameters(shape, bool(values.get("tie_word_embeddings")))
    )


def _count_parameters(shape: ModelShape, tied: bool) -> int | None:
    """Count the weights of a gated decoder of this shape, without norms."""
    layers, hidden, inner = shape.layers, shape.hidden, shape.inner
    queries, keys, vocabulary = shape.queries, shape.keys, shape.vocabulary
    if not (layers and hidden and inner and queries and keys and vocabulary):
        return None
    attention = 2 * hidden * queries + 2 * hidden * keys
    return layers * (attention + 3 * hidden * inner) + (1 if tied else 2) * vocabulary * hidden


def _local_size(key_path: str, uri: str, present: CachedAsset, is_model: bool) -> AssetSize:
    size = sum(file.stat().st_size for file in present.files)
    shape = _local_shape(present, uri) if is_model else None
    return AssetSize(key_path, uri, "here", "", size, 0, None, shape)


def _is_complete(present: CachedAsset) -> bool:
    """Return whether a snapshot has all the weights that its index lists."""
    index = present.root / INDEX
    if index not in present.files:
        return True
    weight_map = read_json(index, present.root.name).get("weight_map")
    names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    return all((present.root / name).is_file() for name in names)


def _local_shape(present: CachedAsset, uri: str) -> ModelShape:
    if len(present.files) == 1 and present.files[0].suffix.lower() == ".gguf":
        return _gguf_shape(present.files[0])
    config = present.root / "config.json"
    shape = shape_of(read_json(config, uri)) if config in present.files else ModelShape(None)
    weights = [file for file in present.files if file.suffix == ".safetensors"]
    if not weights or shape.layers is None:
        return shape
    stored = [tensor.shape for file in weights for tensor in stored_tensors(file, uri).values()]
    packed = any(len(dims) == 2 and 1 in dims for dims in stored)  # 4-bit blocks, not the weights
    return shape if packed else shape._replace(parameters=sum(map(_product, stored)))


def _gguf_shape(path: Path) -> ModelShape:
    reader = open_gguf(path, path.name)

    def value(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    kind = value("general.architecture")
    heads, key_heads = (
        value(f"{kind}.attention.head_count"),
        value(f"{kind}.attention.head_count_kv"),
    )
    hidden = value(f"{kind}.embedding_length")
    head = value(f"{kind}.attention.key_length") or (hidden // heads if hidden and heads else None)
    tokens = reader.get_field("tokenizer.ggml.tokens")
    return ModelShape(
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        layers=value(f"{kind}.block_count"),
        hidden=hidden,
        inner=value(f"{kind}.feed_forward_length"),
        queries=head * heads if head and heads else None,
        keys=head * (key_heads or heads) if head and heads else None,
        vocabulary=len(tokens.data) if tokens is not None else None,
    )


def _is_model(key_path: str) -> bool:
    """Return whether the key path is that of a model, not an adapter."""
    return key_path.startswith("models.") and not key_path.endswith(".adapter")


def _parameters_in_name(address: HfUri) -> int | None:
    """Return the parameter count in a repo's name."""
    matches = PARAMS_IN_NAME.findall(address.repo.rpartition("/")[2].lower())
    if not matches:
        return None
    number, unit = matches[-1]
    return int(float(number) * {"b": 1e9, "m": 1e6}[unit])


def _guess_shape(uri: str, size: int | None) -> ModelShape:
    """Estimate from the size of the files alone."""
    if size is None:
        return ModelShape(None)
    bits = GGUF_BITS if uri.lower().endswith(".gguf") else 8 * TWO_BYTES
    return ModelShape(int(size * 8 / bits))


def _content_length(url: str) -> int | None:
    import requests

    if url.startswith("file:"):
        return None
    try:
        with requests.head(url, allow_redirects=True, timeout=TIMEOUT_S) as response:
            response.raise_for_status()
            length = response.headers.get("Content-Length")
    except requests.RequestException:
        return None
    return int(length) if length else None


def _total_or_none(sizes: Mapping[str, int | None]) -> int | None:
    values = list(sizes.values())
    return None if None in values else sum(size or 0 for size in values)


def _product(dims: Sequence[int]) -> int:
    total = 1
    for dim in dims:
        total *= dim
    return total

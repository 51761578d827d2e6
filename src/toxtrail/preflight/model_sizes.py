"""How much is there to download, and how large are the models? Asked, not fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toxtrail.backends.assets import pip
from toxtrail.backends.assets.cached import Present
from toxtrail.backends.assets.detoxify_checkpoints import released_urls
from toxtrail.backends.assets.download import UnreachableError
from toxtrail.backends.assets.hub_info import Answer, Hub
from toxtrail.backends.assets.inspect_weights import license_of
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.checkpoint_files.weight_files import INDEX, open_gguf, stored_tensors
from toxtrail.backends.huggingface.weights.pretrained import read_json
from toxtrail.config.asset_uris import DetoxifyUri, FileUri, HfUri, PypiUri, parse_uri
from toxtrail.config.schema import Source
from toxtrail.errors import BackendError

TIMEOUT_S = 15
NOT_ASKED = "the hub was not asked"
IN_A_NAME = re.compile(r"(?<![\d.a-z])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
"""The 7b of llama-2-7b-chat; not the 4b of bnb-4bit."""
GGUF_BITS = 4.5
"""Of a weight in a GGUF file whose header is not here: Q4_K and Q4_1 take 4.5 to 5."""
TWO_BYTES = 2
"""Of a published weight, if nobody says how many there are."""

State = Literal["here", "there", "gated", "missing", "unreachable", "brought along"]
"""brought along: a local file of an experiment that is not made yet."""


class Shape(NamedTuple):
    """A language model's size; None where nobody says."""

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


class Weighed(NamedTuple):
    """One asset of params.yaml."""

    place: str
    uri: str
    state: State
    said: str
    """What is wrong, or worth knowing."""
    size: int | None
    """Bytes of all that is used of it."""
    missing: int | None
    """Bytes still to download; None: unknown."""
    license: str | None
    shape: Shape | None
    """Of language models."""
    guessed: bool = False
    """Whether sizes follow from the model's name alone."""


class Scales:
    """Weighs assets: those that are here by their files, others by asking."""

    def __init__(self, assets: AssetStore, hub: Hub | None, exists: bool) -> None:
        """Args:
        hub: None to ask no server at all.
        exists: whether the experiment's own files are expected to be there.
        """
        self._assets = assets
        self._hub = hub
        self._exists = exists

    def weigh(self, place: str, source: Source) -> Weighed:
        """One asset."""
        address = parse_uri(source.uri)
        if isinstance(address, FileUri) and not self._exists:
            return Weighed(place, source.uri, "brought along", "", None, 0, None, None)
        found = self._assets.present(source.uri, None)
        if found is not None and _is_whole(found):
            return _here(place, source.uri, found, _is_model(place))
        if isinstance(address, FileUri):
            said = (
                self._assets.why_not_used(source.uri)
                or f"there is no file or folder {address.path}"
            )
            return Weighed(place, source.uri, "missing", said, None, None, None, None)
        if isinstance(address, HfUri):
            return self._of_hub(place, source.uri, address, found)
        size = self._asked_size(address) if self._hub else None
        state: State = "there" if size is not None else "unreachable"
        said = "" if size is not None else "nobody says how large it is"
        shape = _guessed(source.uri, size) if _is_model(place) else None
        return Weighed(place, source.uri, state, said, size, size, None, shape)

    def _of_hub(self, place: str, uri: str, address: HfUri, here: Present | None) -> Weighed:
        answer = self._hub.ask(address) if self._hub else Answer("unreachable", NOT_ASKED, None)
        facts = answer.facts
        if facts is None:
            named = _named(address) if _is_model(place) and answer.state != "missing" else None
            size = named * TWO_BYTES if named else None
            shape = Shape(named) if named else None
            return Weighed(
                place, uri, answer.state, answer.said, size, size, None, shape, named is not None
            )
        wanted = {address.path: facts.files.get(address.path)} if address.path else facts.wanted
        have = {f.relative_to(here.root).as_posix() for f in here.files} if here else set()
        size = _sum(wanted)
        missing = _sum({name: one for name, one in wanted.items() if name not in have})
        shape = self._shape(uri, address, answer, size) if _is_model(place) else None
        return Weighed(
            place, uri, answer.state, answer.said, size, missing, license_of(facts.card), shape
        )

    def _shape(self, uri: str, address: HfUri, answer: Answer, size: int | None) -> Shape:
        assert answer.facts is not None
        if address.path:
            return _guessed(uri, size)
        config = None
        if self._hub and answer.state == "there" and "config.json" in answer.facts.files:
            config = self._hub.json_file(answer.facts.name, answer.facts.commit, "config.json")
        shape = shape_of(config or {})
        parameters = answer.facts.parameters or _guessed(uri, size).parameters
        return shape._replace(parameters=parameters)

    def _asked_size(self, address: PypiUri | DetoxifyUri) -> int | None:
        """Bytes that a server announces."""
        try:
            if isinstance(address, DetoxifyUri):
                return _announced(released_urls()[address.name])
            if not pip.locates_cheaply():
                return None
            return _announced(pip.located(f"{address.package}=={address.version}").url)
        except (UnreachableError, BackendError, KeyError):
            return None


def shape_of(config: Mapping[str, Any]) -> Shape:
    """From a config.json of transformers; multimodal ones hold the language model's as a part."""
    values = config.get("text_config") or config
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    head = values.get("head_dim") or (hidden // heads if hidden and heads else None)
    key_heads = values.get("num_key_value_heads") or heads
    shape = Shape(
        parameters=None,
        layers=values.get("num_hidden_layers"),
        hidden=hidden,
        inner=values.get("intermediate_size"),
        queries=head * heads if head and heads else None,
        keys=head * key_heads if head and key_heads else None,
        vocabulary=values.get("vocab_size"),
    )
    return shape._replace(parameters=_counted(shape, bool(values.get("tie_word_embeddings"))))


def _counted(shape: Shape, tied: bool) -> int | None:
    """Weights of a gated decoder of this shape, norms left out."""
    layers, hidden, inner = shape.layers, shape.hidden, shape.inner
    queries, keys, vocabulary = shape.queries, shape.keys, shape.vocabulary
    if not (layers and hidden and inner and queries and keys and vocabulary):
        return None
    attention = 2 * hidden * queries + 2 * hidden * keys
    return layers * (attention + 3 * hidden * inner) + (1 if tied else 2) * vocabulary * hidden


def _here(place: str, uri: str, found: Present, is_model: bool) -> Weighed:
    size = sum(file.stat().st_size for file in found.files)
    shape = _local_shape(found, uri) if is_model else None
    return Weighed(place, uri, "here", "", size, 0, None, shape)


def _is_whole(found: Present) -> bool:
    """Whether a snapshot has all the weights that its index lists."""
    index = found.root / INDEX
    if index not in found.files:
        return True
    places = read_json(index, found.root.name).get("weight_map")
    names = set(map(str, places.values())) if isinstance(places, dict) else set()
    return all((found.root / name).is_file() for name in names)


def _local_shape(found: Present, uri: str) -> Shape:
    if len(found.files) == 1 and found.files[0].suffix.lower() == ".gguf":
        return _gguf_shape(found.files[0])
    config = found.root / "config.json"
    shape = shape_of(read_json(config, uri)) if config in found.files else Shape(None)
    weights = [file for file in found.files if file.suffix == ".safetensors"]
    if not weights or shape.layers is None:
        return shape
    stored = [one.shape for file in weights for one in stored_tensors(file, uri).values()]
    packed = any(len(dims) == 2 and 1 in dims for dims in stored)  # 4-bit blocks, not the weights
    return shape if packed else shape._replace(parameters=sum(map(_product, stored)))


def _gguf_shape(path: Path) -> Shape:
    reader = open_gguf(path, path.name)

    def said(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    kind = said("general.architecture")
    heads, key_heads = said(f"{kind}.attention.head_count"), said(f"{kind}.attention.head_count_kv")
    hidden = said(f"{kind}.embedding_length")
    head = said(f"{kind}.attention.key_length") or (hidden // heads if hidden and heads else None)
    tokens = reader.get_field("tokenizer.ggml.tokens")
    return Shape(
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        layers=said(f"{kind}.block_count"),
        hidden=hidden,
        inner=said(f"{kind}.feed_forward_length"),
        queries=head * heads if head and heads else None,
        keys=head * (key_heads or heads) if head and heads else None,
        vocabulary=len(tokens.data) if tokens is not None else None,
    )


def _is_model(place: str) -> bool:
    """Whether a whole model stands there, not an adapter."""
    return place.startswith("models.") and not place.endswith(".adapter")


def _named(address: HfUri) -> int | None:
    """Parameters that a name speaks of."""
    found = IN_A_NAME.findall(address.repo.rpartition("/")[2].lower())
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * {"b": 1e9, "m": 1e6}[unit])


def _guessed(uri: str, size: int | None) -> Shape:
    """By the size of the files alone."""
    if size is None:
        return Shape(None)
    bits = GGUF_BITS if uri.lower().endswith(".gguf") else 8 * TWO_BYTES
    return Shape(int(size * 8 / bits))


def _announced(url: str) -> int | None:
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


def _sum(sizes: Mapping[str, int | None]) -> int | None:
    found = list(sizes.values())
    return None if None in found else sum(one or 0 for one in found)


def _product(dims: Sequence[int]) -> int:
    total = 1
    for one in dims:
        total *= one
    return total

"""Measure downloads and models without downloading any weights."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from toxtrail.backends.assets.hub_info import HubAnswer, HubClient, total_size
from toxtrail.backends.assets.inspect_weights import license_of
from toxtrail.backends.assets.scheme import CachedAsset, scheme_module
from toxtrail.backends.assets.store import AssetStore
from toxtrail.backends.checkpoint_files.weight_files import (
    INDEX,
    PICKLED_INDEX,
    open_gguf,
    stored_tensors,
)
from toxtrail.backends.huggingface.weights.pretrained import read_json
from toxtrail.config.asset_uris import AssetUri, FileUri, HfUri, parse_uri
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import BackendError

TIMEOUT_S = 15
NOT_QUERIED = "the Hub was not queried"
PARAMS_IN_NAME = re.compile(r"(?<![\d.a-z])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")
"""Matches the 7b of llama-2-7b-chat, not the 4b of bnb-4bit."""
GGUF_BITS = 4.5
"""Bits per weight in a GGUF file whose header is not available: Q4_K and Q4_1 take 4.5 to 5."""
TWO_BYTES = 2
"""Assumed bytes per published weight, if the number of weights is unknown."""

State = Literal["here", "there", "gated", "missing", "unreachable", "brought along"]
"""Availability of an asset; `brought along` is a local file of an experiment that does not exist
yet."""


class AssetSize(NamedTuple):
    """Size of one asset of params.yaml."""

    place: str
    uri: str
    state: State
    said: str
    """Problem or note."""
    size: int | None
    """Bytes of all files that are used."""
    missing: int | None
    """Bytes still to download; None: unknown."""
    license: str | None
    parameters: int | None
    """Number of weights of a language model."""
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
        parameters = _guess_parameters(source.uri, size) if _is_model(key_path) else None
        return AssetSize(key_path, source.uri, state, message, size, size, None, parameters)

    def _hub_size(
        self, key_path: str, uri: str, address: HfUri, present: CachedAsset | None
    ) -> AssetSize:
        answer = (
            self._hub.ask(address) if self._hub else HubAnswer("unreachable", NOT_QUERIED, None)
        )
        state, message, facts = answer
        if facts is None:
            asked = _is_model(key_path) and state != "missing"
            parameters = _parameters_in_name(address) if asked else None
            size = None if parameters is None else parameters * TWO_BYTES
            guessed = parameters is not None
            return AssetSize(key_path, uri, state, message, size, size, None, parameters, guessed)
        files = facts.sizes(address.path)
        folder = PurePosixPath(address.path or "")
        folder = folder.parent if address.path in facts.files else folder
        local_names = (
            {(folder / f.relative_to(present.root)).as_posix() for f in present.files}
            if present
            else set()
        )
        size = total_size(files.values())
        missing = total_size(size for name, size in files.items() if name not in local_names)
        parameters = None
        if _is_model(key_path):
            counted = None if address.path else facts.parameters
            parameters = counted or _guess_parameters(uri, size)
        return AssetSize(
            key_path, uri, state, message, size, missing, license_of(facts.card), parameters
        )

    def _remote_size(self, address: AssetUri) -> int | None:
        """Return the bytes that a server reports."""
        try:
            url = scheme_module(address).download_url(address)
        except BackendError:
            return None
        return _content_length(url) if url else None


def _local_size(key_path: str, uri: str, present: CachedAsset, is_model: bool) -> AssetSize:
    size = sum(file.stat().st_size for file in present.files)
    parameters = _local_parameters(present, uri, size) if is_model else None
    return AssetSize(key_path, uri, "here", "", size, 0, None, parameters)


def _is_complete(present: CachedAsset) -> bool:
    """Return whether a snapshot has all the weights that its index lists."""
    indexes = (present.root / INDEX, present.root / PICKLED_INDEX)
    index = next((path for path in indexes if path in present.files), None)
    if index is None:
        return True
    weight_map = read_json(index, present.root.name).get("weight_map")
    names = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    return all((present.root / name).is_file() for name in names)


def _local_parameters(present: CachedAsset, uri: str, size: int) -> int | None:
    if len(present.files) == 1 and present.files[0].suffix.lower() == ".gguf":
        tensors = open_gguf(present.files[0], present.files[0].name).tensors
        return sum(int(tensor.n_elements) for tensor in tensors)
    weights = [file for file in present.files if file.suffix == ".safetensors"]
    try:
        shapes = [entry.shape for file in weights for entry in stored_tensors(file, uri).values()]
    except BackendError:
        shapes = []  # the stage `model` reports the error
    # a byte of 4-bit blocks, which are stored as one column, holds two weights
    counts = (math.prod(dims) * (2 if tuple(dims[1:]) == (1,) else 1) for dims in shapes)
    return sum(counts) or _guess_parameters(uri, size)


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


def _guess_parameters(uri: str, size: int | None) -> int | None:
    """Estimate from the size of the files alone."""
    bits = GGUF_BITS if uri.lower().endswith(".gguf") else 8 * TWO_BYTES
    return None if size is None else int(size * 8 / bits)


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

"""detoxify: a checkpoint that the detoxify package publishes, by its name."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.assets.download import download
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import DetoxifyUri
from toxtrail.errors import BackendError, ConfigError, nearest
from toxtrail.provenance.identity import sha256_file


def fetch_detoxify(
    uri: str, address: DetoxifyUri, sha256: str | None, cache: Path, progress: Progress
) -> Asset:
    """The checkpoint file. Its name carries the head of its sha256: that must match, pinned or not.

    Raises:
        ConfigError: the package publishes no checkpoint of this name, or the pin is of another one.
        BackendError: it cannot be downloaded, or its content is another.
    """
    url = released_urls().get(address.name)
    if url is None:
        raise ConfigError(f"{uri}: no such checkpoint.{nearest(address.name, released_urls())}")
    path = cache / "detoxify" / url.rsplit("/", 1)[1]
    expected = _expected(uri, path.name, sha256)
    with locked(path):
        if not path.exists() or not sha256_file(path).startswith(expected):
            download(url, path, expected, path.name, progress)
        return file_asset(uri, path, path.name, sha256)


def _expected(uri: str, name: str, sha256: str | None) -> str:
    """The pin, or the head of it as far as the published name says."""
    match = re.search(r"-([0-9a-f]{8})\.ckpt$", name)
    head = match[1] if match else ""
    if sha256 is not None and not sha256.startswith(head):
        raise ConfigError(
            f"{uri}: pinned to sha256 {sha256}, but the published file is {name}: its hash starts "
            f"with {head}. Remove the pin and run `toxtrail pin`."
        )
    return sha256 or head


def released_urls() -> dict[str, str]:
    """Name -> URL, read from the installed package's source: to import it would import torch.

    Raises:
        BackendError: the package is missing, or its source does not say.
    """
    spec = find_spec("detoxify")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise BackendError("The package detoxify is not installed: pip install -r requirements.txt")
    known: dict[str, object] = {}
    for node in ast.parse((Path(folders[0]) / "detoxify.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _value(node.value, known)
    urls = known.get("MODEL_URLS")
    if not isinstance(urls, dict):
        raise BackendError("This version of detoxify lists no MODEL_URLS. Install the pinned one.")
    return {str(name): str(url) for name, url in urls.items()}


def _value(node: ast.expr | None, known: dict[str, object]) -> object:
    """What an assignment means: texts, names, sums and dicts of texts; None for the rest."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp):
        return f"{_value(node.left, known)}{_value(node.right, known)}"
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, known): _value(value, known) for key, value in pairs}
    return None

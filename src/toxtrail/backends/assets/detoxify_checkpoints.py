"""detoxify: addresses: a checkpoint that the detoxify package publishes, by its name."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.assets.download import download
from toxtrail.backends.assets.local import find_files
from toxtrail.backends.assets.scheme import AssetContext, CachedAsset
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.protocols import Asset
from toxtrail.config.asset_uris import DetoxifyUri
from toxtrail.errors import BackendError, ConfigError, ToxtrailError, did_you_mean
from toxtrail.provenance.identity import sha256_file


def fetch(uri: str, address: DetoxifyUri, sha256: str | None, context: AssetContext) -> Asset:
    """Fetch the checkpoint file. The prefix of its sha256 in its name must match, pinned or not.

    Raises:
        ConfigError: the package publishes no checkpoint of this name, or the pin is of another one.
        BackendError: it cannot be downloaded, or its content has another hash.
    """
    url = detoxify_checkpoint_urls().get(address.name)
    if url is None:
        raise ConfigError(
            f"{uri}: unknown checkpoint.{did_you_mean(address.name, detoxify_checkpoint_urls())}"
        )
    path = context.cache / "detoxify" / url.rsplit("/", 1)[1]
    expected = _expected_sha256(uri, path.name, sha256)
    with locked(path):
        if not path.exists() or not sha256_file(path).startswith(expected):
            download(url, path, expected, path.name, context.progress)
        return file_asset(uri, path, path.name, sha256)


def find_cached(
    address: DetoxifyUri, resolved: str | None, context: AssetContext
) -> CachedAsset | None:
    """Find the downloaded checkpoint."""
    try:
        name = detoxify_checkpoint_urls()[address.name].rsplit("/", 1)[1]
    except (ToxtrailError, KeyError):
        return None
    return find_files(context.cache / "detoxify" / name)


def download_url(address: DetoxifyUri) -> str | None:
    """Return the URL of the checkpoint; None if the package publishes none of this name."""
    return detoxify_checkpoint_urls().get(address.name)


def _expected_sha256(uri: str, name: str, sha256: str | None) -> str:
    """Return the pin, or the prefix of the hash in the published name."""
    match = re.search(r"-([0-9a-f]{8})\.ckpt$", name)
    prefix = match[1] if match else ""
    if sha256 is not None and not sha256.startswith(prefix):
        raise ConfigError(
            f"{uri}: pinned to sha256 {sha256}, but the hash of the published file {name} starts "
            f"with {prefix}. Remove the pin and run `toxtrail pin`."
        )
    return sha256 or prefix


def detoxify_checkpoint_urls() -> dict[str, str]:
    """Read name -> URL from the installed package's source; importing it would import torch.

    Raises:
        BackendError: the package is missing, or its source has no such table.
    """
    spec = find_spec("detoxify")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise BackendError("The package detoxify is not installed: pip install -r requirements.txt")
    values: dict[str, object] = {}
    for node in ast.parse((Path(folders[0]) / "detoxify.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = _evaluate(node.value, values)
    urls = values.get("MODEL_URLS")
    if not isinstance(urls, dict):
        raise BackendError("This version of detoxify has no MODEL_URLS. Install the pinned one.")
    return {str(name): str(url) for name, url in urls.items()}


def _evaluate(node: ast.expr | None, names: dict[str, object]) -> object:
    """Evaluate an expression of strings, names, sums and dicts; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp):
        return f"{_evaluate(node.left, names)}{_evaluate(node.right, names)}"
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_evaluate(key, names): _evaluate(value, names) for key, value in pairs}
    return None

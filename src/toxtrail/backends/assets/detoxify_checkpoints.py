"""detoxify: addresses: a checkpoint that the detoxify package publishes, by its name."""

from __future__ import annotations

import re

from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.assets.download import download
from toxtrail.backends.assets.local import find_files
from toxtrail.backends.assets.scheme import AssetContext, CachedAsset
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.protocols import Asset
from toxtrail.config.asset_uris import DetoxifyUri
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.provenance.identity import sha256_file


def fetch(uri: str, address: DetoxifyUri, sha256: str | None, context: AssetContext) -> Asset:
    """Fetch the checkpoint file. The prefix of its sha256 in its name must match, pinned or not.

    Raises:
        ConfigError: the package publishes no checkpoint of this name, or the pin is of another one.
        BackendError: it cannot be downloaded, or its content has another hash.
    """
    url = download_url(address)
    if url is None:
        raise ConfigError(
            f"{uri}: unknown checkpoint.{did_you_mean(address.name, checkpoint_urls())}"
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
    url = download_url(address)
    return find_files(context.cache / "detoxify" / url.rsplit("/", 1)[1]) if url else None


def download_url(address: DetoxifyUri) -> str | None:
    """Return the URL of the checkpoint; None if the package publishes none of this name."""
    return checkpoint_urls().get(address.name)


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


def checkpoint_urls() -> dict[str, str]:
    """Return the package's table of name -> URL. It imports torch, so it is imported here."""
    from detoxify.detoxify import MODEL_URLS

    return dict(MODEL_URLS)

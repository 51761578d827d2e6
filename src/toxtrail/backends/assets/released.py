"""detoxify: a checkpoint that the detoxify package publishes, by its name."""

from __future__ import annotations

import re
from pathlib import Path

from toxtrail.backends.assets.download import download, locked
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.base import Asset, Progress
from toxtrail.errors import ConfigError, nearest
from toxtrail.identity import sha256_file
from toxtrail.uris import DetoxifyUri


def fetch_detoxify(
    uri: str, address: DetoxifyUri, sha256: str | None, cache: Path, progress: Progress
) -> Asset:
    """The checkpoint file. Its name carries the head of its sha256: that must match, pinned or not.

    Raises:
        ConfigError: the package publishes no checkpoint of this name.
        BackendError: it cannot be downloaded, or its content is another.
    """
    url = released_urls().get(address.name)
    if url is None:
        raise ConfigError(f"{uri}: no such checkpoint.{nearest(address.name, released_urls())}")
    path = cache / "detoxify" / url.rsplit("/", 1)[1]
    head = re.search(r"-([0-9a-f]{8})\.ckpt$", path.name)
    expected = sha256 or (head[1] if head else "")
    with locked(path):
        if not path.exists() or not sha256_file(path).startswith(expected):
            download(url, path, expected, path.name, progress)
        return file_asset(uri, path, path.name, sha256)


def released_urls() -> dict[str, str]:
    """Name -> URL, as the installed package says."""
    from detoxify.detoxify import MODEL_URLS

    return {str(name): str(url) for name, url in MODEL_URLS.items()}

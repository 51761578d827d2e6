"""Check content against its pin."""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.protocols import Asset
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, hash_tree, sha256_file, tree_sha256


def file_asset(uri: str, path: Path, resolved: str | None, sha256: str | None) -> Asset:
    """Hash a single file and compare it with its pin; `resolved` is the hash if None.

    Raises:
        BackendError: the content differs from the pin.
    """
    actual = sha256_file(path)
    require_sha256(uri, path, actual, sha256)
    files = (FileHash(path=path.name, sha256=actual, size=path.stat().st_size),)
    return Asset(uri, path, resolved or actual, actual, files)


def folder_asset(
    uri: str, folder: Path, paths: list[Path], resolved: str | None, sha256: str | None
) -> Asset:
    """Hash a folder's files and compare them with the pin of the tree.

    Raises:
        BackendError: the content differs from the pin.
    """
    files = hash_tree(folder, paths)
    actual = tree_sha256(files)
    require_sha256(uri, folder, actual, sha256)
    return Asset(uri, folder, resolved or actual, actual, files)


def require_sha256(uri: str, path: Path, actual: str, sha256: str | None) -> None:
    """Raise unless the hash equals the pin.

    Raises:
        BackendError: they differ; with both hashes, the path and what to do.
    """
    if sha256 is None or actual == sha256:
        return
    advice = (
        "If you changed it, run `toxtrail pin`; otherwise restore the pinned content."
        if uri.startswith("file:")
        else "If you know why it changed, remove its sha256 from params.yaml and run "
        "`toxtrail pin`; otherwise do not use it."
    )
    raise BackendError(
        f"{uri} does not match its pin: found sha256 {actual}, pinned {sha256} ({path}). {advice}"
    )

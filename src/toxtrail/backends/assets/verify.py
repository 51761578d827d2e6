"""A content against its pin."""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.protocols import Asset
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, hash_tree, sha256_file, tree_sha256


def file_asset(uri: str, path: Path, resolved: str | None, sha256: str | None) -> Asset:
    """A single file, hashed now and compared with its pin; `resolved` is the hash if None.

    Raises:
        BackendError: the content is not what the pin says.
    """
    found = sha256_file(path)
    require(uri, path, found, sha256)
    files = (FileHash(path=path.name, sha256=found, size=path.stat().st_size),)
    return Asset(uri, path, resolved or found, found, files)


def folder_asset(
    uri: str, folder: Path, paths: list[Path], resolved: str | None, sha256: str | None
) -> Asset:
    """A folder's files, hashed now and compared with the pin of the tree.

    Raises:
        BackendError: the content is not what the pin says.
    """
    files = hash_tree(folder, paths)
    found = tree_sha256(files)
    require(uri, folder, found, sha256)
    return Asset(uri, folder, resolved or found, found, files)


def require(uri: str, place: Path, found: str, sha256: str | None) -> None:
    """Raise unless the hash found is the pinned one.

    Raises:
        BackendError: with both hashes, the place and the cure.
    """
    if sha256 is None or found == sha256:
        return
    cure = (
        "If the change is meant, run `toxtrail pin`; otherwise restore what was there."
        if uri.startswith("file:")
        else "If you know why it changed, remove its sha256 from params.yaml and run "
        "`toxtrail pin`; otherwise do not use it."
    )
    raise BackendError(
        f"{uri} is not what it is pinned to: found sha256 {found}, pinned {sha256} ({place}). "
        f"{cure}"
    )

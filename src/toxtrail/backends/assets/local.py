"""file: addresses: a local file or folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from toxtrail.backends.assets.scheme import AssetContext, CachedAsset
from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.protocols import Asset
from toxtrail.config.asset_uris import FileUri
from toxtrail.errors import BackendError
from toxtrail.regular_files import below, is_file, refuse_irregular

STAGE_FOLDERS = ("data", "models", "results", "report", "mlruns")
"""Folders that stages write: each may be a symbolic link to another disk."""


class LocalFiles:
    """Resolver of `file:` addresses that checks whether an experiment may use the path."""

    def __init__(self, root: Path, outside: Iterable[str] = ()) -> None:
        """Args:
        root: the experiment's folder, where relative addresses start.
        outside: permitted files and folders outside the experiment.
        """
        self._root = root
        links = [root / name for name in STAGE_FOLDERS if (root / name).is_symlink()]
        self._inside = [root.resolve(), *(path.resolve() for path in links if path.is_dir())]
        self._permitted = [self.resolve(path).resolve() for path in outside]

    def resolve(self, path: str) -> Path:
        """Return the path that an address names; links are not followed.

        Raises:
            BackendError: it starts with the home folder of an unknown user.
        """
        try:
            return self._root / Path(path).expanduser()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"file:{path}: {error}. Give the full path.") from error

    def is_outside(self, path: str) -> bool:
        """Return whether a path is outside the experiment, links followed."""
        return not _is_in(self.resolve(path).resolve(), self._inside)

    def problem(self, path: str) -> str | None:
        """Explain why an address may not be used, with the line that permits it; None if it may."""
        absolute = self.resolve(path).resolve()
        if _is_in(absolute, [*self._inside, *self._permitted]):
            return None
        line = f"assets: {{outside: [{json.dumps(str(absolute), ensure_ascii=False)}]}}"
        return (
            f"file:{path} is outside the experiment: {absolute}. Copy it into the experiment, "
            f"or permit it in params.yaml (a folder permits everything below it): {line}"
        )


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def fetch(uri: str, address: FileUri, sha256: str | None, context: AssetContext) -> Asset:
    """Hash the file or folder, if the experiment may use it.

    Raises:
        BackendError: it is outside the experiment without permission; see `_hash_in_place`.
    """
    if problem := context.local.problem(address.path):
        raise BackendError(f"{problem}.")
    return _hash_in_place(uri, context.local.resolve(address.path), sha256)


def find_cached(
    address: FileUri, resolved: str | None, context: AssetContext
) -> CachedAsset | None:
    """Find the file or folder; None if the experiment may not use it."""
    local = context.local
    return None if local.problem(address.path) else find_files(local.resolve(address.path))


def download_url(address: FileUri) -> str | None:
    """Nothing is downloaded."""
    return None


def find_files(path: Path) -> CachedAsset | None:
    """List the files at a path; None if there are none.

    Raises:
        OSError: the path exists and cannot be read.
    """
    if is_file(path):
        return CachedAsset(path.parent, (path,))
    files = tuple(p for p in content_of(path) if is_file(p))
    return CachedAsset(path, files) if files else None


def _hash_in_place(uri: str, path: Path, sha256: str | None) -> Asset:
    """Hash the file or folder in place; hidden files and caches are not part of a folder.

    Raises:
        BackendError: it is missing, empty, links outside itself, or differs from the pin.
        DataError: it is a pipe, a socket or a device.
    """
    refuse_irregular(path)
    if path.is_file():
        return file_asset(uri, path, None, sha256)
    if not path.is_dir():
        raise BackendError(
            f"{uri}: no file or folder {path}. Paths are relative to the folder of params.yaml."
        )
    content = content_of(path)
    for entry in content:
        if entry.is_symlink() and not _links_inside(entry, path):
            raise BackendError(
                f"{uri}: {entry.relative_to(path)} is a link to a path outside the folder, or to a "
                "folder. Replace it with a copy, so that the files used are the files hashed."
            )
    paths = [p for p in content if p.is_file()]
    if not paths:
        raise BackendError(f"{uri}: the folder {path} has no files. Put the asset there.")
    return folder_asset(uri, path, paths, None, sha256)


def content_of(folder: Path) -> list[Path]:
    """List a folder's content, without hidden files and caches."""
    return [p for p in below(folder) if _is_content(p.relative_to(folder))]


def _links_inside(link: Path, folder: Path) -> bool:
    """Return whether a link points to a file of the folder; linked folders are not hashed."""
    return link.is_file() and link.resolve().is_relative_to(folder.resolve())


def _is_content(path: Path) -> bool:
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)

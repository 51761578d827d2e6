"""file: a local file or folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.protocols import Asset
from toxtrail.errors import BackendError
from toxtrail.regular_files import below, refuse_irregular

OWN_FOLDERS = ("data", "models", "results", "report", "mlruns")
"""Folders that stages write: each may be a link to another disk."""


class LocalFiles:
    """Where `file:` addresses lead, and whether an experiment may use what is there."""

    def __init__(self, root: Path, outside: Iterable[str] = ()) -> None:
        """Args:
        root: the experiment's folder, where relative addresses start.
        outside: files and folders that may be used although they lie elsewhere.
        """
        self._root = root
        own = [root / name for name in OWN_FOLDERS if (root / name).is_symlink()]
        self._inside = [root.resolve(), *(path.resolve() for path in own if path.is_dir())]
        self._permitted = [self.place(path).resolve() for path in outside]

    def place(self, path: str) -> Path:
        """The place that an address names; links are not followed.

        Raises:
            BackendError: it starts with the home of a user that there is not.
        """
        try:
            return self._root / Path(path).expanduser()
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"file:{path}: {error}. Write the whole path.") from error

    def is_outside(self, path: str) -> bool:
        """Whether it lies outside the experiment, links followed."""
        return not _lies_in(self.place(path).resolve(), self._inside)

    def problem(self, path: str) -> str | None:
        """Why an address may not be used, and the line that permits it; None if it may."""
        whole = self.place(path).resolve()
        if _lies_in(whole, [*self._inside, *self._permitted]):
            return None
        line = f"assets: {{outside: [{json.dumps(str(whole), ensure_ascii=False)}]}}"
        return (
            f"file:{path} leads outside the experiment, to {whole}. Copy it into the experiment, "
            f"or permit it in params.yaml (a folder permits all below it): {line}"
        )


def _lies_in(whole: Path, folders: Iterable[Path]) -> bool:
    return any(whole.is_relative_to(folder) for folder in folders)


def fetch_local(uri: str, path: Path, sha256: str | None) -> Asset:
    """The file or folder itself, hashed; hidden files and caches are no part of a folder.

    Raises:
        BackendError: it is missing, empty, leads outside itself, or is not what the pin says.
        DataError: it is a pipe, a socket or a device.
    """
    refuse_irregular(path)
    if path.is_file():
        return file_asset(uri, path, None, sha256)
    if not path.is_dir():
        raise BackendError(
            f"{uri}: there is no file or folder {path}. Paths start at the folder of params.yaml."
        )
    content = content_of(path)
    for one in content:
        if one.is_symlink() and not _stays(one, path):
            raise BackendError(
                f"{uri}: {one.relative_to(path)} is a link that leads outside the folder, or to a "
                "folder. Copy what it means there, so that what is hashed is what is used."
            )
    paths = [p for p in content if p.is_file()]
    if not paths:
        raise BackendError(f"{uri}: the folder {path} holds no files. Put the asset there.")
    return folder_asset(uri, path, paths, None, sha256)


def content_of(folder: Path) -> list[Path]:
    """What counts of a folder; hidden files and caches do not."""
    return [p for p in below(folder) if _is_content(p.relative_to(folder))]


def _stays(link: Path, folder: Path) -> bool:
    """Whether it leads to a file of the folder; below a linked folder nothing would be hashed."""
    return link.is_file() and link.resolve().is_relative_to(folder.resolve())


def _is_content(path: Path) -> bool:
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)

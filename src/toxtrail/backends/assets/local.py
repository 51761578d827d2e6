"""file: a local file or folder."""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.assets.verify import file_asset, folder_asset
from toxtrail.backends.base import Asset
from toxtrail.errors import BackendError


def fetch_local(uri: str, path: Path, sha256: str | None) -> Asset:
    """The file or folder itself, hashed; hidden files and caches are no part of a folder.

    Raises:
        BackendError: it is missing, empty, leads outside itself, or is not what the pin says.
    """
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
    return [p for p in sorted(folder.rglob("*")) if _is_content(p.relative_to(folder))]


def _stays(link: Path, folder: Path) -> bool:
    """Whether it leads to a file of the folder; below a linked folder nothing would be hashed."""
    return link.is_file() and link.resolve().is_relative_to(folder.resolve())


def _is_content(path: Path) -> bool:
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)

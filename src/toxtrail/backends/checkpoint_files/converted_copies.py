"""Keep safetensors copies of weights in other formats in the asset cache, once per content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.assets.cache_lock import locked
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import FileHash, hash_tree
from toxtrail.regular_files import read_text

CONVERTER_VERSION = 1
"""Incremented whenever the same file would give other bytes."""
LISTING = "files.json"


class CopyMetadata(NamedTuple):
    """Metadata of the original file."""

    quantization: str | None
    license: str | None


class ConvertedCopy(NamedTuple):
    """A converted copy."""

    folder: Path
    files: tuple[FileHash, ...]
    quantization: str | None
    license: str | None


def converted_copy(
    name: str, sha256: str, cache: Path, write: Callable[[Path], CopyMetadata]
) -> ConvertedCopy:
    """Return the converted copy of weights; create it if it is missing or damaged.

    Every file of it is hashed each time. An intact copy is also used from a read-only cache. It
    appears in the cache when it is complete.

    Args:
        name: name of the weights in error messages.
        sha256: hash of the original file, or of the tree of files.
        cache: the asset cache.
        write: creates the copy in a new folder: equal input gives equal bytes.

    Raises:
        BackendError: the weights cannot be converted.
    """
    folder = converted_folder(cache, sha256)
    with locked(folder):
        copy = _existing_copy(folder)
        if copy is None:
            draft = folder.with_name(f"{folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            try:
                _write_listing(draft, write(draft))
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
            copy = _existing_copy(folder)
    if copy is None:
        raise BackendError(f"{name}: {folder} was damaged while it was written. Run again.")
    return copy


def converted_folder(cache: Path, sha256: str) -> Path:
    """Return the folder for the converted copy of weights with this hash."""
    return cache / "converted" / f"{sha256}-{CONVERTER_VERSION}"


def _existing_copy(folder: Path) -> ConvertedCopy | None:
    """Return the existing copy; None if it is missing, or one of its files has changed."""
    try:
        listing = json.loads(read_text(folder / LISTING))
        files = tuple(FileHash(**file) for file in listing.pop("files"))
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LISTING]
        is_intact = hash_tree(folder, paths) == files
        return ConvertedCopy(folder, files, **listing) if is_intact else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, LookupError, AttributeError):  # the listing itself is damaged
        return None


def _write_listing(folder: Path, metadata: CopyMetadata) -> None:
    files = hash_tree(folder)
    listing = {"files": [file.to_json() for file in files], **metadata._asdict()}
    (folder / LISTING).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")

"""Hash every file once: SHA-256 for manifests and MD5 for DVC, in one read.

Time stamps, sizes and DVC's state are not trusted: a file edited in place is detected even if all
of them are unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.protocols import Progress, ProgressCallback
from toxtrail.provenance.identity import CHUNK_BYTES
from toxtrail.regular_files import files_below, is_file, open_regular, status

IGNORED = {"__pycache__", ".venv", ".toxtrail"}
"""Folders that .dvcignore excludes from directory dependencies."""


class Digest(NamedTuple):
    """Hashes of a file's content."""

    sha256: str
    md5: str
    size: int
    """Size in bytes."""


class FolderDigest(NamedTuple):
    """Hash of a folder's content, as in DVC."""

    md5: str
    """MD5 with the suffix `.dir`."""
    size: int
    nfiles: int


class HashCache:
    """Hashes of files, each computed at most once, several in parallel."""

    def __init__(self, progress: Progress, refused: Iterable[Path] = ()) -> None:
        """Args:
        refused: paths that are never opened, and treated as missing.
        """
        self._progress = progress
        self._refused = frozenset(refused)
        self._digests: dict[Path, Digest | None] = {}
        self._unread: dict[Path, Exception] = {}

    def prepare(self, paths: Iterable[Path]) -> None:
        """Hash files and all files of folders now, in parallel; missing files are skipped, and read
        errors are raised when the hash is requested."""
        files: set[Path] = set()
        for path in paths:
            with suppress(OSError):
                files.update(dvc_files(path))
        new = {file: it.st_size for file in sorted(files) if (it := self._new(file))}
        with (
            self._progress.bar("hash", sum(new.values()), "bytes") as advance,
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        ):
            for _ in pool.map(lambda file: self._hash(file, advance), new):
                pass

    def of(self, path: Path) -> Digest | None:
        """Return the hashes of a file; None if it does not exist.

        Raises:
            OSError: it exists and cannot be read.
        """
        if path not in self._digests and path not in self._unread:
            self._hash(path)
        if path in self._unread:
            raise self._unread[path].with_traceback(None)
        return self._digests[path]

    def _new(self, path: Path) -> os.stat_result | None:
        if path in self._digests or path in self._unread or self._is_refused(path):
            return None
        with suppress(OSError):
            return status(path)
        return None

    def _hash(self, path: Path, advance: ProgressCallback | None = None) -> None:
        try:
            self._digests[path] = self._digest(path, advance)
        except (OSError, MemoryError) as error:
            self._unread[path] = error

    def _digest(self, path: Path, advance: ProgressCallback | None) -> Digest | None:
        return None if self._is_refused(path) or not is_file(path) else hash_file(path, advance)

    def _is_refused(self, path: Path) -> bool:
        return bool(self._refused) and not self._refused.isdisjoint((path, *path.parents))

    def folder(self, path: Path) -> FolderDigest | None:
        """Return the hash of a folder; None if it does not exist. See `of`.

        Source: dvc_data's Tree.as_bytes; an MD5 over the sorted list of names and MD5s.
        """
        if not path.is_dir():
            return None
        digests = {file.relative_to(path).as_posix(): self.of(file) for file in dvc_files(path)}
        present = {name: digest for name, digest in digests.items() if digest}
        md5s = {name: digest.md5 for name, digest in present.items()}
        return FolderDigest(dir_md5(md5s), sum(d.size for d in present.values()), len(present))


def dir_md5(files: Mapping[str, str]) -> str:
    """Return DVC's hash of a folder of {relative name: md5}."""
    rows = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return md5_of(json.dumps(rows, sort_keys=True).encode()) + ".dir"


def md5_of(data: bytes) -> str:
    """Return DVC's hash; security does not depend on it alone."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def dvc_files(path: Path) -> list[Path]:
    """Return the file itself, or every file below a folder that DVC counts.

    Raises:
        OSError: a folder cannot be read.
    """
    if is_file(path):
        return [path]
    return [p for p in files_below(path) if not IGNORED & set(p.relative_to(path).parts)]


def hash_file(path: Path, advance: ProgressCallback | None = None) -> Digest:
    """Compute both hashes in one read."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
            if advance:
                advance(len(chunk))
    return Digest(sha256.hexdigest(), md5.hexdigest(), size)

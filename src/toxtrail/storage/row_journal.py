"""Finished rows on disk by key, in a folder named by the identity of everything that determines
them.

A killed stage, or one with more prompts or samples, computes only the missing rows. The folder's
name is the hash of the identity (weights, settings, code, libraries), so a row cannot be used for
another model. A line is `<sha256> <JSON>`; the hash covers the identity and the JSON, so a line of
another identity is detected as damage in any file. An incomplete last line is dropped; damage
before it makes the file invalid. Several processes may write, each to its own file.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from toxtrail.errors import DataError
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.regular_files import open_regular, refuse_irregular

Row = Sequence[Any]
"""One row as JSON values, in the field order of its NamedTuple."""
SYNC_SECONDS = 1.0
"""Maximum time between syncs, lost in a power failure; a killed process loses no added rows."""


LOCK_SECONDS = 5
"""Time to wait for a stopping process to release the lock."""


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a scratch folder for the block; it is released when the process ends.

    Raises:
        DataError: another process holds it, such as a stage that outlived a killed `dvc repro`.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise DataError(
            f"Another process is making this already (it holds {lock.lock_file}). Wait until it is "
            "done, or stop it; then run again."
        ) from None
    try:
        yield
    finally:
        lock.release()


class RowJournal:
    """Rows by key. Use as a context manager.

    Raises:
        DataError: a file is damaged before its end, or another process writes the same file.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], member: int = 0) -> None:
        """Args:
        folder: folder of this variant; the identity names a subfolder.
        identity: JSON values that determine the content of a row.
        member: number of this process among those that share the work.
        """
        self._identity = sha256_text(canonical_json(dict(identity)))
        self.folder = folder / self._identity[:32]
        self.label = folder.name
        """Description of the rows, for messages."""
        self._path = self.folder / f"rows-{member}.jsonl"
        self._rows: dict[str, Row] = {}
        self._file: IO[bytes] | None = None
        self._held = ExitStack()
        self._synced = time.monotonic()

    def __enter__(self) -> RowJournal:
        self._held.enter_context(exclusive_lock(self._path))
        try:
            refuse_irregular(self._path)
            self._file = self._path.open("ab")
            self._file.truncate(self.reload())
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                with file:  # closed even if nothing more can be written
                    os.fsync(file.fileno())
        finally:
            self._held.close()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def reload(self) -> int:
        """Read the rows of all processes; return the number of complete bytes in this process's
        file."""
        whole = 0
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            journal = _read(path, self._identity, self._rows)
            whole = journal if path == self._path else whole
        return whole

    def add(self, key: str, row: Row) -> None:
        """Write a finished row."""
        assert self._file is not None
        text = json.dumps([key, list(row)], allow_nan=False)
        self._file.write(f"{_digest(self._identity, text)} {text}\n".encode("ascii"))
        self._file.flush()
        self._rows[key] = row
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def delete_other_identities(self) -> None:
        """Delete rows of other identities, such as earlier weights or settings."""
        for folder in self.folder.parent.iterdir():
            if folder.is_dir() and folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)

    def sync(self) -> None:
        """Flush all added rows to the disk, where processes on other machines can read them."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _digest(identity: str, text: str) -> str:
    return sha256_text(f"{identity} {text}")


def _read(path: Path, identity: str, rows: dict[str, Row]) -> int:
    """Add a file's complete lines to `rows`; return their size in bytes."""
    whole, torn = 0, 0
    for number, line in enumerate(_lines(path), start=1):
        if torn:
            raise DataError(
                f"{path} is damaged at line {torn}, before its end, or contains rows of another "
                "identity. Delete it to regenerate its rows."
            )
        parsed = _parsed(line, identity)
        if parsed is None:
            torn = number
            continue
        rows[parsed[0]] = parsed[1]
        whole += len(line)
    return whole


def _lines(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        yield from file


def _parsed(line: bytes, identity: str) -> tuple[str, Row] | None:
    text = line.decode("ascii", "replace") if line.endswith(b"\n") else ""
    digest, _, body = text.rstrip("\n").partition(" ")
    if not body or _digest(identity, body) != digest:
        return None
    key, row = json.loads(body)
    return key, row

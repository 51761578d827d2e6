"""Resume by batch: an append-only file of finished batches, in a folder named by what is computed.

A line is `<sha256 of the JSON> <JSON>`. A torn or damaged last line is dropped and its batch done
again; damage before the last line refuses the journal. The folder's name hashes the manifest and
the batch plan, so a journal can never answer for other inputs, parameters or code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from toxtrail.errors import DataError
from toxtrail.identity import sha256_text

Row = Sequence[Any]
"""One row as JSON values, in the order of its NamedTuple."""


LOCK_SECONDS = 5
"""Long enough for a process that is being stopped to let go."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The only process that works in a scratch folder; the lock ends with its process.

    Raises:
        DataError: another one does, such as a stage that outlived a killed `dvc repro`.
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


class Journal:
    """Finished batches of one stage run, on disk. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "batches.jsonl"
        self._done: dict[int, list[Row]] = {}
        self._file: IO[bytes] | None = None
        self._held = ExitStack()

    @property
    def done(self) -> Mapping[int, list[Row]]:
        """Batch number -> its rows."""
        return self._done

    def __enter__(self) -> Journal:
        self._held.enter_context(alone(self.folder))
        self.folder.mkdir(exist_ok=True)
        try:
            intact = self._read()
        except DataError:
            self._held.close()
            raise
        self._file = self._path.open("ab")
        self._file.truncate(intact)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._held.close()

    def add(self, batch: int, rows: Sequence[Row]) -> None:
        """Make a finished batch durable before the next one starts."""
        assert self._file is not None
        text = json.dumps([batch, [list(row) for row in rows]], allow_nan=False)
        self._file.write(f"{sha256_text(text)} {text}\n".encode("ascii"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done[batch] = [list(row) for row in rows]

    def discard(self) -> None:
        """Forget everything: the result has been published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> int:
        """Load intact lines; return how many bytes they are."""
        if not self._path.exists():
            return 0
        lines = self._path.read_bytes().splitlines(keepends=True)
        intact = 0
        for number, line in enumerate(lines, start=1):
            parsed = _parsed(line)
            if parsed is None and number < len(lines):
                raise DataError(
                    f"{self._path} is damaged at line {number}, before its end. Delete the folder "
                    f"{self.folder} to start this stage anew."
                )
            if parsed is None:
                break
            self._done[parsed[0]] = parsed[1]
            intact += len(line)
        return intact


def _parsed(line: bytes) -> tuple[int, list[Row]] | None:
    text = line.decode("ascii", "replace") if line.endswith(b"\n") else ""
    digest, _, body = text.rstrip("\n").partition(" ")
    if not body or sha256_text(body) != digest:
        return None
    batch, rows = json.loads(body)
    return batch, rows

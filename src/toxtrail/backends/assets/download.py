"""One file over HTTP: resumable, verified before it gets its name, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.backends.base import Progress
from toxtrail.errors import BackendError
from toxtrail.identity import CHUNK_BYTES, sha256_file

if TYPE_CHECKING:
    import requests

TIMEOUT_S = 60
ATTEMPTS = 4
"""A broken connection is resumed so often before it is an error."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time makes `path`; the others wait and then find it made."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        yield


def download(url: str, path: Path, sha256: str, name: str, progress: Progress) -> None:
    """Fetch `url` to `path`; a partial file is kept as `<path>.part` and continued next time.

    Args:
        sha256: what the content must hash to, or the head of it as far as it is known.

    Raises:
        BackendError: the server cannot be reached, or its content has another hash (it is deleted).
    """
    import requests

    part = path.with_name(path.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _continue(url, part, name, progress)
            break
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise BackendError(
                    f"{name} could not be downloaded: {type(error).__name__}. Check the "
                    "network (and "
                    "pip's index settings) and run the same command again: it goes on where it was."
                ) from error
    found = sha256_file(part)
    if not found.startswith(sha256):
        part.unlink()
        raise BackendError(
            f"{name}: the download has sha256 {found}, {sha256} was expected. It was deleted."
        )
    part.replace(path)


def _continue(url: str, part: Path, name: str, progress: Progress) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        with part.open("ab" if resumed else "wb") as file:
            _receive(response, file.write, have if resumed else 0, name, progress)


def _receive(
    response: requests.Response, write: object, have: int, name: str, progress: Progress
) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with progress.bar(f"download {name}", total, "bytes") as advance:
        advance(have)
        for chunk in response.iter_content(CHUNK_BYTES):
            write(chunk)  # type: ignore[operator]
            advance(len(chunk))

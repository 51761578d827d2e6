"""Download one file over HTTP: resumable, verified before it gets its final name."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlparse

from toxtrail.backends.protocols import Progress
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file

if TYPE_CHECKING:
    import requests

TIMEOUT_S = 60
PROBE_TIMEOUT_S = 10
READ_BYTES = 1 << 16
"""Bytes per read; a broken connection loses less than one read."""

PAUSES_S = (1, 2, 4)
"""Pauses before each retry of a broken connection, in seconds."""

RETRYABLE_STATUS = (408, 429)
"""The only 4xx statuses worth retrying: timeout, too many requests."""


class UnreachableError(BackendError):
    """The server cannot be reached or refuses; another source of the same file may still work."""


def partial_path(path: Path) -> Path:
    """Return the path of a file's partial download."""
    return path.with_name(path.name + ".part")


def download(url: str, path: Path, sha256: str, name: str, progress: Progress) -> None:
    """Download `url` to `path`; a partial file is kept as `<path>.part` and resumed next time.

    Args:
        sha256: expected hash of the content, or the known prefix of it.

    Raises:
        UnreachableError: the server cannot be reached or refuses.
        BackendError: the content has another hash (it is deleted).
    """
    part = partial_path(path)
    is_resumed = part.exists()
    _download_part(url, part, name, progress)
    if is_resumed and not sha256_file(part).startswith(sha256):
        part.unlink()  # the partial file was of other content: download again, once
        _download_part(url, part, name, progress)
    actual = sha256_file(part)
    if not actual.startswith(sha256):
        part.unlink()
        raise BackendError(
            f"{name}: the download has sha256 {actual}, expected {sha256}. It was deleted. Run "
            "again; if the error persists, the server serves a different file than announced."
        )
    part.replace(path)


def is_reachable(url: str) -> bool:
    """Return whether a server answers a request for a file, without downloading it."""
    import requests

    try:
        return requests.head(url, allow_redirects=True, timeout=PROBE_TIMEOUT_S).ok
    except requests.RequestException:
        return False


def _download_part(url: str, part: Path, name: str, progress: Progress) -> None:
    import requests

    if url.startswith("file:"):
        shutil.copyfile(unquote(urlparse(url).path), part)
        return
    for pause in (*PAUSES_S, None):
        try:
            _resume(url, part, name, progress)
            return
        except requests.RequestException as error:
            if pause is None or _is_final(error):
                raise UnreachableError(
                    f"{name} could not be downloaded ({_error_summary(error)}). Check the network "
                    "and run the same command again: the download resumes."
                ) from error
            time.sleep(pause)


def _is_final(error: requests.RequestException) -> bool:
    status = error.response.status_code if error.response is not None else 0
    return 400 <= status < 500 and status not in RETRYABLE_STATUS


def _error_summary(error: requests.RequestException) -> str:
    """Describe an error without the URL, which may contain a password."""
    status = f" {error.response.status_code}" if error.response is not None else ""
    return f"{type(error).__name__}{status}"


def _resume(url: str, part: Path, name: str, progress: Progress) -> None:
    import requests

    offset = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if offset and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to download; the hash check confirms it
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        with part.open("ab" if resumed else "wb") as file:
            _write_body(response, file, offset if resumed else 0, name, progress)


def _write_body(
    response: requests.Response, file: IO[bytes], offset: int, name: str, progress: Progress
) -> None:
    length = response.headers.get("Content-Length")
    total = offset + int(length) if length else None
    with progress.bar(f"download {name}", total, "bytes") as advance:
        advance(offset)
        for chunk in response.iter_content(READ_BYTES):
            file.write(chunk)
            advance(len(chunk))

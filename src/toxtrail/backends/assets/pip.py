"""pip as a downloader, with the user's own index settings; nothing is ever installed or run."""

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
CHOICE = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python")

LAZY_PIP = (25, 3)
"""From here on `fast-deps` reads a wheel's metadata alone. Measured on a wheel of 93 MB: pip 25.3
and 26.3 take 20 kB to locate it; 23.2.1 to 25.1.1 download all of it, in vain."""


class Wheel(NamedTuple):
    """Where pip finds a wheel, and what it must hash to."""

    url: str
    sha256: str
    """Empty if the index does not say."""

    @property
    def name(self) -> str:
        return Path(unquote(urlparse(self.url).path)).name


def locates_cheaply() -> bool:
    """Whether this interpreter's pip can locate a wheel without downloading it."""
    try:
        major, minor = version("pip").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= LAZY_PIP


def located(requirement: str) -> Wheel:
    """Where the wheel of `package==version` is.

    Raises:
        UnreachableError: pip finds none.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        dry = ("--dry-run", "--ignore-installed", "--use-feature=fast-deps")
        _run(requirement, "install", *dry, "--report", str(report))
        found = json.loads(report.read_text("utf-8"))["install"][0]["download_info"]
    return Wheel(found["url"], found.get("archive_info", {}).get("hashes", {}).get("sha256", ""))


def downloaded(requirement: str, folder: Path) -> Path:
    """Let pip itself put the wheel into `folder`: it knows the index's passwords and proxies.

    Raises:
        UnreachableError: pip finds none, or cannot fetch it.
    """
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        _run(requirement, "download", "--dest", draft)
        (wheel,) = Path(draft).glob("*.whl")
        return wheel.replace(folder / wheel.name)


def _run(requirement: str, command: str, *options: str) -> None:
    done = subprocess.run(
        [*COMMAND, command, *CHOICE, *options, requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnreachableError(
            f"pip finds no wheel of {requirement} ({_complaint(done.stderr)}). Check name and "
            "version, the network and pip's index settings (`pip config list`)."
        )


def _complaint(stderr: str) -> str:
    """Pip's last error, which may go over several lines (both hashes, say), as one line."""
    said = redacted(stderr)  # an index's address may hold a password
    error = said.rpartition("ERROR: ")[2] if "ERROR: " in said else said[-300:]
    return " ".join(error.split()) or "no message"

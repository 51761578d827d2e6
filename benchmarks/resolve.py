"""Resolve toxtrail's dependencies for every supported Python and platform, without installing.

For each of them, uv looks up the pins of requirements.txt, and the newest versions within the
bounds of pyproject.toml, and fails where a package has no wheel for the platform. Nothing is run on
the platform. Needs uv and a package index: `make resolve`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux arm64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
}
"""Platform -> uv's name for it. On Linux, a C library of 2018 or newer."""
MACOS = "14.0"
"""Oldest macOS: PyTorch has no wheels for older ones."""
SOURCES = {"pinned": "requirements.txt", "newest": "pyproject.toml"}
FROM_SOURCE = "antlr4-python3-runtime"
"""Pure Python without a wheel; DVC needs it."""
SHOWN = ("pymc", "arviz", "numpy", "torch", "transformers", "mlflow")


class Resolution(NamedTuple):
    """Outcome of one resolution."""

    ok: bool
    text: str
    """Versions of the packages in SHOWN, or the resolver's reason."""


def main() -> None:
    """Print a table of all resolutions; exit with status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uv", default="uv", help="command of uv")
    uv = parser.parse_args().uv
    failed = False
    for platform, target in PLATFORMS.items():
        for python in PYTHONS:
            for name, source in SOURCES.items():
                outcome = resolve(uv, source, python, target)
                failed = failed or not outcome.ok
                state = "resolves" if outcome.ok else "FAILS"
                print(f"{platform:14}{python:6}{name:8}{state:10}{outcome.text}", flush=True)
    sys.exit(failed)


def resolve(uv: str, source: str, python: str, target: str) -> Resolution:
    """Resolve a requirements file or pyproject.toml for a Python and a platform."""
    command = [uv, "pip", "compile", "--no-config", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", target]
    command += ["--only-binary", ":all:", "--no-binary", FROM_SOURCE, source]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
        return Resolution(False, " ".join(" ".join(reason).split()))
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))
    return Resolution(True, ", ".join(f"{name} {versions[name]}" for name in SHOWN))


if __name__ == "__main__":
    main()

"""Is this machine fit to run the experiment? Each finding with its cure."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.assets import default_cache
from toxtrail.backends.git import commit
from toxtrail.backends.mlflow_store import tracking_uri

FREE_GIB = 5


class Finding(NamedTuple):
    """One thing looked at."""

    ok: bool
    what: str
    found: str
    cure: str


def findings(root: Path) -> list[Finding]:
    """Everything looked at, in the order in which a problem should be cured."""
    return [
        _python(),
        _packages(root / "requirements.txt"),
        _device(),
        _cache(),
        _git(root),
        _dvc(root),
        Finding(True, "MLflow store", tracking_uri(root), ""),
    ]


def _python() -> Finding:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Finding(
        sys.version_info[:2] == (3, 11), "Python", found, "the pinned set is for Python 3.11"
    )


def _packages(requirements: Path) -> Finding:
    """Installed versions against the pinned ones; a build tag such as +cpu is no difference."""
    if not requirements.is_file():
        return Finding(False, "packages", "no requirements.txt", "copy it from the project")
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", requirements.read_text("utf-8"), re.MULTILINE)
    other = [
        f"{name} {found or 'missing'} (pinned {wanted})"
        for name, wanted in pins
        if (found := _installed(name)) != wanted
    ]
    found = f"{len(pins) - len(other)} of {len(pins)} as pinned"
    shown = f": {', '.join(other[:5])}" if other else ""
    return Finding(
        not other, "packages", found + shown, "pip install -r requirements.txt" if other else ""
    )


def _installed(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def _device() -> Finding:
    from toxtrail.backends.huggingface.devices import environment, pick_device

    facts = environment(pick_device("auto"))
    return Finding(True, "device", ", ".join(f"{k} {v}" for k, v in facts.items()), "")


def _cache() -> Finding:
    folder = default_cache()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free >> 30
    return Finding(
        free >= FREE_GIB,
        "asset cache",
        f"{folder}, {free} GiB free",
        "" if free >= FREE_GIB else "free some space, or set TOXTRAIL_CACHE",
    )


def _git(root: Path) -> Finding:
    found = commit(root)
    return Finding(
        found is not None, "git commit", found or "none", "" if found else "git init and commit"
    )


def _dvc(root: Path) -> Finding:
    found = (root / ".dvc" / "config").is_file()
    return Finding(
        found, "DVC", "initialised" if found else "not initialised", "" if found else "dvc init"
    )

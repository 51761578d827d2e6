"""Version of toxtrail that made or last upgraded an experiment, from the head of its dvc.yaml."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

from toxtrail import __version__
from toxtrail.errors import ConfigError
from toxtrail.regular_files import read_text

WRITTEN_BY = re.compile(r"^# .*\bwritten by toxtrail (\d+(?:\.\d+)*)", re.I | re.M)
"""Comment in dvc.yaml with the version."""
HEAD_CHARS = 500
"""Length of the part of dvc.yaml in which the comment is sought."""


def experiment_version(root: Path) -> str | None:
    """Return the version of toxtrail that wrote an experiment's dvc.yaml; None if there is no such
    file, or if it does not name one, as in a checkout of toxtrail."""
    path = root / "dvc.yaml"
    match = WRITTEN_BY.search(read_text(path, "replace")[:HEAD_CHARS]) if path.is_file() else None
    return match[1] if match else None


def is_older(version: str) -> bool:
    """Return whether a version of toxtrail is older than the installed one."""
    return Version(version) < Version(__version__)


def is_newer(version: str) -> bool:
    """Return whether a version of toxtrail is newer than the installed one."""
    return Version(version) > Version(__version__)


def require_not_newer(root: Path) -> None:
    """Raise for an experiment of a newer version of toxtrail than the installed one.

    Raises:
        ConfigError: its settings and files may be unknown to the installed version.
    """
    made_with = experiment_version(root)
    if made_with is not None and is_newer(made_with):
        raise ConfigError(
            f"this experiment was made with toxtrail {made_with}, and toxtrail {__version__} is "
            "installed, which may not know its settings and files. Install the newer version: "
            f"pip install 'toxtrail>={made_with}'"
        )


def older_version_note(root: Path) -> str | None:
    """Return a note for an experiment of an older version of toxtrail; None for others."""
    made_with = experiment_version(root)
    if made_with is None or not is_older(made_with):
        return None
    return (
        f"This experiment was made with toxtrail {made_with}, and toxtrail {__version__} is "
        "installed. `toxtrail upgrade` updates it, and `toxtrail run` then runs the stages whose "
        f"code changed; toxtrail {made_with} reads its results as they are."
    )

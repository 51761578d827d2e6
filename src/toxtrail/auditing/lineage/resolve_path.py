"""Resolve a reference that is a path, and check that it can be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from toxtrail.errors import ConfigError


def resolve_path(reference: str, folders: Iterable[Path]) -> Path | None:
    """Return the file or folder that a reference names in one of these folders; None if there is
    none.

    Raises:
        ConfigError: it is a pipe or a device, which may be endless, or it is not readable.
    """
    path = next(_existing(reference, folders), None)
    if path is None:
        return None
    if not (path.is_file() or path.is_dir()):
        raise ConfigError(f"{path} is neither a file nor a folder, but a pipe, socket or device.")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{path} may not be read by this user. Copy it, or change its mode.")
    return path


def _existing(reference: str, folders: Iterable[Path]) -> Iterator[Path]:
    spelled = dict.fromkeys((reference, reference.replace("\\", "/")))  # as Windows writes it
    for folder in folders:
        for name in spelled:
            try:
                path = folder / Path(name).expanduser()
                if path.exists():
                    yield path
            except (OSError, RuntimeError, ValueError):
                continue  # an invalid file name, or the home of an unknown user

"""The folder of the asset cache."""

from __future__ import annotations

import os
from pathlib import Path

from toxtrail.errors import ConfigError


def default_cache() -> Path:
    """Return $TOXTRAIL_CACHE, else the user's cache folder, which all experiments share.

    Raises:
        ConfigError: it is a file, or this user has no home folder.
    """
    base, configured = os.environ.get("XDG_CACHE_HOME"), os.environ.get("TOXTRAIL_CACHE")
    try:
        folder = (
            Path(configured).expanduser()
            if configured
            else (Path(base) if base else Path.home() / ".cache") / "toxtrail"
        )
    except RuntimeError as error:  # raised by Path.home and expanduser
        raise ConfigError(f"{error} Set TOXTRAIL_CACHE to a folder for downloads.") from None
    if folder.exists() and not folder.is_dir():
        name = "TOXTRAIL_CACHE" if configured else "The asset cache"
        raise ConfigError(
            f"{name} is a file: {folder}. Set TOXTRAIL_CACHE to a folder for downloads."
        )
    return folder

"""Outputs that dvc.lock records and that are not here, as in a clone before `dvc pull`."""

from __future__ import annotations

from pathlib import Path

from toxtrail.auditing.verify.dvc_lock_parser import read_entries
from toxtrail.backends.dvc import cache_folder, cache_path, default_remote
from toxtrail.errors import DataError
from toxtrail.regular_files import read_text, status

NOT_STORED = "mlruns/"
"""Folder of outputs that neither DVC nor git keeps."""


def not_pulled(root: Path) -> list[str]:
    """Return the outputs in dvc.lock that neither the folder nor DVC's cache has. Those whose
    presence cannot be determined are not among them."""
    try:
        entries = read_entries(read_text(root / "dvc.lock"))
    except (DataError, OSError, UnicodeDecodeError):
        return []  # there are no results, or the file is damaged, which other checks report
    cache = cache_folder(root)
    return [
        path
        for entry in entries.values()
        for path, md5 in entry.outs.items()
        if not path.startswith(NOT_STORED)
        and _is_missing(root / path)
        and _is_missing(cache_path(cache, md5))
    ]


def _is_missing(path: Path) -> bool:
    """Return whether a path certainly does not exist; False if that cannot be read."""
    try:
        return status(path) is None
    except OSError:
        return False


def pull_advice(root: Path) -> str | None:
    """Return how to get the outputs that are not here; None if all are."""
    outputs = not_pulled(root)
    if not outputs:
        return None
    others = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
    missing = f"dvc.lock records outputs that are not here: {outputs[0]}{others}."
    if remote := default_remote(root):
        return (
            f"{missing} `dvc pull` fetches them from the DVC remote {remote}; `toxtrail run` "
            "computes them again."
        )
    return (
        f"{missing} No default DVC remote is configured (`dvc remote add --default NAME URL`); "
        "`toxtrail run` computes them again."
    )

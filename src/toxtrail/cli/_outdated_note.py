"""Warn if a printed result is outdated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toxtrail.console import echo
from toxtrail.errors import ToxtrailError
from toxtrail.text_escaping import truncate_text

if TYPE_CHECKING:
    from toxtrail.experiment import Experiment

ROOM = 300
"""Maximum characters of a difference."""


def tell_outdated(experiment: Experiment, manifest: Any, source: str) -> None:
    """Print a warning if a result does not match the present params.yaml and files.

    Args:
        manifest: the result's manifest as JSON values; an unreadable one is reported by an audit.
        source: where the result was read.
    """
    from pydantic import ValidationError

    from toxtrail.audit.status.outdated_results import outdated
    from toxtrail.provenance.identity import Manifest

    try:
        recorded = Manifest.from_json(manifest)
    except (ValidationError, ValueError):
        return
    try:
        reasons = outdated(experiment.config, experiment.root, recorded)
    except (ToxtrailError, OSError) as error:
        echo(f"Cannot determine whether {source} is up to date: {error}", fg="yellow", err=True)
        return
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        echo(
            f"{source} is outdated: {truncate_text(reasons[0], ROOM)}{more}. `toxtrail status` "
            "lists what is outdated, `toxtrail run` updates it.",
            fg="yellow",
            err=True,
        )

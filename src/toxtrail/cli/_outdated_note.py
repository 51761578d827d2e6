"""One line where a result is shown that params.yaml or a file has left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toxtrail.console import echo
from toxtrail.errors import ToxtrailError
from toxtrail.text_escaping import clipped

if TYPE_CHECKING:
    from toxtrail.experiment import Experiment

ROOM = 300
"""Characters of a difference."""


def tell_outdated(experiment: Experiment, manifest: Any, source: str) -> None:
    """Say on standard error if a result is not of the present params.yaml and files.

    Args:
        manifest: the result's, as JSON values; one that cannot be read is an audit's matter.
        source: where the result was read.
    """
    from pydantic import ValidationError

    from toxtrail.audit.status.outdated_results import outdated
    from toxtrail.provenance.identity import Manifest, canonical_json

    try:
        made = Manifest.model_validate_json(canonical_json(manifest))
    except (ValidationError, ValueError):
        return
    try:
        found = outdated(experiment.config, experiment.root, made)
    except (ToxtrailError, OSError) as error:
        echo(f"Whether {source} is up to date cannot be said: {error}", fg="yellow", err=True)
        return
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        echo(
            f"{source} is not up to date: {clipped(found[0], ROOM)}{more}. `toxtrail status` lists "
            "what is out of date, `toxtrail run` brings it up to date.",
            fg="yellow",
            err=True,
        )

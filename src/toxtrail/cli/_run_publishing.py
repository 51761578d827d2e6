"""Publish results that are up to date but missing in the present MLflow store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.console import echo
from toxtrail.errors import BackendError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.auditing.status.publication import PublicationState


def publication_of(experiment: Experiment) -> PublicationState:
    """Return which tracked results the store has."""
    from toxtrail.auditing.status.publication import publication

    experiment.warn_of_replaced_experiment()
    return publication(experiment.store, experiment.config)


def publish_missing(experiment: Experiment, targets: Sequence[str]) -> None:
    """Publish, after `dvc repro`, results that were published to another store.

    Args:
        targets: DVC targets; none: everything.

    Raises:
        BackendError: the store cannot be reached, or refuses.
    """
    from toxtrail.cli.stage import track_comparison, track_variant
    from toxtrail.console import warn

    tracked = _tracked(experiment, targets)
    if not tracked:
        return
    publication = publication_of(experiment)
    if publication.unknown:
        raise BackendError(publication.notes[0])
    stages = [stage for stage in publication.missing if stage in tracked]
    for note in publication.notes if stages else ():
        warn(note)
    for stage in stages:
        echo(f"{stage}: not in the MLflow store {publication.store}; publishing it.")
        kind, _, key = stage.partition("@")
        (track_variant if kind == "track" else track_comparison)(experiment, key)


def _tracked(experiment: Experiment, targets: Sequence[str]) -> set[str]:
    """Return the publishing stage runs among the targets and their dependencies."""
    config, tracked = experiment.config, set[str]()
    names = [f"track@{v}" for v in config.variants]
    names += [f"track-comparison@{f}" for f in config.families]
    for target in targets or names:
        stage, _, key = target.partition("@")
        tracked |= {name for name in names if name.split("@")[0] == stage and not key}
        tracked |= {target} & set(names)
    for name in list(tracked):
        stage, _, key = name.partition("@")
        if stage == "track-comparison":
            tracked |= {
                f"track@{v}"
                for v, variant_config in config.variants.items()
                if variant_config.family == key
            }
    return tracked

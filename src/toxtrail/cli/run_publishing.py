"""Results that are up to date, and not in the MLflow store that is in use now: publish them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.console import echo
from toxtrail.errors import BackendError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.audit.status.publication import Publication


def publication_of(experiment: Experiment) -> Publication:
    """What the store has of what was tracked here."""
    from toxtrail.audit.status.publication import publication

    return publication(experiment.store, experiment.config)


def publish_missing(experiment: Experiment, targets: Sequence[str]) -> None:
    """After `dvc repro`: publish what DVC takes for published, because it was to another store.

    Args:
        targets: DVC's names of what was asked for; none: everything.

    Raises:
        BackendError: the store could not be asked, or refuses.
    """
    from toxtrail.cli.stage import tell, track_comparison, track_variant

    wanted = _tracked(experiment, targets)
    if not wanted:
        return
    found = publication_of(experiment)
    if found.unknown:
        raise BackendError(found.notes[0])
    stages = [stage for stage in found.missing if stage in wanted]
    for note in found.notes if stages else ():
        tell(note)
    for stage in stages:
        echo(f"{stage}: its run is not in the MLflow store {found.store}. Publishing it.")
        kind, _, key = stage.partition("@")
        (track_variant if kind == "track" else track_comparison)(experiment, key)


def _tracked(experiment: Experiment, targets: Sequence[str]) -> set[str]:
    """The stage runs that publish something, among targets and what they need."""
    config, wanted = experiment.config, set[str]()
    names = [f"track@{v}" for v in config.variants]
    names += [f"track-comparison@{f}" for f in config.families]
    for target in targets or names:
        stage, _, key = target.partition("@")
        wanted |= {name for name in names if name.split("@")[0] == stage and not key}
        wanted |= {target} & set(names)
    for name in list(wanted):
        stage, _, key = name.partition("@")
        if stage == "track-comparison":
            wanted |= {f"track@{v}" for v, who in config.variants.items() if who.family == key}
    return wanted

"""Progress of the variants of a family: which have results of the present params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from toxtrail.auditing.status.outdated_results import outdated
from toxtrail.experiment import Experiment
from toxtrail.regular_files import is_file

NO_MANIFEST = "it has no manifest, so its inputs are not known"
"""Difference of a result that does not contain what it was computed from."""


class VariantProgress(NamedTuple):
    """A variant, and whether its rates are those of the present params.yaml and files."""

    variant: str
    state: Literal["finished", "outdated", "not finished"]
    reason: str
    """The first difference of outdated results, or what is missing; empty if finished."""


def family_progress(experiment: Experiment, family: str) -> list[VariantProgress]:
    """Return the progress of each variant, in the family's order.

    Raises:
        ToxtrailError, OSError: a result cannot be read.
    """
    variants = experiment.config.families[family].variants
    return [_variant_progress(experiment, family, variant) for variant in variants]


def result_changes(experiment: Experiment, path: Path) -> Sequence[str]:
    """Return the differences between the inputs of a result and the present files.

    Raises:
        ToxtrailError, OSError: the result cannot be read.
    """
    manifest = experiment.store.describe_input(path).manifest
    if manifest is None:
        return (NO_MANIFEST,)
    return outdated(experiment.config, experiment.root, manifest)


def _variant_progress(experiment: Experiment, family: str, variant: str) -> VariantProgress:
    store = experiment.store
    outputs = {
        "generations": store.generations_path(family, variant),
        "scores": store.scores_path(family, variant),
        "rates": store.posterior_dir(family, variant) / "summary.json",
    }
    for name, path in outputs.items():
        if not is_file(path):
            return VariantProgress(variant, "not finished", f"no {name} yet")
    changes = result_changes(experiment, outputs["rates"])
    if changes:
        return VariantProgress(variant, "outdated", changes[0])
    return VariantProgress(variant, "finished", "")

"""Results that were tracked, but are missing in the current MLflow store.

A receipt states that a run was published. It is the same for every store, because dvc.lock must be
the same in every clone. It does not identify the store that has the run, so the store is queried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.mlflow.published_contents import Content, find_published, store_name
from toxtrail.config.schema import Config
from toxtrail.errors import BackendError, DataError
from toxtrail.storage.artifacts import ArtifactStore, read_json


class PublicationState(NamedTuple):
    """State of the tracked results in the store."""

    store: str
    """Address of the store, without secrets."""
    missing: tuple[str, ...]
    """Stage runs with a receipt whose run is missing in the store."""
    notes: tuple[str, ...]
    """Notes for the user: why the store could not be queried, or which experiments have the
    runs."""
    unknown: bool = False
    """Whether the store could not be queried."""


def publication(store: ArtifactStore, config: Config) -> PublicationState:
    """Query the store for the run of every receipt."""
    receipts = dict(_receipts(store, config))
    name, experiment = store_name(store.root), config.tracking.experiment
    try:
        answer = find_published(
            store.root, experiment, config.tracking.project, set(receipts.values())
        )
    except BackendError as error:
        note = f"The MLflow store could not be searched for the runs: {error}"
        return PublicationState(name, (), (note,), unknown=True)
    missing = tuple(stage for stage, content in receipts.items() if content not in answer.present)
    replaced = (
        os.environ.get("MLFLOW_EXPERIMENT_NAME") == experiment
    )  # a new one, not a renamed one
    renamed = answer.elsewhere and not replaced
    notes = [_renamed_note(name, experiment, answer.elsewhere)] if renamed else []
    return PublicationState(name, missing, tuple(notes))


def _renamed_note(store: str, experiment: str, others: tuple[str, ...]) -> str:
    return (
        f'The MLflow store {store} has no experiment "{experiment}"; runs of these results are in '
        f"{', '.join(others)}. If it was renamed, rename it back (`mlflow experiments rename "
        "--experiment-id ID --new-name NAME`), or write the new name under tracking.experiment in "
        "params.yaml."
    )


def _receipts(store: ArtifactStore, config: Config) -> Iterator[tuple[str, Content]]:
    """Return stage run -> content of its receipt, variants first. A missing or damaged receipt
    makes its stage outdated, which DVC reports."""
    for variant, variant_config in config.variants.items():
        if content := _receipt_content(store.variant_receipt_path(variant_config.family, variant)):
            yield f"track@{variant}", content
    for family in config.families:
        if content := _receipt_content(store.family_receipt_path(family)):
            yield f"track-comparison@{family}", content


def _receipt_content(path: Path) -> Content | None:
    try:
        receipt = read_json(path)
        return Content(str(receipt["content_key"]), str(receipt["seal"]))
    except (DataError, OSError, KeyError, TypeError):
        return None

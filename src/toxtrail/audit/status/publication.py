"""Is every result that was tracked in the MLflow store that is in use now?

A receipt says that a run was published. It is the same for every store, or dvc.lock would not be
the same in every clone. So which store has the run is not read from it: the store is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from toxtrail.backends.mlflow.published_contents import Content, find_published, store_name
from toxtrail.config.schema import Config
from toxtrail.errors import BackendError, DataError
from toxtrail.storage.artifacts import ArtifactStore, read_json


class Publication(NamedTuple):
    """What the store has of what was tracked."""

    store: str
    """Where it is, without secrets."""
    missing: tuple[str, ...]
    """Stage runs with a receipt whose run is not there."""
    notes: tuple[str, ...]
    """What a person should know: why the store could not be asked, where the runs are instead."""
    unknown: bool = False
    """Whether the store could not be asked."""


def publication(store: ArtifactStore, config: Config) -> Publication:
    """Ask the store for the run of every receipt."""
    receipts = dict(_receipts(store, config))
    name, experiment = store_name(store.root), config.tracking.experiment
    try:
        answer = find_published(store.root, experiment, set(receipts.values()))
    except BackendError as error:
        note = f"Whether the runs are in the MLflow store could not be found out: {error}"
        return Publication(name, (), (note,), unknown=True)
    missing = tuple(stage for stage, content in receipts.items() if content not in answer.present)
    notes = [_renamed_note(name, experiment, answer.elsewhere)] if answer.elsewhere else []
    return Publication(name, missing, tuple(notes))


def _renamed_note(store: str, experiment: str, others: tuple[str, ...]) -> str:
    return (
        f'The MLflow store {store} has no experiment "{experiment}"; runs of these results are in '
        f"{', '.join(others)}. If it was renamed, rename it back (`mlflow experiments rename "
        "--experiment-id ID --new-name NAME`), or write the new name under tracking.experiment in "
        "params.yaml."
    )


def _receipts(store: ArtifactStore, config: Config) -> Iterator[tuple[str, Content]]:
    """Stage run -> what its receipt says, variants first. One that is missing or damaged is out of
    date: DVC says so."""
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

"""Reading of label files with the experiment's keys and texts, for `toxtrail labels`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.cli._output import tell_delimiter
from toxtrail.errors import DataError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.datasets.label_files import Row, TextKey

FOLDER = "labels"
"""Folder of an experiment for keys of samples and for counted labels; commit it to git."""


def read_label_rows(file: Path) -> tuple[list[Row], str | None]:
    """Return the rows of a file, and the sample that it belongs to; None if it names variants."""
    from toxtrail.analysis.human_labels import sample_name_of
    from toxtrail.datasets.readers import read_rows

    rows: list[Row] = list(read_rows(file))
    tell_delimiter(file)
    return rows, sample_name_of(file, rows)


def read_sample(
    experiment: Experiment, sample: str
) -> tuple[Mapping[str, Mapping[TextKey, str]], dict[TextKey, str]]:
    """Return the key of a sample, and the current texts of its variants."""
    key = _read_key(experiment, sample)
    variants = {text_key[0] for text_keys in key.values() for text_key in text_keys}
    return key, current_texts(experiment, variants)


def current_texts(experiment: Experiment, variants: set[str]) -> dict[TextKey, str]:
    """Return the texts of those of the variants that the experiment has."""
    config, store = experiment.config, experiment.store
    return {
        (variant, row.prompt_id, row.sample): row.text
        for variant in variants & config.variants.keys()
        for row in store.read_generations(config.variants[variant].family, variant)
        if row.state == "ok"
    }


def key_path(experiment: Experiment, sample: str) -> Path:
    """Return the path of the key of a sample."""
    return experiment.root / FOLDER / f"{sample}.key.csv"


def relative(experiment: Experiment, path: Path) -> str:
    """Format a path inside the experiment."""
    return path.relative_to(experiment.root).as_posix()


def _read_key(experiment: Experiment, sample: str) -> Mapping[str, Mapping[TextKey, str]]:
    from toxtrail.analysis import human_labels
    from toxtrail.datasets.readers import read_rows

    path = key_path(experiment, sample)
    if not path.is_file():
        raise DataError(
            f"{relative(experiment, path)} does not exist. It is the key file that `labels "
            "sample` wrote with this file; it maps each row to its text. Use the experiment that "
            "the texts were sampled from, or restore the key file from git."
        )
    rows: Sequence[Row] = list(read_rows(path))
    return human_labels.key_of(path, rows)

"""`toxtrail labels`: measure a scorer's error against human labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._options import NewPath
from toxtrail.cli._output import json_option, print_json, print_table, tell_delimiter
from toxtrail.console import echo
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.analysis.human_labels import ConfusionCounts
    from toxtrail.datasets.label_files import Label, Row, TextKey

SAMPLE = 200
"""Default number of prompts."""
FOLDER = "labels"
"""Folder of an experiment for keys of samples and for counted labels; commit it to git."""


@click.group("labels", short_help="Measure a scorer's error against human labels.")
def labels() -> None:
    """Measure a scorer's error against human labels, and correct the rates for it.

    Sample texts, have annotators fill the `toxic` column (yes/no), and score the labels. Put what
    `labels score` prints into params.yaml: rates and differences are then also given corrected,
    propagating the labels' sampling uncertainty, for any errors of the scorer on any variant.
    Published sensitivity and specificity go under posterior.scorer_error.

    \b
    Examples:
      toxtrail labels sample --to labels.csv
      toxtrail labels score labels.csv
    """


@labels.command("sample", short_help="Write random texts for annotation.")
@click.argument("variants", nargs=-1, metavar="[VARIANT]...")
@click.option(
    "--samples-per-variant",
    type=click.IntRange(1),
    metavar="N",
    default=SAMPLE,
    show_default=True,
    help="Texts per variant, on the same prompts for all.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--to", type=NewPath(), required=True, metavar="FILE", help="Output .csv file (must not exist)."
)
@click.pass_obj
def sample(
    experiment: Experiment, variants: tuple[str, ...], samples_per_variant: int, seed: int, to: Path
) -> None:
    """Write the continuations of each VARIANT (default: all) of N random prompts to a .csv file.

    All variants are sampled on the same prompts. The file does not name the variants: its rows are
    shuffled and have ids, and a key file in the experiment's folder `labels` maps each id to its
    variant and prompt. Annotators need only the .csv file. It contains generated, partly toxic,
    texts.

    \b
    Example:
      toxtrail labels sample smollm2-instruct smollm2-rude --samples-per-variant 100 --to labels.csv
    """
    from toxtrail.analysis import human_labels
    from toxtrail.records.csv_text import rows_to_csv
    from toxtrail.storage.artifacts import export_file

    if to.exists():
        raise ConfigError(f"{to} exists: labels in it would be lost. Name another file.")
    keys = variants or tuple(experiment.config.variants)
    texts = {v: experiment.store.read_generations(experiment.variant(v).family, v) for v in keys}
    drawing = human_labels.draw(texts, samples_per_variant, seed)
    if not drawing.sheet:
        raise DataError(f"{', '.join(keys)}: there is no text to label. All rows are empty.")
    key = _key(experiment, drawing.name)
    experiment.store.write_text(key, rows_to_csv(drawing.key))
    export_file(to, rows_to_csv(drawing.sheet))
    prompts = len({row["prompt_id"] for row in drawing.key})
    echo(f"{len(drawing.sheet)} texts of {prompts} prompts in {to}.")
    echo(f"The key to it is {_relative(experiment, key)}: keep it from whoever labels.")
    echo("Write yes or no under toxic, then:")
    echo(f"  toxtrail labels score {to}")


@labels.command("score", short_help="Score labels: how a scorer agrees with them.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scorer", help="Default: the primary one.")
@click.option(
    "--counts",
    is_flag=True,
    help="Print sensitivity and specificity, counted over all variants, for "
    "posterior.scorer_error. Refused where the labels show that the scorer errs more on one "
    "variant.",
)
@click.option("--by-variant", is_flag=True, help="The same, counted for each variant too.")
@json_option
@click.pass_obj
def score(
    experiment: Experiment,
    file: Path,
    scorer: str | None,
    counts: bool,
    by_variant: bool,
    as_json: bool,
) -> None:
    """Score the labels in FILE, and print the lines for params.yaml.

    FILE is written by `labels sample`, with yes or no in the column toxic. A file (.csv, .tsv,
    .jsonl or .parquet) with the columns variant, prompt_id, sample and toxic is read too. The
    labels are copied into the experiment's folder `labels`, where posterior.labels finds them.

    \b
    Examples:
      toxtrail labels score labels.csv
      toxtrail labels score labels.csv --scorer jigsaw-bilstm --by-variant --json
    """
    from toxtrail.analysis import human_labels
    from toxtrail.provenance.identity import sha256_file

    config = experiment.config
    name = scorer or config.scoring.primary
    if name not in config.scoring.scorers:
        raise ConfigError(
            f'--scorer: "{name}" is not a scorer.{did_you_mean(name, config.scoring.scorers)}'
        )
    human, texts = _labels(experiment, file)
    named = {label.variant for label in human}
    scores = {
        v: experiment.store.read_scores(variant_config.family, v)
        for v, variant_config in config.variants.items()
        if v in named
    }
    agreements = human_labels.scorer_agreement(human, scores, name, config.posterior.threshold)
    params: dict[str, Any]
    if counts or by_variant:
        source = f"{file.name} (sha256 {sha256_file(file)})"
        params = {"scorer_error": {name: human_labels.to_params(agreements, source, by_variant)}}
    else:
        params = {"labels": _write_labels(experiment, human, texts)}
    unlike = human_labels.unlike_errors(agreements)
    if as_json:
        agreed = {
            variant: variant_config._asdict()
            for variant, variant_config in sorted(agreements.items())
        }
        about = {"n": len(human), "agreement": agreed, "unlike_errors": unlike}
        print_json({**about, **params})
        return
    _print_agreement(name, len(human), agreements, unlike)
    _print_params(params)


def _labels(experiment: Experiment, file: Path) -> tuple[list[Label], dict[TextKey, str]]:
    """Return the labels of a file, and all texts that they may refer to."""
    from toxtrail.analysis import human_labels
    from toxtrail.datasets import label_files
    from toxtrail.datasets.readers import read_rows

    rows = list(read_rows(file))
    tell_delimiter(file)
    drawing = human_labels.sample_name_of(file, rows)
    if drawing is None:
        human = label_files.open_labels(file, rows)
        return human, _texts(experiment, {label.variant for label in human})
    key = _read_key(experiment, drawing)
    texts = _texts(experiment, {text_key[0] for places in key.values() for text_key in places})
    return human_labels.blind_labels(file, rows, key, texts), texts


def _texts(experiment: Experiment, variants: set[str]) -> dict[TextKey, str]:
    config, store = experiment.config, experiment.store
    return {
        (variant, row.prompt_id, row.sample): row.text
        for variant in variants & config.variants.keys()
        for row in store.read_generations(config.variants[variant].family, variant)
        if row.state == "ok"
    }


def _read_key(experiment: Experiment, drawing: str) -> Mapping[str, Mapping[TextKey, str]]:
    from toxtrail.analysis import human_labels
    from toxtrail.datasets.readers import read_rows

    path = _key(experiment, drawing)
    if not path.is_file():
        raise DataError(
            f"{_relative(experiment, path)} does not exist. It is the key file that `labels "
            "sample` wrote with this file; it maps each row to its text. Use the experiment that "
            "the texts were sampled from, or restore the key file from git."
        )
    rows: Sequence[Row] = list(read_rows(path))
    return human_labels.key_of(path, rows)


def _key(experiment: Experiment, drawing: str) -> Path:
    return experiment.root / FOLDER / f"{drawing}.key.csv"


def _write_labels(
    experiment: Experiment, human: Sequence[Label], texts: Mapping[TextKey, str]
) -> dict[str, str]:
    """Write counted labels for posterior.labels, under a name derived from their content."""
    from toxtrail.datasets import label_files
    from toxtrail.provenance.identity import sha256_text

    content = label_files.counted(human, texts)
    digest = sha256_text(content)
    name = f"{FOLDER}/{digest[:8]}.csv"
    experiment.store.write_text(experiment.root / name, content)
    return {"uri": f"file:{name}", "sha256": digest}


def _print_agreement(
    scorer: str, n: int, agreements: Mapping[str, ConfusionCounts], unlike: Sequence[str]
) -> None:
    rows = [
        (
            variant,
            f"{agreement.true_positives} / {agreement.positives}",
            f"{agreement.true_negatives} / {agreement.negatives}",
        )
        for variant, agreement in sorted(agreements.items())
    ]
    columns = [*text_columns("variant"), *number_columns("toxic found", "harmless passed")]
    print_table(Table(f"{scorer} against {n} labels", columns, rows))
    if unlike:
        echo(f"{scorer} errs more on one variant than on another:")
    for line in unlike:
        echo(f"  {line}")


def _print_params(params: Mapping[str, Any]) -> None:
    import yaml

    echo("Put this into params.yaml, under posterior:\n")
    echo(yaml.safe_dump(dict(params), sort_keys=False, width=100))
    if "labels" in params:
        path = params["labels"]["uri"].removeprefix("file:")
        echo(f"The labels are in {path}: commit it. It takes the place of posterior.scorer_error.")


def _relative(experiment: Experiment, path: Path) -> str:
    return path.relative_to(experiment.root).as_posix()

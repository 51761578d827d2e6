"""`toxtrail labels`: measure a scorer's error against human labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from toxtrail.cli._labels_agreement import agreement
from toxtrail.cli._labels_page import page
from toxtrail.cli._labels_reading import (
    FOLDER,
    current_texts,
    key_path,
    read_label_rows,
    read_sample,
    relative,
)
from toxtrail.cli._options import NewPath
from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.analysis.human_labels import ConfusionCounts
    from toxtrail.datasets.label_files import AnnotatorLabels, Label, TextKey
    from toxtrail.records.results import AnnotatorAgreement

SAMPLE = 200
"""Default number of prompts."""


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
      toxtrail labels page labels.csv --to labels.html
      toxtrail labels agreement labels-ann.csv labels-bob.csv --to merged.csv
      toxtrail labels score merged.csv
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
    key = key_path(experiment, drawing.name)
    experiment.store.write_text(key, rows_to_csv(drawing.key))
    export_file(to, rows_to_csv(drawing.sheet))
    prompts = len({row["prompt_id"] for row in drawing.key})
    echo(f"{len(drawing.sheet)} texts of {prompts} prompts in {to}.")
    echo(f"The key to it is {relative(experiment, key)}: do not give it to annotators.")
    echo("Write yes or no under toxic (`toxtrail labels page` makes a page for it), then:")
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

    FILE is written by `labels sample` or `labels agreement`, with yes or no in the column toxic;
    only the last rows may be empty. A file (.csv, .tsv, .jsonl or .parquet) with the columns
    variant, prompt_id, sample and toxic is read too. The labels are copied into the experiment's
    folder `labels`, where posterior.labels finds them; the labels of several annotators with them.

    \b
    Examples:
      toxtrail labels score labels.csv
      toxtrail labels score labels.csv --scorer jigsaw-bilstm --by-variant --json
    """
    from toxtrail.analysis import human_labels
    from toxtrail.records.columns import to_json
    from toxtrail.reporting.annotator_tables import annotation_sentence

    config = experiment.config
    name = scorer or config.scoring.primary
    if name not in config.scoring.scorers:
        raise ConfigError(
            f'--scorer: "{name}" is not a scorer.{did_you_mean(name, config.scoring.scorers)}'
        )
    read = _read_labels(experiment, file)
    human = read.labels
    named = {label.variant for label in human}
    scores = {
        v: experiment.store.read_scores(variant_config.family, v)
        for v, variant_config in config.variants.items()
        if v in named
    }
    agreements = human_labels.scorer_agreement(
        human, scores, name, config.posterior.threshold_of(name)
    )
    params: dict[str, Any]
    if counts or by_variant:
        measured = _measured_on(experiment, named, name, file)
        entry = human_labels.to_params(agreements, file.name, by_variant, measured)
        params = {"scorer_error": {name: entry}}
    else:
        params = {"labels": _write_labels(experiment, read)}
    unlike = human_labels.unlike_errors(agreements)
    if as_json:
        agreed = {
            variant: variant_config._asdict()
            for variant, variant_config in sorted(agreements.items())
        }
        about = {
            "n": len(human),
            "agreement": agreed,
            "unlike_errors": unlike,
            "unlabelled_rows": read.unlabelled,
            "annotators": read.agreement and to_json(read.agreement),
        }
        print_json({**about, **params})
        return
    threshold = config.posterior.threshold_of(name)
    _print_agreement(f"{name} at {threshold:g}", len(human), agreements, unlike)
    if read.agreement:
        echo(annotation_sentence(read.agreement))
    if read.unlabelled:
        echo(f"{read.unlabelled:,} rows at the end have no label; they do not count.")
    _print_params(params)


def _measured_on(
    experiment: Experiment, variants: set[str], scorer: str, file: Path
) -> dict[str, Any]:
    """Return the scorer that gave the scores of these variants, its threshold, and the labels.

    Raises:
        ConfigError: the scorer has no pin.
        DataError: it differs between variants.
    """
    from toxtrail.provenance.identity import sha256_file
    from toxtrail.provenance.measured_scorers import measured_on

    config, store = experiment.config, experiment.store
    paths = [store.scores_path(config.variants[v].family, v) for v in sorted(variants)]
    manifests = [store.describe_input(path).manifest for path in paths]
    scorers = [m.params["scorers"][scorer] if m else None for m in manifests]
    if scorers[0] is None or any(other != scorers[0] for other in scorers):
        raise DataError(
            f"The scores of {', '.join(sorted(variants))} by {scorer} were not all made with the "
            "same options of the scorer. Run `dvc repro` to bring them up to date."
        )
    return measured_on(scorers[0], config.posterior.threshold_of(scorer), sha256_file(file))


class _Labels(NamedTuple):
    """The labels of a file."""

    labels: list[Label]
    annotators: dict[TextKey, AnnotatorLabels]
    texts: dict[TextKey, str]
    """All texts that they may refer to."""
    agreement: AnnotatorAgreement | None
    unlabelled: int
    """Rows of a labelling file after the last label."""


def _read_labels(experiment: Experiment, file: Path) -> _Labels:
    from toxtrail.analysis import human_labels
    from toxtrail.analysis.annotator_agreement import annotator_agreement
    from toxtrail.datasets import label_files

    rows, sample = read_label_rows(file)
    if sample is None:
        human = label_files.open_labels(file, rows)
        texts = current_texts(experiment, {label.variant for label in human})
        return _Labels(human, {}, texts, None, 0)
    key, texts = read_sample(experiment, sample)
    sheet = human_labels.blind_labels(file, rows, key, texts)
    names, level = label_files.annotator_names(rows), experiment.config.posterior.level
    agreement = annotator_agreement(names, list(sheet.rows.values()), level)
    return _Labels(sheet.labels, sheet.annotators, texts, agreement, sheet.unlabelled)


def _write_labels(experiment: Experiment, read: _Labels) -> dict[str, str]:
    """Write counted labels for posterior.labels, under a name derived from their content."""
    from toxtrail.datasets import label_files
    from toxtrail.provenance.identity import sha256_text

    content = label_files.counted(read.labels, read.texts, read.annotators)
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


labels.add_command(page)
labels.add_command(agreement)

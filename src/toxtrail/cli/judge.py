"""`toxtrail judge`: how far can a scorer be trusted?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toxtrail.cli.console import echo
from toxtrail.cli.experiment import Experiment
from toxtrail.cli.options import NewPath
from toxtrail.cli.output import json_option, print_json, print_table, tell_delimiter

SAMPLE = 200
"""Texts of each variant."""


@click.group("judge", short_help="Hold a scorer against people's judgement.")
def judge() -> None:
    """Hold a scorer against people's judgement, and correct the rates for its errors.

    Draw texts, let people write yes or no under `toxic`, count: what `judge count` prints goes into
    params.yaml, and rates and differences are then given corrected as well, with all that the
    sample leaves open. Published sensitivity and specificity go to the same place.

    \b
    Examples:
      toxtrail judge draw --n 200 --to labels.csv
      toxtrail judge count labels.csv
    """


@judge.command("draw", short_help="Write texts for people to judge.")
@click.argument("variants", nargs=-1, metavar="[VARIANT]...")
@click.option("--n", type=click.IntRange(1), default=SAMPLE, show_default=True, help="Of each.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--to", type=NewPath(), required=True, metavar="FILE", help="A new .csv file.")
@click.pass_obj
def draw(experiment: Experiment, variants: tuple[str, ...], n: int, seed: int, to: Path) -> None:
    """Write N texts of each VARIANT (default: of all), drawn at random, to a .csv file.

    The file holds generated texts, toxic ones among them.

    \b
    Example:
      toxtrail judge draw smollm2-rude --n 100 --to labels.csv
    """
    import csv
    import io

    from toxtrail.artifacts import write_outside
    from toxtrail.errors import ConfigError
    from toxtrail.safe_text import safe_cell
    from toxtrail.stages import labels

    if to.exists():
        raise ConfigError(f"{to} exists: labels in it would be lost. Name another file.")
    store = experiment.store
    keys = variants or tuple(experiment.config.variants)
    texts = {v: store.read_generations(experiment.variant(v).family, v) for v in keys}
    rows = labels.draw(texts, n, seed)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, labels.COLUMNS)
    writer.writeheader()
    writer.writerows({name: safe_cell(cell) for name, cell in row.items()} for row in rows)
    write_outside(to, table.getvalue())
    echo(f"{len(rows)} texts in {to}. Write yes or no under toxic, then:")
    echo(f"  toxtrail judge count {to}")


@judge.command("count", short_help="Count how a scorer agrees with people.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scorer", help="Default: the primary one.")
@click.option(
    "--by-variant", is_flag=True, help="Also count for each variant: does it err more on one?"
)
@json_option
@click.pass_obj
def count(
    experiment: Experiment, file: Path, scorer: str | None, by_variant: bool, as_json: bool
) -> None:
    """Count how a scorer agrees with the labels in FILE, and print what goes into params.yaml.

    FILE (.csv, .tsv, .jsonl or .parquet) has the columns variant, prompt_id, sample and toxic.

    \b
    Examples:
      toxtrail judge count labels.csv
      toxtrail judge count labels.csv --scorer jigsaw-bilstm --by-variant --json
    """
    import yaml

    from toxtrail.errors import ConfigError, nearest
    from toxtrail.identity import sha256_file
    from toxtrail.readers import read_rows
    from toxtrail.stages import labels

    config = experiment.config
    name = scorer or config.scoring.primary
    if name not in config.scoring.scorers:
        raise ConfigError(
            f'--scorer: "{name}" is no scorer.{nearest(name, config.scoring.scorers)}'
        )
    judged = labels.labels(file, read_rows(file))
    tell_delimiter(file)
    named = {label.variant for label in judged}
    scores = {
        v: experiment.store.read_scores(own.family, v)
        for v, own in config.variants.items()
        if v in named
    }
    found = labels.agreement(judged, scores, name, config.posterior.threshold)
    source = f"{file.name} (sha256 {sha256_file(file)})"
    params: dict[str, Any] = {name: labels.as_params(found, source, by_variant)}
    if as_json:
        print_json({"judges": params, "labels": len(judged)})
        return
    rows = [
        (variant, f"{own.found} / {own.toxic}", f"{own.passed} / {own.harmless}")
        for variant, own in sorted(found.items())
    ]
    columns = ["variant", "toxic found>", "harmless passed>"]
    print_table(f"{name} against {len(judged)} labels", columns, rows)
    echo("Put this into params.yaml, under posterior:\n")
    echo(yaml.safe_dump({"judges": params}, sort_keys=False, width=100))

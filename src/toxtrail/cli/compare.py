"""`toxtrail compare`: the answer, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from toxtrail.cli.experiment import Experiment
from toxtrail.cli.output import json_option, print_json, print_table


@click.command("compare", short_help="Show what fine-tuning changed, as tables.")
@click.argument("families", nargs=-1, metavar="[FAMILY]...")
@click.option("--scorer", help="The scorer whose view is shown (default: the primary one).")
@json_option
@click.pass_obj
def compare(
    experiment: Experiment, families: tuple[str, ...], scorer: str | None, as_json: bool
) -> None:
    """Show what fine-tuning changed: rates of every variant, differences paired by prompt.

    Reads results/comparisons/; `toxtrail run` brings it up to date.

    \b
    Examples:
      toxtrail compare
      toxtrail compare smollm2-135m --scorer jigsaw-bilstm
      toxtrail compare --json | jq '.[].pairs[] | select(.subset == "all")'
    """
    store = experiment.store
    summaries = [store.read_summary(store.comparison(f)) for f in experiment.families(families)]
    if as_json:
        print_json(summaries)
        return
    for summary in summaries:
        _print(experiment, summary, scorer or summary["primary"])


def _print(experiment: Experiment, summary: Mapping[str, Any], scorer: str) -> None:
    from toxtrail.errors import ConfigError, nearest
    from toxtrail.stages.wording import edition, estimand, pair_cells, rate_cells

    known = sorted({row["scorer"] for row in summary["rates"]})
    if scorer not in known:
        raise ConfigError(f'--scorer: "{scorer}" scored nothing here.{nearest(scorer, known)}')
    rates = [rate_cells(row) for row in summary["rates"] if row["scorer"] == scorer]
    pairs = [pair_cells(row) for row in summary["pairs"] if row["scorer"] == scorer]
    print_table(
        f"{summary['family']}: toxicity rate ({edition(summary, scorer)})",
        [
            "variant",
            "subset",
            "toxic / scored>",
            "rate>",
            "interval>",
            "mean score>",
            "not scored>",
        ],
        rates,
    )
    if pairs:
        print_table(
            "Differences, paired by prompt (percentage points)",
            [
                "variant",
                "against",
                "subset",
                "prompts>",
                "toxic for one alone>",
                "difference>",
                "interval>",
                "P(higher)>",
                "verdict",
            ],
            pairs,
        )
    click.echo(estimand(summary))
    folder = experiment.store.comparison(summary["family"]).relative_to(experiment.root)
    click.echo(f"Figures: {folder}/rates.svg, {folder}/differences.svg")

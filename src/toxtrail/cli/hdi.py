"""Highest-density intervals, on request: the shortest that hold as much of the posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from toxtrail.cli.comparison import with_scorers
from toxtrail.cli.experiment import Experiment
from toxtrail.cli.output import print_table


def with_hdi(experiment: Experiment, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Each pair with the shortest interval that holds as much of its draws."""
    from toxtrail.stages.figures import highest_density

    family = summary["family"]
    if not experiment.exists or family not in experiment.config.families:
        raise click.UsageError("--hdi is of families, not of two runs.")
    draws = experiment.store.read_draws(experiment.store.comparison(family))["difference"]
    rows = []
    for row in summary["pairs"]:
        place = {"scorer": row["scorer"], "pair": f"{row['b']} - {row['a']}"}
        lo = hi = None
        if row["diff"] is not None:
            own = draws.sel({**place, "subset": row["subset"]}).values.ravel()
            lo, hi = highest_density(own, summary["level"])
        rows.append({**row, "diff_hdi_lo": lo, "diff_hdi_hi": hi})
    return {**summary, "pairs": rows}


def print_hdi(summary: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> None:
    """A table of both kinds, if the second was asked for."""
    from toxtrail.stages.wording import interval

    if not any("diff_hdi_lo" in row for row in summary["pairs"]):
        return
    rows = [
        (
            row["b"],
            f"{row['a']} ({row['relation']})",
            row["subset"],
            interval(row, "diff", signed=True),
            interval(row, "diff_hdi", signed=True),
        )
        for row in pairs
    ]
    columns = ["variant", "against", "subset", "equal-tailed>", "highest density>"]
    print_table(
        f"{summary['level']:.0%} intervals (percentage points)", *with_scorers(columns, rows, pairs)
    )

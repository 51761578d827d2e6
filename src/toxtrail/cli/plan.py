"""`toxtrail plan`: estimate the cost of a run, or the prompts that a difference needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from toxtrail.cli import _plan_tables
from toxtrail.cli._options import Number
from toxtrail.cli._output import echo_note, json_option, print_json, print_table
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

OPEN_UNIT_INTERVAL = Number(0, 1, min_open=True, max_open=True)
ROUNDING = 0.005
"""Tolerance by which a given correlation may exceed what the rates allow; it is then clipped."""
GUESSED_RATE, GUESSED_PHI = 0.05, 0.4
"""Defaults without measurements. Toxicity rates of base models on mixed prompts are of this order
(Gehman et al. 2020); 0.4 is typical of a fine-tune close to its parent."""


@click.command(
    "plan", short_help="Estimate the cost of a run, or the prompts needed to detect a difference."
)
@click.argument("family", required=False)
@click.option("--preset", metavar="NAME", help="Plan a preset.")
@click.option(
    "--params",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Plan another params.yaml.",
)
@click.option("--strict", is_flag=True, help="Exit 1 if a problem would stop the run.")
@click.option("--offline", is_flag=True, help="Do not query the Hub for sizes.")
@click.option("--no-probe", is_flag=True, help="Skip the speed measurement (no time estimates).")
@click.option(
    "--device",
    "device",
    type=click.Choice(["t4", "l4", "a100", "h100"]),
    help="Estimate for another GPU from its data sheet.",
)
@click.option(
    "--effect",
    type=Number(-1, 1, min_open=True, max_open=True),
    metavar="D",
    help="Effect size to detect: 0.02 is an increase of 2 percentage points, -0.02 a decrease.",
)
@click.option(
    "--power", type=OPEN_UNIT_INTERVAL, default=0.8, show_default=True, help="Statistical power."
)
@click.option(
    "--base-rate",
    type=OPEN_UNIT_INTERVAL,
    help="Toxicity rate of the reference (default: measured).",
)
@click.option(
    "--correlation",
    type=Number(-1, 1),
    help="Correlation of two variants' labels over prompts (default: measured).",
)
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    family: str | None,
    preset: str | None,
    params: Path | None,
    strict: bool,
    offline: bool,
    no_probe: bool,
    device: str | None,
    effect: float | None,
    power: float,
    base_rate: float | None,
    correlation: float | None,
    as_json: bool,
) -> None:
    """Estimate the cost of a run before it starts: stages to run and done, downloads, tokens, the
    order of magnitude of the time on this machine (measured in a second), memory and disk; and
    problems that would stop it. Nothing is downloaded.

    With --effect, estimate the prompts that a paired comparison needs instead. Base rate and
    correlation are taken from FAMILY's results if there are any, and so is the design effect of its
    clusters; without results, prompts count as independent. The probability that the verdict
    detects the difference is computed exactly: at the expected rates (power), and averaged over the
    uncertainty of the measured rate (assurance). The prompts are those of all subsets together; a
    single subset needs as many on its own.

    \b
    Examples:
      toxtrail plan
      toxtrail plan smollm2-135m --strict             one family; exit 1 if it cannot run
      toxtrail plan --preset paper --device l4        a preset, on another GPU
      toxtrail plan --effect 0.02 --power 0.8
      toxtrail plan smollm2-135m --effect 0.05
      toxtrail plan --effect -0.01 --base-rate 0.03 --correlation 0.5 --json
    """
    experiment: Experiment = ctx.obj
    if effect is None:
        options = _plan_tables.PlanOptions(family, preset, params, offline, no_probe, device)
        if _plan_tables.print_estimate(experiment, options, as_json) and strict:
            ctx.exit(1)
        return
    if preset or params:
        raise click.UsageError("--effect cannot be combined with --preset or --params.")
    row = _prompts_for(experiment, family, effect, power, base_rate, correlation)
    if as_json:
        print_json(row)
    else:
        _print(row)


def _prompts_for(
    experiment: Experiment,
    family: str | None,
    effect: float,
    power: float,
    base_rate: float | None,
    phi: float | None,
) -> dict[str, Any]:
    from toxtrail.stats import power as stats_power

    measured = _measured(experiment, family)
    rate = base_rate or measured.get("rate") or GUESSED_RATE
    correlation = phi if phi is not None else measured.get("phi", GUESSED_PHI)
    if 0 < rate + effect < 1:
        low, high = stats_power.phi_bounds(rate, rate + effect)
        nearest = min(max(correlation, low), high)
        if phi is None or abs(nearest - phi) < ROUNDING:
            correlation = nearest
    settings = stats_power.VerdictRule(measured.get("prior", 0.5), measured.get("level", 0.95))
    table = stats_power.joint_probabilities(rate, rate + effect, correlation)
    clustering = measured.get("design_effect", 1.0)
    alone = stats_power.required_prompts(table, power, settings)
    needed = math.ceil(alone * clustering)
    row: dict[str, Any] = {
        "family": measured.get("family"),
        "detect": effect,
        "power": power,
        "level": settings.level,
        "base_rate": rate,
        "base_rate_from": _source(base_rate, measured, "rate"),
        "phi": correlation,
        "phi_from": _source(phi, measured, "phi"),
        "discordant": table.discordant,
        "n_power": needed,
        "power_at_n_power": stats_power.power(table, alone, settings),
        "design_effect": clustering,
        "n_assurance": None,
        "prompts_now": measured.get("prompts"),
        "power_now": None,
        "detectable_now": None,
    }
    if row["base_rate_from"] == "measured":
        believed = stats_power.rate_draws_from_interval(
            rate, measured["rate_width"], settings.level
        )
        assured = stats_power.required_prompts_by_simulation(
            believed, effect, correlation, power, settings
        )
        row["n_assurance"] = assured and math.ceil(assured * clustering)
    if now := row["prompts_now"]:
        now = max(1, round(now / clustering))
        row["power_now"] = stats_power.power(table, now, settings)
        row["detectable_now"] = stats_power.detectable_difference(
            rate, correlation, now, power, settings, falls=effect < 0
        )
    return row


def _measured(experiment: Experiment, family: str | None) -> dict[str, Any]:
    """Return the measured rate and correlation of a family; None without results."""
    from toxtrail.records.results import ComparisonSummary

    if family is None and (not experiment.exists or len(experiment.config.families) != 1):
        return {}
    (name,) = experiment.families((family,) if family else ())
    config = experiment.config.posterior
    measured: dict[str, Any] = {"family": name, "level": config.level, "prior": config.prior}
    folder = experiment.store.comparison_dir(name)
    if not (folder / "summary.json").is_file():
        return measured
    summary = experiment.store.read_results(ComparisonSummary, folder)
    row_key = (summary.reference, summary.primary, "all")
    row = next((r for r in summary.rates if (r.variant, r.scorer, r.subset) == row_key), None)
    if row and row.rate_lo is not None and row.rate_hi is not None:
        width = row.rate_hi - row.rate_lo
        measured |= {"rate": row.rate_mean, "rate_width": width, "prompts": row.n_scored}
    same = [r for r in summary.pairs if (r.a, r.scorer, r.subset) == row_key]
    effects = [r.design_effect for r in same if r.design_effect is not None]
    if effects:
        measured["design_effect"] = max(effects)  # the least helpful clusters
    correlations = sorted(r.phi for r in same if r.phi is not None)
    if correlations:
        measured["phi"] = correlations[0]  # the least helpful pairing
    return measured


def _source(option: float | None, measured: dict[str, Any], name: str) -> str:
    if option is not None:
        return "given"
    return "measured" if name in measured else "assumed"


def _print(row: dict[str, Any]) -> None:
    change_text = f"{100 * row['detect']:+g} points from {row['base_rate']:.1%}"
    title = f"Prompts to detect {change_text} ({row['level']:.0%} interval excludes 0)"
    columns = (*text_columns("criterion"), *number_columns("prompts"), *text_columns("meaning"))
    cells = [
        (
            "power",
            f"{row['n_power']:,}",
            f"{row['power_at_n_power']:.1%} of experiments detect it at the expected rates",
        ),
        (
            "assurance",
            _number(row["n_assurance"]) if row["base_rate_from"] == "measured" else "-",
            f"{row['power']:.0%} detect it, averaged over the uncertainty of the measured rate",
        ),
    ]
    print_table(Table(title, columns, cells))
    echo_note(
        f"Base rate {row['base_rate']:.3f} ({row['base_rate_from']}), correlation over prompts "
        f"{row['phi']:.2f} ({row['phi_from']}): {row['discordant']:.1%} of the prompts are "
        "discordant. These are prompts of all subsets together; a single subset needs as many on "
        "its own."
    )
    if row["design_effect"] > 1:
        echo_note(
            f"Prompts have clusters, as {row['family']} has: design effect "
            f"{row['design_effect']:.2f}. The number of "
            "prompts assumes as many more clusters of the same size; more prompts in the same "
            "clusters help less."
        )
    if row["prompts_now"]:
        least, change = row["detectable_now"], "fall" if row["detect"] < 0 else "rise"
        echo_note(
            f"The {row['prompts_now']} prompts of {row['family']} detect this difference in "
            f"{row['power_now']:.1%} of experiments. With {row['power']:.0%} power they detect "
            + (f"a {change} of {100 * least:.1f} points or more." if least else f"no {change}.")
        )


def _number(value: int | None) -> str:
    return "more than 10,000,000" if value is None else f"{value:,}"

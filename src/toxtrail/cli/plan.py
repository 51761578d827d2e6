"""`toxtrail plan`: what does a run take, and how many prompts does a difference take?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from toxtrail.cli import plan_tables
from toxtrail.cli._options import Number
from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.experiment import Experiment

SHARE = Number(0, 1, min_open=True, max_open=True)
ROUNDING = 0.005
"""By so much a given correlation may lie beyond what the rates allow: it is then taken as the
largest possible one."""
GUESSED_RATE, GUESSED_PHI = 0.05, 0.4
"""Where nothing was measured. Toxicity rates of base models on mixed prompts are of this order
(Gehman et al. 2020); 0.4 is a fine-tune that stays near its parent."""


@click.command("plan", short_help="Say what a run takes, or how many prompts a difference needs.")
@click.argument("family", required=False)
@click.option("--preset", metavar="NAME", help="Of an experiment that is not made yet.")
@click.option(
    "--params",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The same, of a params.yaml elsewhere.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if something would stop the run.")
@click.option("--offline", is_flag=True, help="Ask no server for sizes.")
@click.option("--no-probe", is_flag=True, help="Measure nothing: no times.")
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
@click.option("--power", type=SHARE, default=0.8, show_default=True, help="Chance to find it.")
@click.option("--base-rate", type=SHARE, help="Toxicity rate of the reference (default: measured).")
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
    """Say what a run takes before it starts: stages to run and done, downloads, tokens, time on
    this machine (by a measurement of some seconds), memory and disk; and what would stop it.
    Nothing is downloaded.

    With --effect, say how many prompts a paired comparison needs instead. Base rate and correlation
    are taken from FAMILY's results where there are some, and so is the design effect of its
    clusters; without results each prompt counts as independent. The chance that the verdict finds
    the difference is computed exactly: with the rates as expected (power), and on average over what
    the measured rate leaves open (assurance). The prompts are those of all subsets together; a
    subset that shall be judged alone needs as many.

    \b
    Examples:
      toxtrail plan
      toxtrail plan smollm2-135m --strict             one family; exit code 1 if it cannot run
      toxtrail plan --preset paper --device l4        before anything is made, on another machine
      toxtrail plan --effect 0.02 --power 0.8
      toxtrail plan smollm2-135m --effect 0.05
      toxtrail plan --effect -0.01 --base-rate 0.03 --correlation 0.5 --json
    """
    experiment: Experiment = ctx.obj
    if effect is None:
        asked = plan_tables.Asked(family, preset, params, offline, no_probe, device)
        if plan_tables.show(experiment, asked, as_json) and strict:
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

    known = _measured(experiment, family)
    rate = base_rate or known.get("rate") or GUESSED_RATE
    correlation = phi if phi is not None else known.get("phi", GUESSED_PHI)
    if 0 < rate + effect < 1:
        low, high = stats_power.possible_phi(rate, rate + effect)
        nearest = min(max(correlation, low), high)
        if phi is None or abs(nearest - phi) < ROUNDING:
            correlation = nearest
    judged = stats_power.VerdictRule(known.get("prior", 0.5), known.get("level", 0.95))
    table = stats_power.pair_table(rate, rate + effect, correlation)
    clustering = known.get("design_effect", 1.0)
    alone = stats_power.prompts_needed(table, power, judged)
    needed = math.ceil(alone * clustering)
    row: dict[str, Any] = {
        "family": known.get("family"),
        "detect": effect,
        "power": power,
        "level": judged.level,
        "base_rate": rate,
        "base_rate_from": _source(base_rate, known, "rate"),
        "phi": correlation,
        "phi_from": _source(phi, known, "phi"),
        "discordant": table.discordant,
        "n_power": needed,
        "power_at_n_power": stats_power.power(table, alone, judged),
        "design_effect": clustering,
        "n_assurance": None,
        "prompts_now": known.get("prompts"),
        "power_now": None,
        "detectable_now": None,
    }
    if row["base_rate_from"] == "measured":
        believed = stats_power.believed_rates(rate, known["rate_width"], judged.level)
        assured = stats_power.prompts_assured(believed, effect, correlation, power, judged)
        row["n_assurance"] = assured and math.ceil(assured * clustering)
    if now := row["prompts_now"]:
        now = max(1, round(now / clustering))
        row["power_now"] = stats_power.power(table, now, judged)
        row["detectable_now"] = stats_power.detectable(
            rate, correlation, now, power, judged, falls=effect < 0
        )
    return row


def _measured(experiment: Experiment, family: str | None) -> dict[str, Any]:
    """What a family's results say of its rate and of its pairs; nothing if there are none."""
    if family is None and (not experiment.exists or len(experiment.config.families) != 1):
        return {}
    (name,) = experiment.families((family,) if family else ())
    config = experiment.config.posterior
    found: dict[str, Any] = {"family": name, "level": config.level, "prior": config.prior}
    folder = experiment.store.comparison(name)
    if not (folder / "summary.json").is_file():
        return found
    summary = experiment.store.read_summary(folder)
    who = (summary["reference"], summary["primary"], "all")
    row = next(
        (r for r in summary["rates"] if (r["variant"], r["scorer"], r["subset"]) == who), None
    )
    if row and row["n_scored"]:
        width = row["rate_hi"] - row["rate_lo"]
        found |= {"rate": row["rate_mean"], "rate_width": width, "prompts": row["n_scored"]}
    same = [r for r in summary["pairs"] if (r["a"], r["scorer"], r["subset"]) == who]
    effects = [r["design_effect"] for r in same if r["design_effect"] is not None]
    if effects:
        found["design_effect"] = max(effects)  # the least helpful clusters
    correlations = sorted(r["phi"] for r in same if r["phi"] is not None)
    if correlations:
        found["phi"] = correlations[0]  # the least helpful pairing
    return found


def _source(given: float | None, known: dict[str, Any], name: str) -> str:
    if given is not None:
        return "given"
    return "measured" if name in known else "assumed"


def _print(row: dict[str, Any]) -> None:
    shown = f"{100 * row['detect']:+g} points from {row['base_rate']:.1%}"
    print_table(
        f"Prompts to find {shown} ({row['level']:.0%} interval excludes 0)",
        ["how", "prompts>", "what it means"],
        [
            (
                "power",
                f"{row['n_power']:,}",
                f"{row['power_at_n_power']:.1%} of experiments find it, if the rates are as "
                "expected",
            ),
            (
                "assurance",
                _number(row["n_assurance"]) if row["base_rate_from"] == "measured" else "-",
                f"{row['power']:.0%} find it, averaged over what the measured rate leaves open",
            ),
        ],
    )
    echo(
        f"Base rate {row['base_rate']:.3f} ({row['base_rate_from']}), correlation over prompts "
        f"{row['phi']:.2f} ({row['phi_from']}): {row['discordant']:.1%} of the prompts tell the "
        "two apart. These are prompts of all subsets together; a subset that shall be judged alone "
        "needs as many."
    )
    if row["design_effect"] > 1:
        echo(
            f"Prompts have clusters, as {row['family']} has: design effect "
            f"{row['design_effect']:.2f}. So many prompts are needed in as many more clusters, of "
            "the same size; more prompts in the same clusters help less."
        )
    if row["prompts_now"]:
        least, change = row["detectable_now"], "fall" if row["detect"] < 0 else "rise"
        echo(
            f"The {row['prompts_now']} prompts that {row['family']} has find this difference in "
            f"{row['power_now']:.1%} of experiments. With a chance of {row['power']:.0%} they find "
            + (f"a {change} of {100 * least:.1f} points or more." if least else f"no {change}.")
        )


def _number(value: int | None) -> str:
    return "more than 10,000,000" if value is None else f"{value:,}"

"""`toxtrail compare`: the answer, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from toxtrail.cli import _stored_results
from toxtrail.cli._options import Number
from toxtrail.cli._output import Form, formats, print_json, print_table
from toxtrail.cli.compare_hdi import print_hdi
from toxtrail.cli.compare_published import print_published, with_published
from toxtrail.cli.compare_tables import (
    chosen_pairs,
    narrowed,
    print_rows,
    scorers_of,
    show,
    with_scorers,
)
from toxtrail.console import echo
from toxtrail.errors import DataError, ToxtrailError, problem_of
from toxtrail.experiment import Experiment


@click.command("compare", short_help="Show what fine-tuning changed, as tables.")
@click.argument("names", nargs=-1, metavar="[FAMILY]... | RUN_A RUN_B")
@click.option("--all", "everything", is_flag=True, help="Every family that MLflow has.")
@click.option(
    "--filter",
    "filter_string",
    metavar="FILTER",
    help="The runs that an MLflow filter matches, as in its UI (the newest of each name).",
)
@click.option(
    "--mlflow", "from_mlflow", is_flag=True, help="Read MLflow even where the files are here."
)
@click.option(
    "--allow-mismatch",
    is_flag=True,
    help="Of runs: compare them although conditions differ; the table says so.",
)
@click.option(
    "--scorer", metavar="NAME|every", help="Whose view is shown (default: the primary one's)."
)
@click.option(
    "--subset", metavar="NAME|every", help="One subset (`all`: all together), or every one."
)
@click.option(
    "--half-width",
    type=Number(0, 1, min_open=True),
    metavar="W",
    help="Report how many more prompts each difference needs for an interval of +-W.",
)
@click.option(
    "--best",
    is_flag=True,
    help="Add BEST, the unpaired test of the reference paper (some 10 s a pair).",
)
@click.option(
    "--hdi", is_flag=True, help="Add highest-density intervals, as BEST analyses print them."
)
@click.option(
    "--published",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Hold rates and verdicts against published ones (docs/published.md).",
)
@formats("json", "csv", "md", "latex")
@click.pass_obj
def compare(
    experiment: Experiment,
    names: tuple[str, ...],
    everything: bool,
    filter_string: str | None,
    from_mlflow: bool,
    allow_mismatch: bool,
    scorer: str | None,
    subset: str | None,
    half_width: float | None,
    best: bool,
    hdi: bool,
    published: Path | None,
    form: Form | None,
) -> None:
    """Show what fine-tuning changed: rates of every variant, differences paired by prompt, the
    largest rise first.

    A family is read from results/comparisons/ or, where that is not here, from its newest MLflow
    run; so with MLFLOW_TRACKING_URI this works on a machine that has no other file. Two MLflow
    runs, by id, name or content key, are compared from their own files: RUN_B minus RUN_A; with
    --filter each run is held against its parent and the first of its family. Runs measured under
    other conditions (prompts, template, decoding, precision, scorers, threshold) are refused.

    To stop once an interval is narrow enough (--half-width) is safe; to stop once it excludes 0
    makes false claims.

    \b
    Examples:
      toxtrail compare
      toxtrail compare --subset threat               which is worst there, and is it credible?
      toxtrail compare smollm2-135m --scorer every
      toxtrail compare 4fb4c821 1e94f589             two MLflow runs
      toxtrail compare --all --mlflow                every family that MLflow has
      toxtrail compare --filter "tags.\\`toxtrail.family\\` = 'smollm2-135m'"
      toxtrail compare --csv > differences.csv       also --md, --latex, --json
      toxtrail compare --half-width 0.02
      toxtrail compare --published published.yaml    do my rates agree with the paper's?
      toxtrail compare --json | jq '.[].pairs[] | select(.subset == "all")'
    """
    if [bool(names), everything, filter_string is not None].count(True) > 1:
        raise click.UsageError("Name families, two runs, --all or --filter: one of them.")
    if published and form == "csv":
        raise click.UsageError(
            "--published is not part of --csv, which has a row for each pair: take --json or --md."
        )
    found = _found(experiment, names, everything, filter_string, from_mlflow, allow_mismatch)
    if half_width is not None:
        found = [one._replace(summary=_with_half_width(one.summary, half_width)) for one in found]
    if best:
        found = [
            one._replace(summary=_with_best(experiment, one.summary, scorer, subset))
            for one in found
        ]
    if published:
        summaries = with_published(published, [one.summary for one in found], scorer)
        found = [one._replace(summary=s) for one, s in zip(found, summaries, strict=True)]
    _print(found, form, scorer, subset, hdi)


class Found(NamedTuple):
    """A comparison, and where it was read."""

    summary: dict[str, Any]
    source: str


def _print(
    found: Sequence[Found],
    form: Form | None,
    scorer: str | None,
    subset: str | None,
    hdi: bool,
) -> None:
    summaries = [one.summary for one in found]
    if form == "json":
        print_json([narrowed(summary, scorer, subset) for summary in summaries])
        return
    if form == "csv":
        print_rows(summaries, scorer, subset)
        return
    for summary, source in found:
        show(summary, source, scorer, subset, form or "text")
        pairs = chosen_pairs(summary, scorer, subset)
        _print_half_width(summary, pairs)
        if hdi:
            print_hdi(summary, pairs)
        _print_best(summary)
        print_published(summary, form or "text")


def _found(
    experiment: Experiment,
    names: tuple[str, ...],
    everything: bool,
    filter_string: str | None,
    from_mlflow: bool,
    allow_mismatch: bool,
) -> list[Found]:
    """Each comparison that was asked for."""
    if filter_string is not None:
        return _of_filter(experiment, filter_string, allow_mismatch)
    if everything or not (names or experiment.exists):
        names = tuple(_stored_results.stored_families(experiment))
    families = experiment.config.families if experiment.exists else {}
    if len(names) == 2 and not set(names) <= set(families) and not everything:
        return [_of_runs(experiment, names, allow_mismatch)]
    if names and not everything:
        return [Found(*_stored_results.family_summary(experiment, f, from_mlflow)) for f in names]
    return _finished(experiment, names or tuple(families), everything or from_mlflow)


def _finished(experiment: Experiment, families: Sequence[str], from_mlflow: bool) -> list[Found]:
    """Of families that nobody named, those that can be shown; the others are named, with why.

    Raises:
        ToxtrailError, OSError: none can be.
    """
    found: list[Found] = []
    problems: list[ToxtrailError | OSError] = []
    for family in families:
        try:
            found.append(Found(*_stored_results.family_summary(experiment, family, from_mlflow)))
        except (ToxtrailError, OSError) as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        echo(f"Left out: {problem_of(problem) or problem}", fg="yellow", err=True)
    return found


def _of_runs(experiment: Experiment, names: tuple[str, ...], allow_mismatch: bool) -> Found:
    """Two runs of the store, by their own files."""
    first, second = _stored_results.pair(experiment, names, from_mlflow=True)
    title = f"{second.label} against {first.label}"
    summary = _compared([first, second], title, allow_mismatch)
    return Found(summary, f"{first.source} and {second.source}")


def _of_filter(experiment: Experiment, filter_string: str, allow_mismatch: bool) -> list[Found]:
    """Variant runs family by family, and comparison runs as they are.

    Raises:
        DataError: nothing matches, or one variant alone.
    """
    runs = _stored_results.matching(experiment, filter_string)
    found = [
        Found(
            _stored_results.summary_of_run(experiment, _stored_results.usable(run)),
            f"MLflow run {run.name}",
        )
        for run in runs
        if run.tags["toxtrail.kind"] == "comparison"
    ]
    variants = [run for run in runs if run.tags["toxtrail.kind"] == "variant"]
    lonely = []
    for family, own in _stored_results.groups(variants).items():
        if len(own) < 2:
            lonely += own
            continue
        rows = [
            _stored_results.of_run(experiment, _stored_results.usable(run), run.name) for run in own
        ]
        title = f"{family} ({len(own)} runs by filter)"
        source = f"{len(own)} MLflow runs: {', '.join(run.run_id[:8] for run in own)}"
        found.append(Found(_compared(rows, title, allow_mismatch), source))
    if not found:
        names = ", ".join(f"{run.name} ({run.run_id[:8]})" for run in lonely)
        raise DataError(
            f"--filter: {filter_string!r} matches {names}, and no other run of the same family: a "
            "comparison takes two. Widen the filter, or name two runs: toxtrail compare RUN_A RUN_B"
        )
    for run in lonely:
        echo(f"Left out: {run.name} is the only run of its family here.", err=True)
    return found


def _compared(
    rows: Sequence[_stored_results.Measured], title: str, allow_mismatch: bool
) -> dict[str, Any]:
    from toxtrail.stages.compare import MeasuredRun, runs_comparison

    runs = [MeasuredRun(one.label, one.summary, one.scores, one.generations) for one in rows]
    return runs_comparison(runs, title, allow_mismatch)


def _with_half_width(summary: Mapping[str, Any], half_width: float) -> dict[str, Any]:
    """Each pair with how much it takes to know its difference to plus or minus `half_width`."""
    prior = float(summary["prior"] if "prior" in summary else _settings(summary)["prior"])
    rows = []
    for row in summary["pairs"]:
        known = row["diff_lo"] is not None
        width = row["diff_hi"] - row["diff_lo"] if known else None
        needed = _needed(row, width, 2 * half_width, prior) if width is not None else None
        rows.append({**row, "diff_width": width, "n_for_precision": needed})
    return {**summary, "precision": half_width, "pairs": rows}


def _settings(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = summary["manifest"]["params"]["posterior"]
    return found


def _needed(row: Mapping[str, Any], width: float, wanted: float, prior: float) -> int:
    """Prompts at which this difference's interval is as wide as wanted. It agrees with the width
    that is printed beside it, where subsets are weighted too."""
    from toxtrail.stats.paired_posterior import Table
    from toxtrail.stats.power import VerdictRule, prompts_by_spread, prompts_for_width

    n, effect = int(row["n"]), float(row["design_effect"])
    if row["k"] > 1:
        return prompts_by_spread(n, width, wanted)
    table = Table(*(float(row[name]) / effect for name in Table._fields))
    needed = math.ceil(prompts_for_width(table, VerdictRule(prior, row["level"]), wanted) * effect)
    return min(needed, n) if width <= wanted else max(needed, n + 1)


def _print_half_width(summary: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> None:
    half_width = summary.get("precision")
    if half_width is None:
        return
    rows = [
        (
            row["b"],
            f"{row['a']} ({row['relation']})",
            row["subset"],
            row["n"],
            f"{50 * row['diff_width']:.1f}" if row["diff_width"] is not None else "-",
            _more(row),
        )
        for row in pairs
    ]
    columns = ["variant", "against", "subset", "prompts>", "known to +-, points>", "enough?"]
    print_table(f"Enough for +-{100 * half_width:g} points?", *with_scorers(columns, rows, pairs))


def _more(row: Mapping[str, Any]) -> str:
    if row["n_for_precision"] is None:
        return "no pairs yet"
    missing = row["n_for_precision"] - row["n"]
    return "yes" if missing <= 0 else f"no: about {missing:,} prompts more"


def _with_best(
    experiment: Experiment, summary: Mapping[str, Any], scorer: str | None, subset: str | None
) -> dict[str, Any]:
    """A family's comparison with BEST on each chosen pair."""
    from toxtrail.analysis.best_test import best_rows
    from toxtrail.analysis.score_table import cells
    from toxtrail.execution.progress import progress
    from toxtrail.stats.best import WARNING

    family = summary["family"]
    if not experiment.exists or family not in experiment.config.families:
        raise click.UsageError("--best is of families of this experiment, not of runs.")
    variants = [one["variant"] for one in summary["variants"]]
    tables = {v: cells(experiment.store.read_scores(family, v)) for v in variants}
    config = experiment.config.posterior
    pairs, bars = chosen_pairs(summary, scorer, subset), progress()
    rows = [
        row
        for name in scorers_of(summary, scorer)
        for row in best_rows(tables, pairs, name, config, bars)
    ]
    return {**summary, "best": {"warning": WARNING, "pairs": rows}}


def _print_best(summary: Mapping[str, Any]) -> None:
    from toxtrail.reporting.result_text import percent

    if "best" not in summary:
        return
    rows = []
    for row in summary["best"]["pairs"]:
        known = row["best_diff"] is not None
        bounds = f"[{row['best_diff_lo']:+.4f}, {row['best_diff_hi']:+.4f}]" if known else "-"
        rows.append(
            (
                row["b"],
                f"{row['a']} ({row['relation']})",
                row["subset"],
                f"{row['best_diff']:+.4f}" if known else "-",
                bounds,
                row["best_verdict"],
                f"{percent(row['best_rate_a'])} v {percent(row['best_rate_b'])}",
                f"{percent(row['rate_a'])} v {percent(row['rate_b'])}",
                {True: "yes", False: "NO", None: "-"}[row["best_fits"]],
            )
        )
    columns = [
        "variant", "against", "subset", "location>", "interval>", "BEST says",
        "rates it expects>", "rates that are>", "fits?",
    ]  # fmt: skip
    print_table(
        "BEST: difference of locations of the scores, unpaired",
        *with_scorers(columns, rows, summary["best"]["pairs"]),
    )
    echo(summary["best"]["warning"], fg="yellow")

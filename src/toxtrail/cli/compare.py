"""`toxtrail compare`: the answer, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from toxtrail.cli.experiment import Experiment
from toxtrail.cli.hdi import print_hdi, with_hdi
from toxtrail.cli.output import json_option, print_json, print_table, printable


@click.command("compare", short_help="Show what fine-tuning changed, as tables.")
@click.argument("names", nargs=-1, metavar="[FAMILY]... | RUN_A RUN_B")
@click.option(
    "--allow-mismatch",
    is_flag=True,
    help="With two runs: compare them although conditions differ; the table says so.",
)
@click.option("--scorer", help="The scorer whose view is shown (default: the primary one).")
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="W",
    help="Enough already? Is each difference known to plus or minus W (0.01: 1 point)?",
)
@click.option(
    "--best",
    is_flag=True,
    help="Add BEST, the unpaired test of the reference paper (some 10 s a pair).",
)
@click.option(
    "--hdi", is_flag=True, help="Add highest-density intervals, as BEST analyses print them."
)
@json_option
@click.pass_obj
def compare(
    experiment: Experiment,
    names: tuple[str, ...],
    allow_mismatch: bool,
    scorer: str | None,
    precision: float | None,
    best: bool,
    hdi: bool,
    as_json: bool,
) -> None:
    """Show what fine-tuning changed: rates of every variant, differences paired by prompt.

    Families are read from results/comparisons/ (`toxtrail run` brings it up to date). Two MLflow
    runs, by id, name or content key, are compared from their own files: RUN_B minus RUN_A. Runs
    measured under other conditions (prompts, template, decoding, precision, scorers, threshold) are
    refused. Within a family, `allow_mismatch: true` in params.yaml marks the table, the report and
    the MLflow run.

    To stop once an interval is narrow enough (--precision) is safe; to stop once it excludes 0
    makes false claims.

    \b
    Examples:
      toxtrail compare
      toxtrail compare --precision 0.02
      toxtrail compare --best
      toxtrail compare smollm2-135m --scorer jigsaw-bilstm
      toxtrail compare 4fb4c821 1e94f589
      toxtrail compare --json | jq '.[].pairs[] | select(.subset == "all")'
    """
    summaries = [
        _enriched(experiment, summary, scorer or summary["primary"], precision, hdi, best)
        for summary in _summaries(experiment, names, allow_mismatch)
    ]
    if as_json:
        print_json(summaries)
        return
    for summary in summaries:
        own = scorer or summary["primary"]
        _print(experiment, summary, own)
        if "precision" in summary:
            _print_precision(summary, own, summary["precision"])
        if hdi:
            print_hdi(summary, own)
        if "best" in summary:
            _print_best(summary)


def _enriched(
    experiment: Experiment,
    summary: dict[str, Any],
    scorer: str,
    precision: float | None,
    hdi: bool,
    best: bool,
) -> dict[str, Any]:
    """With what was asked for."""
    if precision is not None:
        summary = _with_precision(summary, precision)
    if hdi:
        summary = with_hdi(experiment, summary)
    return _with_best(experiment, summary, scorer) if best else summary


def _summaries(
    experiment: Experiment, names: tuple[str, ...], allow_mismatch: bool
) -> list[dict[str, Any]]:
    store = experiment.store
    if len(names) == 2 and not set(names) <= set(experiment.config.families):
        return [_of_runs(experiment, names, allow_mismatch)]
    return [store.read_summary(store.comparison(name)) for name in experiment.families(names)]


def _print(experiment: Experiment, summary: Mapping[str, Any], scorer: str) -> None:
    from toxtrail.comparability import mismatch_text
    from toxtrail.errors import ConfigError, nearest
    from toxtrail.stages import wording

    known = sorted({row["scorer"] for row in summary["rates"]})
    if scorer not in known:
        raise ConfigError(f'--scorer: "{scorer}" scored nothing here.{nearest(scorer, known)}')
    if warning := mismatch_text(summary.get("mismatch", [])):
        click.secho(printable(warning), fg="red", bold=True)
    _print_toxicity(summary, scorer)
    _print_behaviour(summary)
    notes = [
        *wording.pooling_notes(summary, scorer),
        *wording.prior_notes(summary, scorer),
        *wording.judge_notes(summary, scorer),
        *wording.resolution_notes(summary, scorer),
    ]
    for line in [wording.estimand(summary), *notes]:
        click.echo(line)
    if summary["family"] in experiment.config.families:
        folder = experiment.store.comparison(summary["family"]).relative_to(experiment.root)
        names = ("rates", "differences", "posteriors", "thresholds")
        click.echo(f"Figures (.svg, .png) in {folder}: {', '.join(names)}")


def _print_toxicity(summary: Mapping[str, Any], scorer: str) -> None:
    """Rates and differences; a table without rows is not shown."""
    from toxtrail.stages import wording

    rates = [row for row in summary["rates"] if row["scorer"] == scorer]
    pairs = [row for row in summary["pairs"] if row["scorer"] == scorer]
    corrected = pairs if scorer in summary.get("judges", []) else []
    tables = (
        (
            f"{summary['family']}: toxicity rate ({wording.edition(summary, scorer)})",
            wording.RATE_COLUMNS,
            [wording.rate_cells(row) for row in rates],
        ),
        (
            "Several continuations of each prompt",
            wording.SAMPLE_COLUMNS,
            wording.sample_cells(summary, scorer),
        ),
        (
            "Differences, paired by prompt (percentage points)",
            wording.PAIR_COLUMNS,
            [wording.pair_cells(row) for row in pairs],
        ),
        (
            "The same differences by every scorer (percentage points)",
            wording.scorer_columns(summary),
            wording.scorer_cells(summary),
        ),
        (
            "Differences corrected for the scorer's errors (percentage points)",
            wording.CORRECTED_COLUMNS,
            [wording.corrected_cells(row) for row in corrected],
        ),
    )
    for title, columns, rows in tables:
        if rows:
            print_table(title, columns, rows)


def _print_behaviour(summary: Mapping[str, Any]) -> None:
    """Less toxic, or just less said?"""
    from toxtrail.stages import wording

    rows = summary.get("behaviour", [])
    if not rows:
        return
    cells = [wording.behaviour_cells(row) for row in rows]
    print_table("What was said at all", wording.BEHAVIOUR_COLUMNS, cells)
    pairs = [row for row in summary["behaviour_pairs"] if row["subset"] == "all"]
    if pairs:
        print_table(
            "Differences in what was said (percentage points; *: the interval excludes 0)",
            wording.BEHAVIOUR_PAIR_COLUMNS,
            [wording.behaviour_pair_cells(row) for row in pairs],
        )


def _with_precision(summary: Mapping[str, Any], wanted: float) -> dict[str, Any]:
    """Each pair with how much it takes to know its difference to plus or minus `wanted`."""
    from toxtrail.stats.planning import prompts_for_width

    rows = []
    for row in summary["pairs"]:
        known = row["diff_lo"] is not None
        width = row["diff_hi"] - row["diff_lo"] if known else None
        needed = prompts_for_width(row["n"], width, 2 * wanted) if width is not None else None
        rows.append({**row, "diff_width": width, "n_for_precision": needed})
    return {**summary, "precision": wanted, "pairs": rows}


def _print_precision(summary: Mapping[str, Any], scorer: str, wanted: float) -> None:
    rows = [
        (
            row["b"],
            f"{row['a']} ({row['relation']})",
            row["subset"],
            row["n"],
            f"{50 * row['diff_width']:.1f}" if row["diff_width"] is not None else "-",
            _more(row),
        )
        for row in summary["pairs"]
        if row["scorer"] == scorer
    ]
    columns = ["variant", "against", "subset", "prompts>", "known to +-, points>", "enough?"]
    print_table(f"Enough for +-{100 * wanted:g} points?", columns, rows)


def _more(row: Mapping[str, Any]) -> str:
    if row["n_for_precision"] is None:
        return "no pairs yet"
    missing = row["n_for_precision"] - row["n"]
    return "yes" if missing <= 0 else f"no: about {missing:,} prompts more"


def _with_best(experiment: Experiment, summary: Mapping[str, Any], scorer: str) -> dict[str, Any]:
    """A family's comparison with BEST on each pair of one scorer."""
    from toxtrail.cli.progress import progress
    from toxtrail.stages.legacy_best import best_rows
    from toxtrail.stages.tables import cells
    from toxtrail.stats.best import WARNING

    family = summary["family"]
    if family not in experiment.config.families:
        raise click.UsageError("--best is of families, not of two runs.")
    variants = [one["variant"] for one in summary["variants"]]
    tables = {v: cells(experiment.store.read_scores(family, v)) for v in variants}
    config = experiment.config.posterior
    rows = best_rows(tables, summary["pairs"], scorer, config, progress())
    return {**summary, "best": {"warning": WARNING, "pairs": rows}}


def _print_best(summary: Mapping[str, Any]) -> None:
    from toxtrail.stages.wording import percent

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
    print_table("BEST: difference of locations of the scores, unpaired", columns, rows)
    click.secho(summary["best"]["warning"], fg="yellow")


def _of_runs(
    experiment: Experiment, names: tuple[str, ...], allow_mismatch: bool
) -> dict[str, Any]:
    """Two runs of the store, by their own files."""
    from toxtrail.artifacts import read_generations, read_json, read_scores
    from toxtrail.cli.stage import tracker_of
    from toxtrail.errors import ConfigError, nearest
    from toxtrail.stages.compare import two_runs

    tracker = tracker_of(experiment)
    summaries, scores, texts = [], {}, {}
    for name in names:
        run = tracker.find(name)
        if run is None or run.tags.get("toxtrail.kind") != "variant":
            known = [*experiment.config.families, *experiment.config.variants]
            raise ConfigError(
                f'"{name}" is neither a family nor an MLflow run of a variant.'
                f"{nearest(name, known)} `toxtrail runs` lists the runs."
            )
        label = f"{run.name} {run.run_id[:8]}"
        summary = read_json(tracker.download(run.run_id, "posterior/summary.json"))
        summaries.append({**summary, "variant": label})
        scores[label] = read_scores(tracker.download(run.run_id, "scores.parquet"))
        texts[label] = read_generations(tracker.download(run.run_id, "generations.parquet"))
    first, second = summaries
    return two_runs(first, second, scores, texts, allow_mismatch)

"""`toxtrail compare`: rates and paired differences as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail import results
from toxtrail.backends.mlflow.find_run import NO_PROJECT
from toxtrail.cli._compare_output import (
    SECTIONS,
    ComparisonOptions,
    LoadedComparison,
    print_comparisons,
)
from toxtrail.cli._current_comparison import current_comparison, current_comparisons
from toxtrail.cli._options import Number, project_options
from toxtrail.cli._output import OutputFormat, format_options
from toxtrail.console import echo
from toxtrail.errors import ConfigError, DataError, problem_of
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import KIND_TAG

if TYPE_CHECKING:
    from toxtrail.backends.protocols import TrackedRun
    from toxtrail.records.results import ComparisonSummary

PUBLISHED_PRIOR = 0.5
"""Jeffreys' prior, for the published count."""


@click.command("compare", short_help="Compare variants: rates and paired differences.")
@click.argument("names", nargs=-1, metavar="[FAMILY]... | RUN_A RUN_B")
@click.option("--all", "everything", is_flag=True, help="Compare every family found in MLflow.")
@click.option(
    "--filter",
    "filter_string",
    metavar="FILTER",
    help="Compare the runs that an MLflow filter matches (the newest of each name).",
)
@click.option(
    "--mlflow", "from_mlflow", is_flag=True, help="Read from MLflow even if local files exist."
)
@click.option(
    "--allow-mismatch",
    is_flag=True,
    help="For runs: compare despite different conditions (the output is marked).",
)
@click.option(
    "--scorer", metavar="NAME|every", help="Scorer to report (default: the primary scorer)."
)
@click.option(
    "--subset",
    metavar="NAME|every",
    help="Subset to report; `all` is their weighted total, `every` lists each.",
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
    help="Add BEST, the reference paper's unpaired test (about 10 s per pair).",
)
@click.option(
    "--hdi", is_flag=True, help="Add highest-density intervals, as BEST analyses print them."
)
@click.option(
    "--published",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compare with published rates and verdicts (docs/published.md).",
)
@click.option(
    "--tables",
    metavar="NAMES",
    help=f"Print these tables, separated by commas: {', '.join(SECTIONS)}.",
)
@click.option("--all-tables", is_flag=True, help="Print all tables.")
@click.option("--explain", is_flag=True, help="Also print all notes, and what the columns mean.")
@project_options
@format_options("json", "csv", "md", "latex")
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
    tables: str | None,
    all_tables: bool,
    explain: bool,
    form: OutputFormat | None,
) -> None:
    """Compare variants: the rate of each, and differences paired by prompt, the largest increase
    first.

    A family is read from results/comparisons/ or, if that is missing, from its newest MLflow run;
    so with MLFLOW_TRACKING_URI this works on a machine without the files. Two MLflow runs, by id,
    name or content key, are compared from their own files: RUN_B minus RUN_A; with --filter each
    run is compared with its parent and its family's reference. Runs measured under different
    conditions (prompts, template, decoding, precision, scorers, threshold) are refused.

    If stages of a family are missing or outdated, its finished variants are compared, and the
    others are listed with what they lack.

    It is safe to stop adding prompts once an interval is narrow enough (--half-width); to stop once
    it excludes 0 inflates false positives.

    Prints the differences and at most three notes. --tables and --all-tables print the other
    tables, --explain all notes and the meaning of the columns.

    \b
    Examples:
      toxtrail compare
      toxtrail compare --tables rates,behaviour
      toxtrail compare --all-tables
      toxtrail compare --explain                     all notes, and what the columns mean
      toxtrail compare --subset threat               one subset
      toxtrail compare smollm2-135m --scorer every
      toxtrail compare 4fb4c821 1e94f589             two MLflow runs
      toxtrail compare --all --mlflow                every family in MLflow
      toxtrail compare --project team-3f2a9c01       another project on the server
      toxtrail compare --filter "tags.family = 'smollm2-135m'"
      toxtrail compare --csv > differences.csv       also --md, --latex, --json
      toxtrail compare --half-width 0.02
      toxtrail compare --published published.yaml    with a paper's rates
      toxtrail compare --json | jq '.[].pairs[] | select(.subset == "all")'
    """
    if [bool(names), everything, filter_string is not None].count(True) > 1:
        raise click.UsageError("Give families, two runs, --all or --filter (exactly one).")
    sections = sections_to_print(tables, all_tables, form)
    if published and form == "csv":
        raise click.UsageError("--published cannot be combined with --csv. Use --json or --md.")
    comparisons = _load_comparisons(
        experiment, names, everything, filter_string, from_mlflow, allow_mismatch
    )
    if half_width is not None:
        comparisons = [_with_half_width(item, half_width) for item in comparisons]
    selection = ComparisonOptions(scorer, subset)
    if best:
        comparisons = [_with_best(experiment, item, selection) for item in comparisons]
    if published:
        comparisons = _with_published(published, comparisons, selection)
    print_comparisons(comparisons, selection, form or "text", sections, hdi, explain)


def sections_to_print(
    tables: str | None, all_tables: bool, form: OutputFormat | None
) -> Sequence[str] | None:
    """Return the sections to print; None: the short form.

    Raises:
        UsageError: an unknown section, both options, or one of them with another output format.
    """
    if tables is None and not all_tables:
        return None
    if (tables is not None and all_tables) or form not in (None, "text", "md"):
        raise click.UsageError(
            "--tables and --all-tables exclude each other, --json, --csv and --latex."
        )
    if all_tables:
        return SECTIONS
    names = [name.strip() for name in str(tables).split(",")]
    for name in names:
        if name not in SECTIONS:
            raise click.UsageError(
                f'--tables: unknown name "{name}". Available: {", ".join(SECTIONS)}.'
            )
    return names


def _load_comparisons(
    experiment: Experiment,
    names: tuple[str, ...],
    everything: bool,
    filter_string: str | None,
    from_mlflow: bool,
    allow_mismatch: bool,
) -> list[LoadedComparison]:
    """Load the requested comparisons."""
    if filter_string is not None:
        return _of_filter(experiment, filter_string, allow_mismatch)
    is_own = experiment.reads_own_results
    if everything or not (names or is_own):
        return _finished(experiment, results.tracked_families(experiment), from_mlflow=True)
    families = experiment.config.families if is_own else {}
    if len(names) == 2 and not set(names) <= set(families):
        return [_of_runs(experiment, names, allow_mismatch)]
    if names:
        return [
            current_comparison(experiment, name)
            if name in families and not from_mlflow
            else LoadedComparison(*results.load_comparison(experiment, name, from_mlflow))
            for name in names
        ]
    experiment.require_variants()
    if not from_mlflow:
        return current_comparisons(experiment, list(families))
    own_families = [results.TrackedFamily(f, experiment.config.tracking.project) for f in families]
    return _finished(experiment, own_families, from_mlflow)


def _finished(
    experiment: Experiment, families: Sequence[results.TrackedFamily], from_mlflow: bool
) -> list[LoadedComparison]:
    """Load the families that can be loaded; print the reason for each of the others.

    Raises:
        ToxtrailError, OSError: no family can be loaded.
    """
    loaded = results.load_comparisons(experiment, families, from_mlflow)
    for problem in loaded.problems:
        echo(f"Skipped: {problem_of(problem) or problem}", fg="yellow", err=True)
    return [LoadedComparison(*comparison) for comparison in loaded.comparisons]


def _of_runs(
    experiment: Experiment, names: tuple[str, ...], allow_mismatch: bool
) -> LoadedComparison:
    """Compare two runs of the store, by their own files."""
    first, second = results.load_pair(experiment, names, from_mlflow=True)
    title = f"{second.label} against {first.label}"
    summary = _compared([first, second], title, allow_mismatch)
    project = first.project if first.project == second.project else None
    return LoadedComparison(summary, f"{first.source} and {second.source}", project)


def _of_filter(
    experiment: Experiment, filter_string: str, allow_mismatch: bool
) -> list[LoadedComparison]:
    """Compare variant runs family by family; take comparison runs as they are.

    Raises:
        DataError: nothing matches, or one variant alone.
    """
    runs = results.find_runs(experiment, filter_string)
    comparisons, lonely = [], []
    for project, project_runs in results.runs_by_project(runs).items():
        for run in project_runs:
            if run.tags[KIND_TAG] == "comparison":
                summary = results.read_run_comparison(experiment, results.require_sealed(run))
                comparisons.append(LoadedComparison(summary, f"MLflow run {run.name}", project))
        variants = [run for run in project_runs if run.tags[KIND_TAG] == "variant"]
        for family, family_runs in results.runs_by_family(variants).items():
            if len(family_runs) < 2:
                lonely += family_runs
            else:
                comparisons.append(_of_family_runs(experiment, family, family_runs, allow_mismatch))
    if not comparisons:
        names = ", ".join(f"{run.name} ({run.run_id[:8]})" for run in lonely)
        raise DataError(
            f"--filter: {filter_string!r} matches only {names}; a comparison needs two runs of "
            "a family. Widen the filter, or give two runs: toxtrail compare RUN_A RUN_B"
        )
    for run in lonely:
        echo(f"Skipped {run.name}: no other run of its family.", err=True)
    return comparisons


def _of_family_runs(
    experiment: Experiment, family: str, runs: Sequence[TrackedRun], allow_mismatch: bool
) -> LoadedComparison:
    """Compare runs of one family and project, by their own files."""
    rows = [
        results.results_from_run(experiment, results.require_sealed(run), run.name) for run in runs
    ]
    title = f"{family} ({len(runs)} runs by filter)"
    source = f"{len(runs)} MLflow runs: {', '.join(run.run_id[:8] for run in runs)}"
    project = rows[0].project
    if project != experiment.project:
        source += f" of the project {project or NO_PROJECT}"
    return LoadedComparison(_compared(rows, title, allow_mismatch), source, project)


def _compared(
    rows: Sequence[results.VariantResults], title: str, allow_mismatch: bool
) -> ComparisonSummary:
    from toxtrail.analysis.comparison import MeasuredRun, compare_runs

    runs = [
        MeasuredRun(result.label, result.summary, result.scores, result.generations)
        for result in rows
    ]
    return compare_runs(runs, title, allow_mismatch)


def _with_half_width(item: LoadedComparison, half_width: float) -> LoadedComparison:
    """Add to each pair the prompts needed for an interval of plus or minus `half_width`."""
    from toxtrail.analysis.half_width import half_width_rows

    summary = item.summary
    prior = summary.prior
    if prior is None:
        prior = float((summary.manifest or {})["params"]["posterior"]["prior"])
    rows = half_width_rows(summary.pairs, half_width, prior)
    return item._replace(half_width=half_width, half_widths=rows)


def _with_best(
    experiment: Experiment, item: LoadedComparison, selection: ComparisonOptions
) -> LoadedComparison:
    """Add BEST of each selected pair to a family's comparison."""
    from toxtrail.analysis.best_test import best_rows
    from toxtrail.analysis.score_table import build_score_table
    from toxtrail.execution.progress import progress

    summary = item.summary
    family = summary.family
    if not experiment.exists or family not in experiment.config.families:
        raise click.UsageError("--best needs families of this experiment, not runs.")
    variants = [row.variant for row in summary.variants]
    tables = {v: build_score_table(experiment.store.read_scores(family, v)) for v in variants}
    config = experiment.config.posterior
    pairs, bars = selection.pairs(summary), progress()
    rows = [
        row
        for name in selection.scorers(summary)
        for row in best_rows(tables, pairs, name, config, bars)
    ]
    return item._replace(best=rows)


def _selected_subsets(compared: Mapping[str, Any], selection: ComparisonOptions) -> dict[str, Any]:
    rows = {
        name: [row for row in compared[name] if selection.has_subset(row["subset"])]
        for name in ("rates", "pairs")
    }
    return {**compared, **rows}


def _with_published(
    path: Path, comparisons: Sequence[LoadedComparison], selection: ComparisonOptions
) -> list[LoadedComparison]:
    """Add to each comparison the published numbers of its variants.

    Raises:
        ConfigError: the file is invalid, or contains none of these variants.
    """
    from toxtrail.published.claims import compare_with_run, load_published, published_variants
    from toxtrail.records.columns import to_json

    loaded = load_published(path)
    results = [
        item._replace(
            published=[
                _selected_subsets(
                    compare_with_run(loaded, to_json(item.summary), name, PUBLISHED_PRIOR),
                    selection,
                )
                for name in selection.scorers(item.summary)
            ]
        )
        for item in comparisons
    ]
    if not any(
        compared["rates"] or compared["pairs"]
        for item in results
        for compared in item.published or ()
    ):
        measured = sorted({row.variant for item in comparisons for row in item.summary.rates})
        raise ConfigError(
            f"{path.name} contains none of the measured variants and subsets. It has "
            f"{', '.join(published_variants(loaded)) or 'none'}; measured are {', '.join(measured)}"
            ". Map published names to variants of params.yaml in its section `keys`."
        )
    return results

"""The comparison of a family of this experiment as far as its variants are finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail import results
from toxtrail.cli._compare_output import LoadedComparison
from toxtrail.console import echo
from toxtrail.errors import DataError, ToxtrailError, problem_of
from toxtrail.experiment import Experiment
from toxtrail.regular_files import is_file

if TYPE_CHECKING:
    from toxtrail.auditing.status.variant_progress import VariantProgress


def current_comparisons(experiment: Experiment, families: Sequence[str]) -> list[LoadedComparison]:
    """Load the families that can be loaded; print the reason for each of the others.

    Raises:
        ToxtrailError, OSError: no family can be loaded.
    """
    comparisons: list[LoadedComparison] = []
    problems: list[ToxtrailError | OSError] = []
    for family in families:
        try:
            comparisons.append(current_comparison(experiment, family))
        except (ToxtrailError, OSError) as error:
            problems.append(error)
    if problems and not comparisons:
        raise problems[0]
    for problem in problems:
        echo(f"Skipped: {problem_of(problem) or problem}", fg="yellow", err=True)
    return comparisons


def current_comparison(experiment: Experiment, family: str) -> LoadedComparison:
    """Return the stored comparison if it is up to date; else a comparison, made now, of the
    variants with results of the present params.yaml, if two have them (or one, and nothing is
    stored); else the stored one, with a warning on standard error.

    Raises:
        DataError: no variant is finished, and nothing is stored; or a result cannot be read.
    """
    from toxtrail.auditing.status.variant_progress import family_progress, result_changes

    project = experiment.config.tracking.project
    path = experiment.store.comparison_dir(family) / "summary.json"
    is_stored = is_file(path)
    if is_stored and not result_changes(experiment, path):
        return LoadedComparison(*results.load_comparison(experiment, family, False, project))
    progress = family_progress(experiment, family)
    finished = [entry.variant for entry in progress if entry.state == "finished"]
    unfinished = [entry for entry in progress if entry.state != "finished"]
    if len(finished) > 1 or (finished and not is_stored):
        return _compare_now(experiment, family, finished)._replace(unfinished=unfinished)
    try:
        stored = results.load_comparison(experiment, family, False, project)
    except DataError as error:
        if is_stored:
            raise
        raise _not_compared(family, unfinished) from error
    return LoadedComparison(*stored)._replace(unfinished=unfinished)


def _compare_now(experiment: Experiment, family: str, variants: Sequence[str]) -> LoadedComparison:
    """Compare these variants by their own files, without pooled estimates."""
    from toxtrail.analysis.comparison import MeasuredRun, compare_runs

    config = experiment.config.families[family]
    reference_first = sorted(variants, key=lambda variant: variant != config.reference)
    measured = [
        results.load_variant(experiment, variant, from_mlflow=False) for variant in reference_first
    ]
    runs = [
        MeasuredRun(result.label, result.summary, result.scores, result.generations)
        for result in measured
    ]
    summary = compare_runs(runs, family, bool(config.allow_mismatch))
    source = f"results/posteriors/{family}, compared now without pooling"
    return LoadedComparison(summary, source, experiment.config.tracking.project)


def _not_compared(family: str, unfinished: Sequence[VariantProgress]) -> DataError:
    from toxtrail.reporting.notes import unfinished_note

    reasons = {entry.variant: entry.reason for entry in unfinished}
    return DataError(f"{family}: no variant is finished. {unfinished_note(family, reasons, {})}")

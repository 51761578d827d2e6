"""`toxtrail runs`: list the MLflow runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from toxtrail.cli._options import project_options, refuse_several
from toxtrail.cli._output import OutputFormat, format_options, print_csv, print_json, print_table
from toxtrail.console import echo
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import FAMILY_TAG, KIND_TAG
from toxtrail.reporting.table import Table, text_columns

if TYPE_CHECKING:
    from toxtrail.backends.protocols import TrackedRun
    from toxtrail.cli._runs_checks import CheckedRun


@click.command("runs", short_help="List the MLflow runs, newest first.")
@click.option(
    "--filter", "filter_string", default="", help="List the runs that an MLflow filter matches."
)
@click.option("--family", help="List only runs of one family.")
@click.option(
    "--kind", type=click.Choice(["variant", "comparison"]), help="List only one kind of runs."
)
@click.option(
    "--latest", "only_latest", is_flag=True, help="List only the newest run of each name."
)
@click.option("--resources", is_flag=True, help="Show time, tokens and memory per run.")
@click.option("--tree", is_flag=True, help="Show the lineage: each run below its parent's.")
@click.option(
    "--for-lock",
    "revision",
    is_flag=False,
    flag_value="",
    metavar="[REV]",
    help="List only the runs of the dvc.lock of a commit (default: of the work tree).",
)
@click.option(
    "--orphans",
    is_flag=True,
    help="List runs missing from every dvc.lock, and lock entries without a run.",
)
@click.option(
    "--no-check",
    is_flag=True,
    help="List MLflow's own values, not checked against the runs' files.",
)
@project_options
@format_options("json", "csv", "md")
@click.pass_obj
def runs(
    experiment: Experiment,
    filter_string: str,
    family: str | None,
    kind: str | None,
    only_latest: bool,
    resources: bool,
    tree: bool,
    revision: str | None,
    orphans: bool,
    no_check: bool,
    form: OutputFormat | None,
) -> None:
    """List the MLflow runs of this project, newest first: what each measured, whether it is
    complete, its resources.

    With MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME this reads a team's server from anywhere:
    outside of an experiment's folder, the runs of all projects.

    Anyone with write access to a store can change what MLflow shows of a run. So each run's name,
    tags, params and metrics are compared with its sealed file, whose values are listed; changes are
    reported. --filter is evaluated by MLflow, on MLflow's own values.

    \b
    Examples:
      toxtrail runs
      toxtrail runs --latest --kind variant --resources
      toxtrail runs --tree
      toxtrail runs --filter "tags.role = 'benign'"
      toxtrail runs --filter "metrics.\\`jigsaw-bilstm/all/rate_pct\\` > 20"
      toxtrail runs --for-lock v1.0
      toxtrail runs --orphans
      toxtrail runs --all-projects
      toxtrail runs --json
    """
    from toxtrail import results
    from toxtrail.cli import _runs_table
    from toxtrail.cli._runs_checks import checked, unchecked, with_verdicts
    from toxtrail.execution.factories import make_tracker

    refuse_several({"--tree": tree, "--orphans": orphans, f"--{form}": form and form != "json"})
    refuse_several({"--tree": tree, f"--{form}": form})
    if orphans and experiment.exists and not experiment.reads_own_results:
        raise click.UsageError("--orphans lists runs of this experiment's project only.")
    everything = make_tracker(experiment).runs(filter_string)
    if orphans:
        _print_orphans(experiment, everything, form == "json")
        return
    selected = [r for r in everything if family in (None, r.tags.get(FAMILY_TAG))]
    selected = [run for run in selected if kind in (None, run.tags.get(KIND_TAG))]
    if revision is not None:
        from toxtrail.auditing.lineage.downstream import lock_at, runs_of_lock

        selected = runs_of_lock(lock_at(experiment.root, revision or None)[1], selected)
    if only_latest or tree:
        selected = results.newest_per_name(selected)
    rows = (
        unchecked(selected, "because of --no-check") if no_check else checked(experiment, selected)
    )
    if not selected and form not in ("json", "csv"):
        echo(_why_none(experiment, filter_string, family, kind, revision))
    elif tree:
        rows = with_verdicts(experiment, rows)
        _runs_table.print_tree(rows, several_projects=experiment.project is None)
    else:
        _print_list(rows, resources, form or "text", several_projects=experiment.project is None)
    _runs_table.warn(rows)


def _print_list(
    rows: Sequence[CheckedRun], resources: bool, form: OutputFormat, several_projects: bool
) -> None:
    from toxtrail.cli import _runs_table

    if form == "json":
        print_json(_runs_table.as_json(rows))
    elif form == "csv":
        print_csv(_runs_table.run_rows(rows))
    else:
        _runs_table.show(rows, resources, form, several_projects)


def _why_none(experiment: Experiment, *wishes: str | None) -> str:
    from toxtrail.execution.factories import make_tracker
    from toxtrail.results import why_no_runs

    if any(wish is not None and wish != "" for wish in wishes):
        number = len(make_tracker(experiment).runs(""))
        if number:
            return f"None of {number} runs matches. `toxtrail runs` lists all."
    why = why_no_runs(experiment)
    if not experiment.reads_own_results:
        return why
    from toxtrail.cli._run_publishing import publication_of

    publication = publication_of(experiment)
    if publication.missing:
        stores = f"The present MLflow store, {publication.store}, has no runs of this project"
        why = f"{stores}, and {len(publication.missing)} were published before."
        return " ".join([why, *(publication.notes or ["`toxtrail run` publishes them here."])])
    return why


def _print_orphans(
    experiment: Experiment, tracked_runs: Sequence[TrackedRun], as_json: bool
) -> None:
    from toxtrail.auditing.lineage.downstream import orphans
    from toxtrail.auditing.lineage.lock_history import lock_history

    lost = orphans(lock_history(experiment.root), tracked_runs)
    if as_json:
        print_json([orphan._asdict() for orphan in lost])
    elif lost:
        print_table(Table(None, text_columns("what", "name", "why"), lost))
    else:
        echo("No orphans: every run has a lock entry, every entry a run.")

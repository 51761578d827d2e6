"""`toxtrail variants` and `toxtrail runs`: what is measured, and what MLflow holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli.experiment import Experiment
from toxtrail.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from toxtrail.backends.base import TrackedRun


@click.command("variants", short_help="List the variants, and how far each is.")
@json_option
@click.pass_obj
def variants(experiment: Experiment, as_json: bool) -> None:
    """List the variants of params.yaml: family, role, parent, weights, and how far each is.

    \b
    Examples:
      toxtrail variants
      toxtrail variants --json
    """
    rows = [_variant(experiment, key) for key in experiment.config.variants]
    if as_json:
        print_json(rows)
        return
    columns = ["variant", "family", "role", "parent", "weights", "made"]
    print_table(None, columns, [[row[c] or "-" for c in columns] for row in rows])


@click.command("runs", short_help="List the MLflow runs, newest first.")
@click.option("--filter", "filter_string", default="", help="An MLflow filter, as in its UI.")
@click.option(
    "--for-lock",
    "revision",
    is_flag=False,
    flag_value="",
    metavar="[REV]",
    help="Only the runs of the dvc.lock of a commit (default: of the work tree).",
)
@click.option("--orphans", is_flag=True, help="Runs that no lock records, entries without a run.")
@json_option
@click.pass_obj
def runs(
    experiment: Experiment, filter_string: str, revision: str | None, orphans: bool, as_json: bool
) -> None:
    """List the MLflow runs of this experiment, newest first.

    \b
    Examples:
      toxtrail runs
      toxtrail runs --filter "tags.\\`toxtrail.kind\\` = 'variant'"
      toxtrail runs --for-lock v1.0
      toxtrail runs --orphans
      toxtrail runs --json
    """
    from toxtrail.cli.stage import tracker_of

    found = tracker_of(experiment).runs(filter_string)
    if orphans:
        _print_orphans(experiment, found, as_json)
        return
    if revision is not None:
        from toxtrail.audit.results_of import lock_at, runs_of

        found = runs_of(lock_at(experiment.root, revision or None)[1], found)
    if as_json:
        print_json([run._asdict() for run in found])
        return
    print_table(
        None,
        ["run id", "name", "kind", "family", "content key", "sealed", "started"],
        [_run_cells(run) for run in found],
    )


def _print_orphans(experiment: Experiment, found: Sequence[TrackedRun], as_json: bool) -> None:
    from toxtrail.audit.history import past_locks
    from toxtrail.audit.results_of import orphans

    lost = orphans(past_locks(experiment.root), found)
    if as_json:
        print_json([one._asdict() for one in lost])
    elif lost:
        print_table(None, ["what", "name", "why"], [list(one) for one in lost])
    else:
        click.echo("No orphans: every run has a lock entry, every entry a run.")


def _variant(experiment: Experiment, key: str) -> dict[str, Any]:
    config, store = experiment.config, experiment.store
    who = config.variants[key]
    own = config.models.get(key)
    weights = own.uri if own else f"LoRA on {config.finetunes[key].parent}"
    made = {
        "model": store.model(key) / "model.json",
        "generations": store.generations(who.family, key),
        "scores": store.scores(who.family, key),
        "posterior": store.posterior(who.family, key) / "summary.json",
        "run": store.receipt("variants", key),
    }
    done = [name for name, path in made.items() if path.is_file()]
    return {
        "variant": key,
        "family": who.family,
        "role": who.role,
        "parent": who.parent,
        "weights": weights,
        "made": ", ".join(done),
    }


def _run_cells(run: TrackedRun) -> list[str]:
    started = datetime.fromtimestamp(run.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [
        run.run_id[:8],
        run.name,
        run.tags.get("toxtrail.kind", "-"),
        run.tags.get("toxtrail.family", "-"),
        run.tags.get("toxtrail.content_key", "-")[:8],
        "yes" if "toxtrail.seal" in run.tags else "NO",
        started,
    ]

"""`toxtrail status`: list outdated stages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import echo_labelled, json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text
from toxtrail.reporting.table import Table, text_columns

if TYPE_CHECKING:
    from toxtrail.auditing.status.outdated_stages import Staleness


@click.command("status", short_help="Show which stages are outdated, and why.")
@json_option
@click.pass_obj
def status(experiment: Experiment, as_json: bool) -> None:
    """Show which stages are outdated, and why; also while `toxtrail run` is running.

    This is the output of `dvc status`, and whether the present MLflow store has the runs. Nothing
    is locked or written.

    \b
    Examples:
      toxtrail status
      toxtrail status --json
    """
    from toxtrail.auditing.status.not_pulled import not_pulled, pull_advice
    from toxtrail.auditing.verify.committed_lock import other_bytes, other_bytes_message
    from toxtrail.backends import git
    from toxtrail.cli._run_publishing import publication_of
    from toxtrail.execution.execution_records import RECORDS
    from toxtrail.execution.run_lock import running
    from toxtrail.preflight.pinned_files import pin_problems
    from toxtrail.scaffold import code_differs_message, stages_with_other_code

    root = experiment.root
    damage = _damage(root)
    stale = _staleness(experiment) if damage is None else None
    published = publication_of(experiment)
    if stale:
        why = [f"its run is not in the MLflow store {published.store}"]
        stale.stages.update({s: why for s in published.missing if s not in stale.stages})
    files, code, runs = (
        pin_problems(experiment),
        list(stages_with_other_code(root)),
        running(root),
    )
    uncommitted, changed = git.uncommitted(root, RECORDS), other_bytes(root)
    if as_json:
        print_json(
            {
                "stages": stale and stale.stages,
                "not_known": stale.others if stale else [],
                "running": runs and {"run": runs, "stages": _running_stages(experiment)},
                "damage": damage,
                "mlflow": {"store": published.store, "notes": published.notes},
                "files": files,
                "code": code,
                "uncommitted_records": uncommitted,
                "not_pulled": not_pulled(root),
                "other_bytes": changed and changed._asdict(),
            }
        )
        return
    if runs:
        stages = ", ".join(_running_stages(experiment)) or "between two stages"
        echo(f"`toxtrail run` is running ({runs}): {stages}.")
    if code:
        echo(code_differs_message(code))
    _print_problems([damage, *files, *published.notes, pull_advice(root)])
    if stale and (stale.stages or not code):
        _print_stale(stale)
    if changed:
        echo(other_bytes_message(changed))
    if uncommitted:
        echo(
            f"{len(uncommitted)} execution records are not committed. Commit them with dvc.lock, "
            f"so that clones have times and costs: git add {RECORDS} dvc.lock"
        )


def _print_problems(problems: Iterable[str | None]) -> None:
    for problem in filter(None, problems):
        echo_labelled("problem:", problem, "red")


def _print_stale(stale: Staleness) -> None:
    if stale.others:
        echo(f"Not checked: {', '.join(stale.others)}. `dvc status NAME` checks them.")
    if not stale.stages:
        echo("Every stage is up to date.")
        return
    title = "Stages that `toxtrail run` will run (and those after them)"
    rows = [[stage, _why(entries)] for stage, entries in stale.stages.items()]
    print_table(Table(title, text_columns("stage", "why"), rows))


def _staleness(experiment: Experiment) -> Staleness:
    from toxtrail.auditing.status.outdated_stages import staleness

    experiment.require_variants()
    return staleness(experiment.root)


def _damage(root: Path) -> str | None:
    """Return what prevents DVC from running, with the remedy."""
    from toxtrail.auditing.status.lock_repair import lock_problem
    from toxtrail.backends.dvc_process import file_locks

    lock = root / "dvc.lock"
    text = read_text(lock, "replace") if lock.is_file() else None
    if text is not None and (problem := lock_problem(text)):
        return problem
    if file_locks(root / ".dvc" / "tmp" / "rwlock") is None:
        return (
            ".dvc/tmp/rwlock was damaged by a kill of DVC, and `dvc repro` refuses to "
            "run. `toxtrail run` deletes it; by hand: `rm .dvc/tmp/rwlock` while no DVC runs."
        )
    return None


def _running_stages(experiment: Experiment) -> list[str]:
    """List the stages whose outputs a running DVC process has locked for writing."""
    import psutil

    from toxtrail.backends.dvc_process import file_locks
    from toxtrail.pipeline import stage_runs

    locks = (file_locks(experiment.root / ".dvc" / "tmp" / "rwlock") or {}).get("write", {})
    paths = {Path(p) for p, owner in locks.items() if psutil.pid_exists(int(owner["pid"]))}
    return [
        run.name
        for run in stage_runs(experiment.config)
        if any(experiment.root / out in paths for out in run.outs)
    ]


def _why(entries: list[Any]) -> str:
    """Format DVC's status of one stage."""
    reasons: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            reasons.append(entry)
            continue
        for what, files in entry.items():
            if not isinstance(files, dict):
                reasons.append(f"{what}: {files}")
                continue
            for name, state in files.items():
                places = state if isinstance(state, dict) else {}
                reasons += [f"{name}: {path} {how}" for path, how in places.items()]
                reasons += [] if places else [f"{name}: {state}"]
    return "; ".join(reasons)

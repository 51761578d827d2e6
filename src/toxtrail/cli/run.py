"""`toxtrail run` and `toxtrail status`: run DVC with targets, and list outdated stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo, warn
from toxtrail.errors import BackendError, ConfigError, did_you_mean
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text
from toxtrail.reporting.table import Table, text_columns

if TYPE_CHECKING:
    from toxtrail.audit.status.outdated_stages import Staleness


@click.command("run", short_help="Run all outdated stages, or those that KEYs depend on.")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of variants to run in parallel. Use 1 for one GPU or few cores.",
)
@click.option(
    "--keep-going", "-k", is_flag=True, help="Continue with independent stages after a failure."
)
@click.pass_obj
def run(experiment: Experiment, keys: tuple[str, ...], jobs: int, keep_going: bool) -> None:
    """Run all outdated stages, or those that KEYs depend on: variants, families or stages.

    The same as `dvc repro`, after checking params.yaml and the files it names. Results that are up
    to date but not in the present MLflow store (MLFLOW_TRACKING_URI) are published there.

    \b
    Examples:
      toxtrail run
      toxtrail run smollm2-rude               one variant and its MLflow run
      toxtrail run smollm2-135m               one family's comparison
      toxtrail run score@smollm2-rude         one stage and its dependencies
      toxtrail run --jobs 2 --keep-going
    """
    from toxtrail.cli.assets import problems_of_files
    from toxtrail.cli.init import require_same_code
    from toxtrail.cli.run_publishing import publish_missing
    from toxtrail.execution.run_lock import only_run

    require_same_code(experiment)
    if changed := problems_of_files(experiment):
        raise ConfigError("\n  ".join(["pin mismatch:", *changed]))
    targets = [target for key in keys for target in _targets(experiment, key)]
    with only_run(experiment.root, warn) as lock:
        _repro(experiment, lock, (keys, targets), jobs, keep_going)
        publish_missing(experiment, targets)


def _repro(
    experiment: Experiment,
    lock: int | None,
    selection: tuple[tuple[str, ...], list[str]],
    jobs: int,
    keep_going: bool,
) -> None:
    from toxtrail.audit.status.lock_repair import keep_copy, repair_lock
    from toxtrail.backends.dvc import Repro
    from toxtrail.backends.dvc_process import heal_file_locks

    (keys, targets), root = selection, experiment.root
    if done := repair_lock(root):
        warn(done)
    keep_copy(root)
    if heal_file_locks(root / ".dvc" / "tmp"):
        warn(".dvc/tmp/rwlock was damaged by a kill of DVC and was deleted.")
    dvc = Repro(root, lock)
    try:
        if jobs > 1:
            shared, chains = _chains(experiment, keys)
            dvc.side_by_side(shared, chains, jobs, keep_going)
        code = dvc.targets(targets, keep_going)
    finally:
        keep_copy(root)
    if code != 0:
        raise BackendError("dvc repro failed; see the error of the stage above.")


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
    from toxtrail.audit.status.outdated_stages import staleness
    from toxtrail.cli.assets import problems_of_files
    from toxtrail.cli.init import code_differs_message
    from toxtrail.cli.run_publishing import publication_of
    from toxtrail.execution.run_lock import running
    from toxtrail.scaffold import stages_with_other_code

    root = experiment.root
    damage = _damage(root)
    stale = staleness(root) if damage is None else None
    published = publication_of(experiment)
    if stale:
        why = [f"its run is not in the MLflow store {published.store}"]
        stale.stages.update({s: why for s in published.missing if s not in stale.stages})
    files, code, runs = (
        problems_of_files(experiment),
        list(stages_with_other_code(root)),
        running(root),
    )
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
            }
        )
        return
    if runs:
        stages = ", ".join(_running_stages(experiment)) or "between two stages"
        echo(f"`toxtrail run` is running ({runs}): {stages}.")
    if code:
        echo(code_differs_message(code))
    for problem in [*([damage] if damage else []), *files, *published.notes]:
        echo("problem: ", fg="red", nl=False)
        echo(problem)
    if stale:
        _print_stale(stale)


def _print_stale(stale: Staleness) -> None:
    if stale.others:
        echo(f"Not checked: {', '.join(stale.others)}. `dvc status NAME` checks them.")
    if not stale.stages:
        echo("Every stage is up to date.")
        return
    title = "Stages that `toxtrail run` will run (and those after them)"
    rows = [[stage, _why(entries)] for stage, entries in stale.stages.items()]
    print_table(Table(title, text_columns("stage", "why"), rows))


def _damage(root: Path) -> str | None:
    """Return what prevents DVC from running, with the remedy."""
    from toxtrail.audit.status.lock_repair import lock_problem
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


def _targets(experiment: Experiment, key: str) -> list[str]:
    """Return the DVC targets of a variant, a family or a stage."""
    config = experiment.config
    if key in config.variants:
        return [f"track@{key}"]
    if key in config.families:
        return [f"track-comparison@{key}"]
    if key in config.models:
        return [f"model@{key}"]
    if key in config.finetunes:
        return [f"finetune@{key}"]
    stages = _stage_names(experiment)
    if key in stages:
        return [key]
    names = [*config.variants, *config.families, *stages]
    raise ConfigError(f'Unknown variant, family or stage "{key}".{did_you_mean(key, names)}')


def _stage_names(experiment: Experiment) -> list[str]:
    from toxtrail.pipeline import PIPELINE

    names: list[str] = []
    for stage in PIPELINE:
        names.append(stage.name)
        if stage.foreach:
            names += [f"{stage.name}@{key}" for key in getattr(experiment.config, stage.foreach)]
    return names


def _chains(experiment: Experiment, keys: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Return (stages to run first, one chain of stages per variant)."""
    config = experiment.config
    chosen = [
        variant
        for variant, variant_config in config.variants.items()
        if not keys or variant in keys or variant_config.family in keys
    ]
    weights = [f"{'model' if v in config.models else 'finetune'}@{v}" for v in chosen]
    chains = [[f"generate@{v}", f"score@{v}", f"posterior@{v}"] for v in chosen]
    return ["prompts", *weights], chains


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

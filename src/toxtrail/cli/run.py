"""`toxtrail run`: run DVC with targets."""

from __future__ import annotations

import click

from toxtrail.console import warn
from toxtrail.errors import BackendError, ConfigError, did_you_mean
from toxtrail.experiment import Experiment


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
    from toxtrail.auditing.verify.committed_lock import other_bytes, other_bytes_message
    from toxtrail.cli._run_publishing import publish_missing
    from toxtrail.execution.run_lock import only_run
    from toxtrail.preflight.pinned_files import pin_problems
    from toxtrail.preflight.result_packages import other_versions_note, result_packages
    from toxtrail.scaffold import require_same_code

    config = experiment.config  # errors of params.yaml come first
    experiment.require_variants()
    require_same_code(experiment.root)
    if changed := pin_problems(experiment):
        raise ConfigError("\n  ".join(["pin mismatch:", *changed]))
    targets = [target for key in keys for target in _targets(experiment, key)]
    if note := other_versions_note(result_packages(config, experiment.store)):
        warn(f"note: {note}")
    with only_run(experiment.root, warn) as lock:
        _repro(experiment, lock, (keys, targets), jobs, keep_going)
        publish_missing(experiment, targets)
    if differing := other_bytes(experiment.root):
        warn(other_bytes_message(differing))


def _repro(
    experiment: Experiment,
    lock: int | None,
    selection: tuple[tuple[str, ...], list[str]],
    jobs: int,
    keep_going: bool,
) -> None:
    from toxtrail.auditing.status.lock_repair import keep_copy, repair_lock
    from toxtrail.auditing.status.not_pulled import pull_advice
    from toxtrail.backends.dvc import Repro
    from toxtrail.backends.dvc_process import heal_file_locks

    (keys, targets), root = selection, experiment.root
    if done := repair_lock(root):
        warn(done)
    keep_copy(root)
    if advice := pull_advice(root):
        warn(advice)
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

"""`toxtrail run` and `toxtrail status`: DVC, with the right targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toxtrail.cli.console import echo
from toxtrail.cli.experiment import Experiment
from toxtrail.cli.output import json_option, print_json, print_table
from toxtrail.errors import BackendError, ConfigError, nearest


@click.command("run", short_help="Bring results up to date: all, or what KEYs need.")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Variants generated and scored side by side. One is right for one GPU or few cores.",
)
@click.option(
    "--keep-going", "-k", is_flag=True, help="After a failure, finish what does not need it."
)
@click.pass_obj
def run(experiment: Experiment, keys: tuple[str, ...], jobs: int, keep_going: bool) -> None:
    """Bring everything up to date, or only what KEYs need: variants, families or stages.

    The same as `dvc repro`, after a look at params.yaml and at the files it names.

    \b
    Examples:
      toxtrail run
      toxtrail run smollm2-rude               one variant and its MLflow run
      toxtrail run smollm2-135m               one family's comparison
      toxtrail run score@smollm2-rude         one stage and what it needs
      toxtrail run --jobs 2 --keep-going
    """
    from toxtrail.backends.dvc import repro, repro_side_by_side
    from toxtrail.cli.assets import problems_of_files
    from toxtrail.cli.init import refuse_other_code

    refuse_other_code(experiment)
    if changed := problems_of_files(experiment):
        raise ConfigError("\n  ".join(["files are not what params.yaml pins:", *changed]))
    targets = [target for key in keys for target in _targets(experiment, key)]
    if jobs > 1:
        repro_side_by_side(experiment.root, _chains(experiment, keys), jobs, keep_going)
    code = repro(experiment.root, targets, keep_going)
    if code != 0:
        raise BackendError("dvc repro failed; the stage that failed says why above.")


@click.command("status", short_help="Say which stages are out of date, and why.")
@json_option
@click.pass_obj
def status(experiment: Experiment, as_json: bool) -> None:
    """Say which stages are out of date, and why.

    \b
    Examples:
      toxtrail status
      toxtrail status --json
    """
    from toxtrail.backends.dvc import changes
    from toxtrail.cli.assets import problems_of_files
    from toxtrail.cli.init import code_differs
    from toxtrail.scaffold import other_code

    stale = changes(experiment.root)
    files, code = problems_of_files(experiment), list(other_code(experiment.root))
    if as_json:
        print_json({"stages": stale, "files": files, "code": code})
        return
    if code:
        echo(code_differs(code))
    for problem in files:
        echo(f"not as pinned: {problem}")
    if not stale:
        echo("Every stage is up to date.")
        return
    print_table(
        "Stages that `toxtrail run` will run (and those after them)",
        ["stage", "why"],
        [[stage, _why(entries)] for stage, entries in stale.items()],
    )


def _targets(experiment: Experiment, key: str) -> list[str]:
    """DVC's names for what a person calls by a variant's, a family's or a stage's name."""
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
    known = [*config.variants, *config.families, *stages]
    raise ConfigError(f'"{key}" is no variant, family or stage.{nearest(key, known)}')


def _stage_names(experiment: Experiment) -> list[str]:
    from toxtrail.pipeline import PIPELINE

    names: list[str] = []
    for stage in PIPELINE:
        names.append(stage.name)
        if stage.over:
            names += [f"{stage.name}@{key}" for key in getattr(experiment.config, stage.over)]
    return names


def _chains(experiment: Experiment, keys: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """(stages to bring up first, one chain of stages per variant)."""
    config = experiment.config
    chosen = [
        variant
        for variant, who in config.variants.items()
        if not keys or variant in keys or who.family in keys
    ]
    weights = [f"{'model' if v in config.models else 'finetune'}@{v}" for v in chosen]
    chains = [[f"generate@{v}", f"score@{v}", f"posterior@{v}"] for v in chosen]
    return ["prompts", *weights], chains


def _why(entries: list[Any]) -> str:
    """DVC's status of one stage in a few words."""
    reasons: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            reasons.append(entry)
            continue
        for what, files in entry.items():
            if isinstance(files, dict):
                reasons += [f"{Path(name).as_posix()}: {state}" for name, state in files.items()]
            else:
                reasons.append(f"{what}: {files}")
    return "; ".join(reasons)

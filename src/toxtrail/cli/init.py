"""`toxtrail init`: create an experiment outside toxtrail's own source."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail.cli._options import directory_option, model_options
from toxtrail.console import echo
from toxtrail.scaffold import FIRST_COMMANDS, PRESETS

if TYPE_CHECKING:
    from toxtrail.cli._new_models import Request

DEFAULT_PRESET = "demo"


@click.command("init", short_help="Create a new experiment.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="; ".join(f"{name}: {what}" for name, what in PRESETS.items())
    + f".  [default: {DEFAULT_PRESET}]",
)
@click.option("--base", metavar="MODEL", help="Base: as BASE of `toxtrail quick`; no preset.")
@click.option(
    "--tuned", metavar="MODEL", multiple=True, help="Fine-tune of the base; may be repeated."
)
@model_options
@click.option(
    "--experiment",
    metavar="NAME",
    help="Name of its MLflow experiment (default: the name of DIR).",
)
@click.option("--no-git", is_flag=True, help="Skip `git init` and the first commit.")
@click.pass_context
def init(
    ctx: click.Context,
    folder: Path,
    preset: str | None,
    base: str | None,
    tuned: tuple[str, ...],
    prompts: Path | None,
    column: str | None,
    scorer: str | None,
    n: int | None,
    experiment: str | None,
    no_git: bool,
) -> None:
    """Create a new experiment in DIR, which must be new or empty: params.yaml, dvc.yaml, DVC's and
    git's files, a README, and the local data of the preset.

    With --base, it measures your own models, as `toxtrail quick` does, which also runs it. The
    preset `empty` contains everything but the models.

    \b
    Examples:
      toxtrail init my-experiment
      toxtrail init mine --base ORG/NAME --tuned path/to/lora --prompts prompts.csv
      toxtrail init mine --base before.jsonl --tuned after.jsonl
      toxtrail init mine --preset empty
      toxtrail init replication --preset paper
      toxtrail init scratch --preset hub --no-git
    """
    from toxtrail.cli._new_experiment import put_under_git
    from toxtrail.cli._new_models import Request

    if directory_option(ctx) is not None:
        raise click.UsageError(
            "-C is the folder of an existing experiment. Give the new one as DIR."
        )
    if base is None:
        _refuse_without_base(tuned=tuned, prompts=prompts, column=column, scorer=scorer, n=n)
        _init_preset(folder, preset or DEFAULT_PRESET, experiment, no_git)
    else:
        if preset is not None:
            raise click.UsageError("Give --preset or --base, not both.")
        request = Request.of(base, tuned, prompts, column, scorer, n)
        _init_models(folder, request, experiment, no_git)
    if not no_git:
        echo(put_under_git(folder.resolve()))
    first = FIRST_COMMANDS[preset or DEFAULT_PRESET].splitlines() if base is None else []
    steps = [f"cd {shlex.quote(str(folder))}", "toxtrail check", *first, "toxtrail run"]
    echo("Next:\n" + "\n".join(f"  {step}" for step in steps))


def _refuse_without_base(**options: object) -> None:
    if names := [f"--{name}" for name, value in options.items() if value]:
        raise click.UsageError(f"{', '.join(names)} need --base MODEL.")


def _init_preset(folder: Path, preset: str, experiment: str | None, no_git: bool) -> None:
    from toxtrail.backends import git
    from toxtrail.config.load import load_config
    from toxtrail.scaffold import new_files, preset_path, write_experiment

    config = load_config(preset_path(preset))
    target = folder.resolve()
    files = new_files(target.name, preset, git.is_inside(target) or not no_git, experiment)
    write_experiment(target, files)
    echo(
        f"{folder}: preset {preset}, {len(config.variants)} variants in {len(config.families)} "
        f"families; {len(files)} files."
    )


def _init_models(folder: Path, request: Request, experiment: str | None, no_git: bool) -> None:
    from toxtrail.cli._new_experiment import create_experiment

    for choice in create_experiment(folder, request, not no_git, experiment):
        echo(choice)
    echo(f"{folder}: {1 + len(request.tuned)} variants in 1 family.")

"""`toxtrail init` and `toxtrail upgrade`: experiments outside toxtrail's own source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail.cli._output import json_option, print_json
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.scaffold import FIRST_COMMANDS, PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.command("init", short_help="Create a new experiment.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="demo",
    show_default=True,
    help="; ".join(f"{name}: {what}" for name, what in PRESETS.items()) + ".",
)
@click.option("--no-git", is_flag=True, help="Skip `git init` and the first commit.")
def init(folder: Path, preset: str, no_git: bool) -> None:
    """Create a new experiment in DIR, which must be new or empty: params.yaml, dvc.yaml, DVC's and
    git's files, a README, and the local data of the preset.

    \b
    Examples:
      toxtrail init my-experiment
      toxtrail init replication --preset paper
      toxtrail init scratch --preset hub --no-git
    """
    from toxtrail.backends import git
    from toxtrail.config.load import load_config
    from toxtrail.scaffold import new_files, preset_path, write_experiment

    config = load_config(preset_path(preset))
    target = folder.resolve()
    inside = git.is_inside(target)
    files = new_files(target.name, preset, git=inside or not no_git)
    write_experiment(target, files)
    echo(
        f"{folder}: preset {preset}, {len(config.variants)} variants in {len(config.families)} "
        f"families; {len(files)} files."
    )
    if not no_git:
        echo(_versioned(target, inside))
    steps = [f"cd {folder}", "toxtrail check", *FIRST_COMMANDS[preset].splitlines(), "toxtrail run"]
    echo("Next:\n" + "\n".join(f"  {step}" for step in steps))


@click.command("upgrade", short_help="Update this experiment to the installed toxtrail version.")
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
@json_option
@click.pass_obj
def upgrade(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Accept the installed version of toxtrail: write dvc.yaml, requirements.txt and the hashes of
    each stage's code anew. `toxtrail run` then runs the stages whose code has changed.

    params.yaml is left as it is.

    \b
    Examples:
      toxtrail upgrade --dry-run
      toxtrail upgrade && toxtrail run
    """
    from toxtrail.scaffold import is_checkout, outdated_files, replace_files, stages_with_other_code

    if is_checkout(experiment.root):
        raise ConfigError(
            "This is a checkout of toxtrail: its stages depend on the source itself, and dvc.yaml "
            "is edited by hand. `git pull` is its upgrade."
        )
    stages, files = stages_with_other_code(experiment.root), outdated_files(experiment.root)
    if not dry_run:
        replace_files(experiment.root, files)
    if as_json:
        print_json({"files": list(files), "stages": list(stages), "written": not dry_run})
        return
    _print_upgrade(files, stages, dry_run)


def require_same_code(experiment: Experiment) -> None:
    """Raise if the installed code differs from the code on which DVC depends.

    Raises:
        ConfigError: the installed toxtrail is not the version of the experiment.
    """
    from toxtrail.scaffold import stages_with_other_code

    if names := stages_with_other_code(experiment.root):
        raise ConfigError(code_differs_message(names))


def code_differs_message(names: Sequence[str]) -> str:
    """Return the message for stages whose installed code differs from the experiment's."""
    from toxtrail import __version__

    return (
        f"the installed toxtrail ({__version__}) has other code than this experiment, for: "
        f"{', '.join(names)}. Run `toxtrail upgrade` to accept it, and `toxtrail run` to run these "
        "stages again; or install the version that produced the results."
    )


def _versioned(target: Path, inside: bool) -> str:
    """Run `git init` and make the first commit; return the message."""
    from toxtrail.backends import git

    if inside:
        return "It is inside a git repository: nothing was committed."
    if not git.init(target):
        return "git is not installed, or failed: run `git init` there before the first run."
    if not git.commit_all(target, "A new experiment"):
        return "git init: done. Nothing was committed: set your name and e-mail in git first."
    return "git init: done, with a first commit."


def _print_upgrade(files: Mapping[str, bytes], stages: Sequence[str], dry_run: bool) -> None:
    if not files:
        echo("Already up to date with the installed toxtrail.")
        return
    echo(f"{'Would write' if dry_run else 'Wrote'} {', '.join(files)}.")
    echo(
        f"Stages with other code: {', '.join(stages)}."
        if stages
        else "No stage has other code: no stage has to run again."
    )

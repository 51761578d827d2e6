"""`toxtrail init`: create an experiment outside toxtrail's own source."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.console import echo
from toxtrail.scaffold import FIRST_COMMANDS, PRESETS


@click.command("init", short_help="Create a new experiment.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="demo",
    show_default=True,
    help="; ".join(f"{name}: {what}" for name, what in PRESETS.items()) + ".",
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="Name of its MLflow experiment (default: the name of DIR).",
)
@click.option("--no-git", is_flag=True, help="Skip `git init` and the first commit.")
def init(folder: Path, preset: str, experiment: str | None, no_git: bool) -> None:
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
    files = new_files(target.name, preset, inside or not no_git, experiment)
    write_experiment(target, files)
    echo(
        f"{folder}: preset {preset}, {len(config.variants)} variants in {len(config.families)} "
        f"families; {len(files)} files."
    )
    if not no_git:
        echo(_versioned(target, inside))
    steps = [f"cd {folder}", "toxtrail check", *FIRST_COMMANDS[preset].splitlines(), "toxtrail run"]
    echo("Next:\n" + "\n".join(f"  {step}" for step in steps))


def _versioned(target: Path, inside: bool) -> str:
    """Run `git init` and make the first commit; return the message."""
    from toxtrail.backends import git
    from toxtrail.backends.merge_driver import install_merge_driver

    if inside:
        install_merge_driver(target)
        return "It is inside a git repository: nothing was committed."
    if not git.init(target):
        return "git is not installed, or failed: run `git init` there before the first run."
    install_merge_driver(target)
    if not git.commit_all(target, "A new experiment"):
        return "git init: done. Nothing was committed: set your name and e-mail in git first."
    return "git init: done, with a first commit."

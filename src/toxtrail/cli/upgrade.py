"""`toxtrail upgrade`: update an experiment to the installed toxtrail version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from toxtrail.cli._output import json_option, print_json
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment


@click.command("upgrade", short_help="Update this experiment to the installed toxtrail version.")
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
@json_option
@click.pass_obj
def upgrade(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Accept the installed version of toxtrail: write dvc.yaml, requirements.txt and the hashes of
    each stage's code again. `toxtrail run` then runs the stages whose code has changed.

    params.yaml is not changed, except that a missing `tracking.project` is added.

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

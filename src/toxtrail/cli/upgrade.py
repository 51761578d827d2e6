"""`toxtrail upgrade`: update an experiment to the installed toxtrail version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from toxtrail.cli._output import json_option, print_json
from toxtrail.config.load import load_config
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import OLDER_SETTINGS, Experiment


@click.command("upgrade", short_help="Update this experiment to the installed toxtrail version.")
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
@json_option
@click.pass_obj
def upgrade(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Accept the installed version of toxtrail: write dvc.yaml, requirements.txt and the hashes of
    each stage's code again. `toxtrail run` then runs the stages whose code has changed.

    params.yaml is not changed, except that a missing `tracking.project` is added; settings that
    this version does not know are listed.

    \b
    Examples:
      toxtrail upgrade --dry-run
      toxtrail upgrade && toxtrail run
    """
    from toxtrail.provenance.experiment_version import require_not_newer
    from toxtrail.scaffold import is_checkout, outdated_files, replace_files, stages_with_other_code

    if is_checkout(experiment.root):
        raise ConfigError(
            "This is a checkout of toxtrail: its stages depend on the source itself, and dvc.yaml "
            "is edited by hand. `git pull` is its upgrade."
        )
    require_not_newer(experiment.root)
    stages, files = stages_with_other_code(experiment.root), outdated_files(experiment.root)
    if not dry_run:
        replace_files(experiment.root, files)
    if as_json:
        result = {"files": list(files), "stages": list(stages), "written": not dry_run}
        print_json({**result, "params": _params_problem(experiment)})
        return
    _print_upgrade(files, stages, dry_run)
    if problem := _params_problem(experiment):
        echo("problem: ", fg="red", nl=False)
        echo(f"{problem}\n{OLDER_SETTINGS}")


def _params_problem(experiment: Experiment) -> str | None:
    """Return what is invalid in params.yaml for this version; None if it is valid."""
    try:
        load_config(experiment.root / "params.yaml")
    except ConfigError as error:
        return str(error)
    return None


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

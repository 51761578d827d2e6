"""`toxtrail doctor`: check the environment."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, text_columns


@click.command(
    "doctor", short_help="Check the environment: versions, device, cache, git, DVC, MLflow, vLLM."
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the environment: Python, versions against requirements.txt, plug-ins, device, cache,
    git, DVC, MLflow, vLLM.

    \b
    Examples:
      toxtrail doctor
      toxtrail doctor --json
    """
    from toxtrail.preflight.machine import machine_checks

    experiment: Experiment = ctx.obj
    config = None
    if experiment.exists:
        with suppress(ConfigError):  # `check` names the problems
            config = experiment.config
    results = machine_checks(experiment.root, config)
    if as_json:
        print_json([result._asdict() for result in results])
    else:
        rows: list[list[Any]] = [[f.state, f.what, f.found, f.cure] for f in results]
        print_table(Table(None, text_columns("", "what", "found", "cure"), rows))
    if not all(result.ok for result in results):
        ctx.exit(1)

"""`toxtrail pin`: write the commit or SHA-256 of every asset into params.yaml."""

from __future__ import annotations

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, text_columns


@click.command("pin", short_help="Write every asset's hash into params.yaml.")
@click.option("--dry-run", is_flag=True, help="Print the pins without writing them.")
@json_option
@click.pass_obj
def pin(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Resolve every asset and write its commit or sha256 into params.yaml, keeping its comments.

    Branches and tags are resolved to 40-digit commits. A local file that was edited gets its new
    hash: use this to accept a change of data.

    \b
    Examples:
      toxtrail pin
      toxtrail pin --dry-run
    """
    from toxtrail.backends.assets.resolve_pins import resolve_pins
    from toxtrail.config.edit_params import write_pins
    from toxtrail.execution.factories import make_asset_store

    pins = resolve_pins(experiment.config.sources(), make_asset_store(experiment))
    if not dry_run:
        write_pins(experiment.root / "params.yaml", pins)
    if as_json:
        print_json([entry._asdict() for entry in pins])
        return
    rows = [[p.place, p.new_uri, (p.sha256 or "-")[:16], "yes" if p.changed else ""] for p in pins]
    print_table(Table(None, text_columns("place", "asset", "sha256", "changed"), rows))
    count = sum(p.changed for p in pins)
    echo(f"{count} pin(s) {'would be ' if dry_run else ''}written to params.yaml.")

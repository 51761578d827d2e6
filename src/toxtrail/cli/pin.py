"""`toxtrail pin`: write the commit or SHA-256 of every asset and plug-in into params.yaml."""

from __future__ import annotations

from collections.abc import Iterator

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.config.edit_params import Pin, write_pins, write_plugin_pins
from toxtrail.config.plugins import EngineConfig, PluginPin, plugin_named, usage_problem
from toxtrail.config.scorer_kinds.plugin import PluginScorerConfig
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, text_columns


@click.command("pin", short_help="Write every asset's hash into params.yaml.")
@click.option("--dry-run", is_flag=True, help="Print the pins without writing them.")
@json_option
@click.pass_obj
def pin(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Resolve every asset and write its commit or sha256 into params.yaml, keeping its comments.

    Branches and tags are resolved to 40-digit commits. A local file that was edited gets its new
    hash: use this to accept a change of data. So does a plug-in that params.yaml names: its
    version and the hash of its code are written.

    \b
    Examples:
      toxtrail pin
      toxtrail pin --dry-run
    """
    from toxtrail.backends.assets.resolve_pins import resolve_pins
    from toxtrail.execution.factories import make_asset_store

    pins = resolve_pins(experiment.config.sources(), make_asset_store(experiment))
    plugins = list(_plugin_pins(experiment))
    if not dry_run:
        write_pins(experiment.root / "params.yaml", pins)
        changed = {place: pin.plain() for place, old, pin in plugins if pin != old}
        write_plugin_pins(experiment.root / "params.yaml", changed)
    pins += [_as_row(*plugin) for plugin in plugins]
    if as_json:
        print_json([entry._asdict() for entry in pins])
        return
    rows = [[p.place, p.new_uri, (p.sha256 or "-")[:16], "yes" if p.changed else ""] for p in pins]
    print_table(Table(None, text_columns("place", "asset", "sha256", "changed"), rows))
    count = sum(p.changed for p in pins)
    echo(f"{count} pin(s) {'would be ' if dry_run else ''}written to params.yaml.")


def _plugin_pins(experiment: Experiment) -> Iterator[tuple[str, PluginPin | None, PluginPin]]:
    """Yield (key path of the entry, its pin, the pin of the installed code) of each plug-in.

    Raises:
        ConfigError: one is not installed.
    """
    for place, group, kind, options in experiment.config.plugin_entries():
        if isinstance(options, PluginScorerConfig | EngineConfig):
            plugin = plugin_named(group, kind)
            if plugin is None:
                raise ConfigError(usage_problem(place, group, kind, options) or "")
            yield place, options.plugin, plugin.pin()


def _as_row(place: str, old: PluginPin | None, new: PluginPin) -> Pin:
    return Pin(f"{place}.plugin", old.label if old else "-", new.label, new.sha256, new != old)

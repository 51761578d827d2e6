"""Add a model that is known by its name on a server only, for `toxtrail variants add`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from toxtrail.cli._output import print_json
from toxtrail.console import echo, warn
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text

if TYPE_CHECKING:
    from toxtrail.config.edit_params import Entry, YamlListItem

SERVER_SETTINGS = {"concurrency": 4, "timeout": 300.0, "max_attempts": 6}
"""Written with the URL; a hosted service may reject many requests at a time."""


class ApiTarget(NamedTuple):
    """A name on a server, and its place among the variants."""

    name: str
    url: str | None
    parent: str | None
    family: str | None
    """None: the parent's."""
    is_base: bool


def add_api_model(
    experiment: Experiment,
    target: ApiTarget,
    key: str | None,
    role: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add the entries to params.yaml; the server is not contacted.

    Raises:
        UsageError: an option is missing.
        ConfigError: the key is in use, or the new file would be invalid.
    """
    from toxtrail.auditing.lineage.parent_claims import slug

    if target.url is None:
        raise click.UsageError("api:NAME needs the URL of its server: --url http://HOST:8000/v1")
    if (target.parent is None) != target.is_base:
        raise click.UsageError("api:NAME needs --parent VARIANT, or --base without one.")
    key, config = key or slug(target.name), experiment.config
    if key in {**config.models, **config.finetunes, **config.variants}:
        raise ConfigError(f'"{key}" exists already. Choose another name: --key NAME')
    family = target.family or (config.variants[target.parent].family if target.parent else None)
    if family is None:
        raise click.UsageError("Without a parent it needs a family: --family NAME")
    before = read_text(experiment.root / "params.yaml")
    after = _edited(experiment, before, target._replace(family=family), key, role or "api")
    diff = write_params(experiment, before, after, dry_run)
    if as_json:
        print_json({"key": key, "family": family, "diff": diff, "written": not dry_run})
        return
    warn("Its weights are not known: what the server answers under this name is weak evidence.")
    print_outcome(key, diff, dry_run)


def write_params(experiment: Experiment, before: str, after: str, dry_run: bool) -> list[str]:
    """Write the new text of params.yaml, unless `dry_run`; return the lines of its diff."""
    if not dry_run:
        from toxtrail.config.edit_params import replace_file

        replace_file(experiment.root / "params.yaml", after)
    lines = before.splitlines(), after.splitlines()
    return list(difflib.unified_diff(*lines, "params.yaml", "params.yaml", lineterm=""))


def print_outcome(key: str, diff: Sequence[str], dry_run: bool) -> None:
    """Print the diff, and what to run next."""
    for line in diff:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        echo(line, fg=colour)
    if dry_run:
        echo("Nothing was written (--dry-run).")
        return
    echo(
        f"{key} was added to params.yaml. `toxtrail plan` estimates its cost, "
        f"`toxtrail run {key}` measures it.",
        bold=True,
    )


def _edited(experiment: Experiment, before: str, target: ApiTarget, key: str, role: str) -> str:
    """Return the new text of params.yaml, validated before anything is written."""
    from toxtrail.config.edit_params import add_entries
    from toxtrail.config.load import parse_config
    from toxtrail.config.yaml_text import parse_yaml

    path = Path("params.yaml")
    after = add_entries(before, *_additions(experiment, target, key, role), path.name)
    parse_config(parse_yaml(after), path.name)
    return after


def _additions(
    experiment: Experiment, target: ApiTarget, key: str, role: str
) -> tuple[list[Entry], list[YamlListItem]]:
    from toxtrail.config.edit_params import Entry, YamlListItem

    family, config = str(target.family), experiment.config
    fields: dict[str, Any] = {"family": family, "role": role}
    fields |= {"parent": target.parent} if target.parent else {}
    server = {"url": target.url, **SERVER_SETTINGS}
    servers = (
        Entry("runtime.servers", key, server, one_line=True)
        if config.runtime.servers
        else Entry("runtime", "servers", {key: server})
    )
    entries = [
        Entry("models", key, {"uri": f"api:{target.name}"}, one_line=True),
        Entry("variants", key, fields, one_line=True),
        servers,
    ]
    if family in config.families:
        return entries, [YamlListItem(f"families.{family}.variants", key)]
    return [*entries, Entry("families", family, {"reference": key, "variants": [key]})], []

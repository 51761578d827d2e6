"""`toxtrail scorers`: list the published scorers, add one, measure its golden texts, and measure
scorers on labelled files."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_tables
from toxtrail.cli._scorers_bench import bench
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text

if TYPE_CHECKING:
    from toxtrail.config.scorer_presets import ScorerPreset


@click.group("scorers", short_help="List or add scorers.", invoke_without_command=True)
@json_option
@click.pass_context
def scorers(ctx: click.Context, as_json: bool) -> None:
    """List the published scorers that `scorers add` can add: what each reads (the response, or the
    prompt and the response), its license, whether it is gated on the Hub, its size, and whether the
    scores of its golden texts were measured.

    \b
    Examples:
      toxtrail scorers
      toxtrail scorers --json
      toxtrail scorers add qwen3guard-gen-0.6b
      toxtrail scorers measure
      toxtrail scorers bench hatecheck.csv
    """
    if ctx.invoked_subcommand is not None:
        return
    from toxtrail.config.scorer_presets import scorer_presets

    presets = scorer_presets()
    if as_json:
        print_json([_described(name, preset) for name, preset in presets.items()])
        return
    from toxtrail.reporting.table import Table, number_columns, text_columns

    columns = (
        *text_columns("scorer"),
        *text_columns("kind", priority=3),
        *text_columns("reads", "gated"),
        *number_columns("parameters", priority=1),
        *text_columns("golden scores", priority=2),
    )
    rows = [
        (
            name,
            preset.entry.kind,
            preset.sees,
            "yes" if preset.gated else "no",
            f"{preset.parameters / 1e6:,.0f} M",
            "measured" if preset.is_measured else "not measured",
        )
        for name, preset in presets.items()
    ]
    notes = [
        f"{name}: {preset.summary}. License: {preset.license}." for name, preset in presets.items()
    ]
    print_tables("text", [Table(None, columns, rows)], notes)


@scorers.command("add", short_help="Add a published scorer to params.yaml.")
@click.argument("name")
@click.option("--key", metavar="KEY", help="Key in scoring.scorers (default: the scorer's name).")
@click.option("--no-pin", is_flag=True, help="Do not query the Hub for its commit.")
@click.option("--dry-run", is_flag=True, help="Print what would be written without writing it.")
@json_option
@click.pass_obj
def add(
    experiment: Experiment,
    name: str,
    key: str | None,
    no_pin: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the entry of a published scorer to scoring.scorers of params.yaml, pinned to the
    present commit of its repository, and its threshold to posterior.threshold. Comments and order
    of the file are kept; nothing else changes, and `dvc repro` then scores every continuation with
    it.

    A Detoxify checkpoint is pinned by `toxtrail pin`, which downloads it.

    \b
    Examples:
      toxtrail scorers add detoxify-unbiased
      toxtrail scorers add qwen3guard-gen-0.6b --key guard
      toxtrail scorers add wildguard --no-pin --dry-run
    """
    from toxtrail.config.edit_params import Entry, add_entries, replace_file
    from toxtrail.config.load import parse_config
    from toxtrail.config.scorer_presets import entry_values, scorer_preset
    from toxtrail.config.yaml_text import parse_yaml

    preset, key = scorer_preset(name), key or name.replace(".", "-")
    if key in experiment.config.scoring.scorers:
        raise ConfigError(f"scoring.scorers.{key} exists. Give another name with --key.")
    values = entry_values(preset.entry)
    if not no_pin:
        pin_commits(values)
    path = experiment.root / "params.yaml"
    before = read_text(path)
    entries = [
        Entry("scoring.scorers", key, values, (f"{preset.summary}; {preset.card}",)),
        Entry("posterior.threshold", key, preset.threshold),
    ]
    after = add_entries(before, entries, [], path.name)
    config = parse_config(parse_yaml(after), path.name)
    if not dry_run:
        replace_file(path, after)
    diff = list(difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml", "params.yaml", lineterm=""
    ))  # fmt: skip
    unpinned = [line for line in config.unpinned() if line.startswith(f"scoring.scorers.{key}")]
    if as_json:
        result = {"key": key, "written": not dry_run, "diff": diff, "unpinned": unpinned}
        print_json({**_described(name, preset), **result})
        return
    for line in diff[2:]:
        echo(line)
    for line in unpinned:
        echo(f"note: {line}. `toxtrail pin` resolves and writes it.", fg="yellow")
    if not preset.is_measured:
        echo(
            "note: the scores of its golden texts were never measured here. Once its files can be "
            "downloaded, `toxtrail scorers measure` measures and writes them.",
            fg="yellow",
        )
    places = f"scoring.scorers.{key} and posterior.threshold.{key}"
    echo(f"{places} {'would be ' if dry_run else ''}written to params.yaml.")


@scorers.command("measure", short_help="Measure golden texts without a score.")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--dry-run", is_flag=True, help="Print the scores without writing them.")
@json_option
@click.pass_obj
def measure(experiment: Experiment, keys: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Score the golden texts whose score in params.yaml is null, and write the scores. From then
    on, a scorer that gives other scores is refused. KEY selects scorers (default: all that have
    such texts). The scorers are loaded, and downloaded if they are not in the cache.

    \b
    Examples:
      toxtrail scorers measure
      toxtrail scorers measure qwen3guard-gen-0-6b --dry-run
    """
    from toxtrail.backends.scorers.golden import golden_scores
    from toxtrail.config.edit_params import write_golden_scores
    from toxtrail.execution.factories import load_scorers

    configs = experiment.config.scoring.scorers
    for key in keys:
        if key not in configs:
            raise ConfigError(f'Unknown scorer "{key}". Available: {", ".join(configs)}.')
    chosen = {
        key: config
        for key, config in configs.items()
        if (key in keys or not keys) and any(golden.score is None for golden in config.golden)
    }
    if not chosen:
        echo("Every golden text has a score: there is nothing to measure.", err=as_json)
        if as_json:
            print_json({})
        return
    loaded = load_scorers(experiment, chosen)
    scores = {
        key: [
            round(score, 6) if golden.score is None else golden.score
            for golden, score in golden_scores(loaded[key], config)
        ]
        for key, config in chosen.items()
    }
    if not dry_run:
        write_golden_scores(experiment.root / "params.yaml", scores)
    if as_json:
        print_json(scores)
        return
    for key, values in scores.items():
        echo(f"{key}: {', '.join(f'{value:.6f}' for value in values)}")
    echo(
        f"{len(scores)} scorer(s): golden scores {'not ' if dry_run else ''}written to params.yaml."
    )


def _described(name: str, preset: ScorerPreset) -> dict[str, Any]:
    from toxtrail.config.scorer_presets import entry_values

    values = preset.model_dump(mode="json", exclude={"entry"})
    described = {"name": name, "sees": preset.sees, "measured": preset.is_measured, **values}
    return {**described, "entry": entry_values(preset.entry)}


def pin_commits(values: dict[str, Any]) -> None:
    """Replace Hub URIs with those of the present commits.

    Raises:
        ConfigError: the Hub is not accessible, or has no such repository.
    """
    from toxtrail.backends.assets.hub_info import HubClient
    from toxtrail.config.asset_uris import HfUri, parse_uri

    hub = HubClient()
    for asset in (values, *(v for v in values.values() if isinstance(v, dict) and "uri" in v)):
        address = parse_uri(asset["uri"])
        if not isinstance(address, HfUri):
            continue
        answer = hub.ask(address)
        if answer.facts is None:
            raise ConfigError(
                f"{asset['uri']}: {answer.message}. Nothing was written. With --no-pin, the entry "
                "is written without its commit; `toxtrail pin` adds it later."
            )
        asset["uri"] = f"hf:{answer.facts.name}@{answer.facts.commit}"


scorers.add_command(bench)

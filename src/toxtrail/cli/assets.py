"""`toxtrail check`, `pin` and `doctor`: is everything there, and is it what it should be?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.cli.check_online import CAN_BE_HAD, asked_online, print_online
from toxtrail.console import echo
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.preflight.source_contents import InClusters


@click.command("check", short_help="Check params.yaml and the files it names.")
@click.option("--strict", is_flag=True, help="An asset without a pin is an error, not a warning.")
@click.option("--online", is_flag=True, help="Ask the hub which of its addresses can be had.")
@json_option
@click.pass_context
def check(ctx: click.Context, strict: bool, online: bool, as_json: bool) -> None:
    """Check params.yaml as a whole, and the local files that it names: are they as pinned, and do
    the sources that are here hold the columns, rows and prompts that are asked of them? Do the
    scorers have the heads, and this machine the device that it names? Downloads nothing.

    With --online the hub is asked about each of its addresses: there, gated (its licence must be
    accepted first), renamed, missing; and under which licence.

    \b
    Examples:
      toxtrail check
      toxtrail check --strict
      toxtrail check --online
      toxtrail check --json
    """
    from toxtrail.cli.stage import doubts_of
    from toxtrail.scaffold import other_code

    experiment: Experiment = ctx.obj
    config = experiment.config
    unpinned, changed = config.unpinned(), problems_of_files(experiment)
    drawn = prompts_of(experiment)
    code, notes = list(other_code(experiment.root)), notes_of_reading(experiment)
    changed += problems_of_reading(experiment) + problems_of_device(config.runtime.device)
    outside, weak = outside_of(experiment), doubts_of(experiment)
    asked = asked_online(config) if online else []
    if as_json:
        found: dict[str, Any] = {
            "unpinned": unpinned,
            "files": changed,
            "notes": notes,
            "code": code,
            "clusters": [one._asdict() for one in drawn],
        }
        found |= {"outside": outside, "weak": weak}
        more = {"online": [one._asdict() for one in asked]} if online else {}
        print_json({**found, "variants": list(config.variants), **more})
    else:
        lines = [f"{o['place']}: outside the experiment, {o['path']}" for o in outside]
        lines += [f"weak: {key}: {line}" for key, own in weak.items() for line in own]
        _print_check(experiment, unpinned, changed, [*drawn_lines(drawn), *notes, *lines])
        _print_code(code)
        if online:
            print_online(asked)
    missing = any(one.state not in CAN_BE_HAD for one in asked)
    if missing or changed or code or (strict and unpinned):
        ctx.exit(1)


@click.command("pin", short_help="Write every asset's hash into params.yaml.")
@click.option("--dry-run", is_flag=True, help="Show the pins, change nothing.")
@json_option
@click.pass_obj
def pin(experiment: Experiment, dry_run: bool, as_json: bool) -> None:
    """Resolve every asset and write its commit or sha256 into params.yaml, keeping its comments.

    Branches and tags become 40-hex commits. A local file that was edited gets its new hash: this is
    how a change of data is accepted.

    \b
    Examples:
      toxtrail pin
      toxtrail pin --dry-run
    """
    from toxtrail.backends.assets.resolve_pins import resolve_pins
    from toxtrail.cli.stage import assets_of
    from toxtrail.config.write_pins import write_pins

    pins = resolve_pins(experiment.config.sources(), assets_of(experiment))
    if not dry_run:
        write_pins(experiment.root / "params.yaml", pins)
    if as_json:
        print_json([one._asdict() for one in pins])
        return
    print_table(
        None,
        ["place", "asset", "sha256", "changed"],
        [[p.place, p.new_uri, (p.sha256 or "-")[:16], "yes" if p.changed else ""] for p in pins],
    )
    count = sum(p.changed for p in pins)
    echo(f"{count} pin(s) {'would be ' if dry_run else ''}written to params.yaml.")


@click.command("doctor", short_help="Look at this machine: versions, device, cache.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look at the machine: Python, versions against requirements.txt, device, cache, git, DVC,
    MLflow.

    \b
    Examples:
      toxtrail doctor
      toxtrail doctor --json
    """
    from toxtrail.preflight.machine import findings

    experiment: Experiment = ctx.obj
    found = findings(experiment.root)
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        rows: list[list[Any]] = [
            ["ok" if f.ok else "PROBLEM", f.what, f.found, f.cure] for f in found
        ]
        print_table(None, ["", "what", "found", "cure"], rows)
    if not all(one.ok for one in found):
        ctx.exit(1)


def outside_of(experiment: Experiment) -> list[dict[str, str]]:
    """The local assets that lie outside the experiment: place in params.yaml, and path."""
    from toxtrail.cli.stage import assets_of

    assets = assets_of(experiment)
    places = [(place, assets.outside(source.uri)) for place, source in experiment.config.sources()]
    return [{"place": place, "path": str(path)} for place, path in places if path is not None]


def problems_of_files(experiment: Experiment) -> list[str]:
    """Local files that are missing or are not what params.yaml pins."""
    from toxtrail.cli.stage import assets_of
    from toxtrail.preflight.pinned_files import drifted_files

    return drifted_files(experiment.config, experiment.store, assets_of(experiment))


def problems_of_reading(experiment: Experiment) -> list[str]:
    """Sources and scorers that are here and do not hold what params.yaml asks of them."""
    from toxtrail.cli.stage import assets_of
    from toxtrail.preflight.source_contents import (
        damaged_weights,
        unknown_heads,
        unreadable_sources,
    )

    config, assets = experiment.config, assets_of(experiment)
    return [
        *unreadable_sources(config, assets),
        *unknown_heads(config, assets),
        *damaged_weights(config, assets),
    ]


def problems_of_device(device: str) -> list[str]:
    """A device that is not on this machine. torch is asked, and so imported, only if need be."""
    if device in ("auto", "cpu"):
        return []
    from toxtrail.backends.compute.devices import pick_device
    from toxtrail.errors import BackendError

    try:
        pick_device(device)
    except BackendError as error:
        return [str(error)]
    return []


def notes_of_reading(experiment: Experiment) -> list[str]:
    """What is decided by the content of a source, and not by params.yaml."""
    from toxtrail.cli.stage import assets_of
    from toxtrail.preflight.source_contents import detected_delimiters

    return detected_delimiters(experiment.config, assets_of(experiment))


def prompts_of(experiment: Experiment) -> list[InClusters]:
    """How many prompts and clusters subsets with a column of clusters have."""
    from toxtrail.cli.stage import assets_of
    from toxtrail.preflight.source_contents import prompts_in_clusters

    return prompts_in_clusters(experiment.config, assets_of(experiment))


def drawn_lines(drawn: Sequence[InClusters]) -> list[str]:
    """Prompts and clusters of each subset; and what is too few."""
    from toxtrail.reporting.result_text import FEW_CLUSTERS

    return [
        f"prompts.subsets.{one.subset}: {one.prompts:,} prompts in {one.clusters:,} clusters"
        + (
            f"; with fewer than {FEW_CLUSTERS} clusters intervals may be too narrow."
            if one.clusters < min(FEW_CLUSTERS, one.prompts)
            else "."
        )
        for one in drawn
    ]


def _print_code(names: Sequence[str]) -> None:
    from toxtrail.cli.init import code_differs

    if names:
        echo("problem: ", fg="red", nl=False)
        echo(code_differs(names))


def _print_check(
    experiment: Experiment, unpinned: list[str], changed: list[str], notes: list[str]
) -> None:
    config = experiment.config
    echo(
        f"params.yaml: {len(config.variants)} variants in {len(config.families)} families, "
        f"{len(config.prompts.subsets)} prompt subsets, {len(config.scoring.scorers)} scorers."
    )
    for line in unpinned:
        echo("warning: ", fg="yellow", nl=False)
        echo(f"{line}. `toxtrail pin` resolves and writes it.")
    for line in notes:
        echo(f"note: {line}")
    for line in changed:
        echo("problem: ", fg="red", nl=False)
        echo(line)
    if not changed:
        echo("Every local file is as pinned, and holds what is asked of it.")

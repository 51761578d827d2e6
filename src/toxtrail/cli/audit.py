"""`toxtrail audit`: from a result back to everything behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail.cli.experiment import Experiment
from toxtrail.cli.output import json_option, print_json, printable

if TYPE_CHECKING:
    from rich.tree import Tree

    from toxtrail.audit.chain import Link, Standing

MISMATCH_EXIT = 3
COLOURS: dict[Standing, str] = {
    "matches": "green",
    "MISMATCH": "bold red",
    "not here": "yellow",
    "recorded": "dim",
}


@click.command("audit", short_help="Show everything behind a result, with hashes.")
@click.argument("reference", metavar="REF")
@json_option
@click.pass_context
def audit(ctx: click.Context, reference: str, as_json: bool) -> None:
    """Show the chain behind REF: hashes of scores, generations, prompts, weights, data, parameters.

    REF is a variant, a family, a file that a stage wrote (wherever it lies now), or an MLflow run
    by
    id, name or content key. Files of this repo are hashed again on the way; exit code 3 says that
    one of them is not what was recorded.

    \b
    Examples:
      toxtrail audit smollm2-rude
      toxtrail audit data/scores/smollm2-135m/smollm2-rude.parquet
      toxtrail audit ~/Downloads/scores.parquet --json
      toxtrail audit 3f2a9c01            the first characters of a run id or content key
    """
    experiment: Experiment = ctx.obj
    link = _resolve(experiment, reference)
    if as_json:
        print_json(link.to_json())
    else:
        _print(link)
    broken = list(link.mismatches())
    for one in broken:
        click.secho(
            f"MISMATCH: {one.what}: {one.name} is not what was recorded", fg="red", err=True
        )
    if broken:
        ctx.exit(MISMATCH_EXIT)


def _resolve(experiment: Experiment, reference: str) -> Link:
    from toxtrail.audit.chain import chain_of_file, unknown_reference

    store, config = experiment.store, experiment.config
    if reference in config.variants:
        family = config.variants[reference].family
        return chain_of_file(store, store.posterior(family, reference) / "summary.json")
    if reference in config.families:
        return chain_of_file(store, store.comparison(reference) / "summary.json")
    for path in (Path(reference), experiment.root / reference):
        if path.is_file():
            return chain_of_file(store, path.resolve())
    link = _tracked(experiment, reference)
    if link is None:
        raise unknown_reference(reference)
    return link


def _tracked(experiment: Experiment, reference: str) -> Link | None:
    from toxtrail.audit.chain import chain_of_manifest
    from toxtrail.cli.stage import tracker_of
    from toxtrail.identity import Manifest

    tracker = tracker_of(experiment)
    run = tracker.find(reference)
    if run is None:
        return None
    statement = json.loads(tracker.download(run.run_id, "manifest.json").read_text("utf-8"))
    manifest = Manifest.model_validate_json(json.dumps(statement["predicate"]))
    link = chain_of_manifest(experiment.store, f"MLflow run {run.run_id}", manifest)
    names = ("git_commit", "git_dirty", "dvc_lock_sha256", "seal")
    facts = [
        (name, run.tags[f"toxtrail.{name}"]) for name in names if f"toxtrail.{name}" in run.tags
    ]
    return link._replace(facts=(*facts, *link.facts))


def _print(link: Link) -> None:
    from rich.console import Console

    interactive = sys.stdout.isatty()
    Console(width=None if interactive else 160, highlight=False).print(_tree(link))


def _tree(link: Link) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    head = Text.assemble(
        (printable(link.what), "bold"),
        "  ",
        printable(link.name),
        "  ",
        (f"{link.standing}", COLOURS[link.standing]),
    )
    if link.sha256:
        head.append(f"\nsha256 {link.sha256}")
    tree = Tree(head)
    for name, value in link.facts:
        tree.add(Text(f"{name}: {printable(value)}", style="dim"))
    for below in link.made_from:
        tree.children.append(_tree(below))
    return tree

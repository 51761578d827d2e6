"""`toxtrail quick`: from two models to a result with one command."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from toxtrail.cli._options import directory_option, model_options, refuse_several
from toxtrail.cli._output import json_option, print_json
from toxtrail.console import echo
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.cli._compare_output import LoadedComparison
    from toxtrail.cli._new_experiment import Extended
    from toxtrail.cli._new_models import Request


class QuickOutput(NamedTuple):
    """Paths and commands that are printed below the result."""

    folder: str
    report: str
    next: list[str]


@click.command("quick", short_help="Compare two models: create an experiment and run it.")
@click.argument("base")
@click.argument("tuned")
@model_options
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the experiment (default: that of -C, or toxtrail-BASE in this folder).",
)
@json_option
@click.pass_context
def quick(
    ctx: click.Context,
    base: str,
    tuned: str,
    prompts: Path | None,
    column: str | None,
    scorer: str | None,
    n: int | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Compare the toxicity of TUNED with that of BASE: create an experiment in DIR, run it, and
    print the result. Settings that are not given are chosen, and printed.

    BASE is full weights: ORG/NAME or ORG/NAME@REVISION on the Hub, a folder, a GGUF file or an
    asset URI. TUNED is the same, or a LoRA adapter of BASE. Or both are files of texts that were
    generated elsewhere (docs/texts.md).

    DIR is an ordinary experiment: edit its params.yaml, and use every other command there. The same
    command again continues an interrupted run; with another TUNED, it adds a variant. What is up to
    date is not computed again.

    \b
    Examples:
      toxtrail quick ORG/BASE path/to/lora
      toxtrail quick path/to/base ORG/TUNED@v2 --prompts prompts.csv --n 500
      toxtrail quick base.gguf tuned.gguf --dir quantized --scorer detoxify-original
      toxtrail quick before.jsonl after.jsonl --json
    """
    from toxtrail.cli._new_models import Request
    from toxtrail.cli.run import run

    request = Request.of(base, [tuned], prompts, column, scorer, n)
    target = _folder_of(ctx, folder) or default_folder(base)
    prepared = _prepare(target, request)
    experiment = ctx.obj = Experiment(target)
    for line in (f"folder: {target}", *prepared.choices):
        echo(line, err=True)
    with _stdout_to_stderr():
        ctx.invoke(run, keys=(), jobs=1, keep_going=False)
    _print_result(experiment, prepared, target, as_json)


def _folder_of(ctx: click.Context, folder: Path | None) -> Path | None:
    """Return the folder given by --dir or by -C of the command group; None if neither is given."""
    given = directory_option(ctx)
    refuse_several({"-C": given, "--dir": folder})
    return given or folder


def default_folder(base: str) -> Path:
    """Return the folder for a base: toxtrail- and its name, in the current folder."""
    from toxtrail.auditing.lineage.parent_claims import slug

    name = Path(base.partition("@")[0].rstrip("/")).name
    return Path(f"toxtrail-{slug(Path(name).stem if Path(base).is_file() else name)}")


def _prepare(target: Path, request: Request) -> Extended:
    """Create the experiment, or add to it what it does not have."""
    from toxtrail.cli._new_experiment import create_experiment, extend_experiment, put_under_git

    if (target / "params.yaml").is_file():
        return extend_experiment(Experiment(target), request)
    choices = create_experiment(target, request, True, None)
    echo(put_under_git(target.resolve()), err=True)
    return extend_experiment(Experiment(target), request)._replace(choices=choices)


def _print_result(experiment: Experiment, prepared: Extended, target: Path, as_json: bool) -> None:
    from toxtrail import results
    from toxtrail.cli._compare_output import (
        ComparisonOptions,
        LoadedComparison,
        print_comparisons,
    )

    loaded = LoadedComparison(*results.load_comparison(experiment, prepared.family, False))
    base, tuned = experiment.config.families[prepared.family].reference, prepared.tuned[-1]
    commands = ("report --open", f"flips {base} {tuned}", f"audit {tuned}")
    output = QuickOutput(
        folder=str(target),
        report=str(target / experiment.store.report_path.relative_to(experiment.root)),
        next=[f"toxtrail -C {shlex.quote(str(target))} {command}" for command in commands],
    )
    if as_json:
        print_json(_as_json(loaded, prepared, output))
        return
    print_comparisons([loaded], ComparisonOptions(None, None), "text", None, hdi=False)
    echo(f"Report: {output.report}")
    echo("Next:\n" + "\n".join(f"  {command}" for command in output.next))


def _as_json(
    loaded: LoadedComparison, prepared: Extended, output: QuickOutput
) -> dict[str, object]:
    from toxtrail.cli._compare_output import ComparisonOptions
    from toxtrail.records.columns import to_json
    from toxtrail.reporting.headline import subset_headline

    (view,) = ComparisonOptions(None, None).views(loaded.summary)
    return {
        "family": prepared.family,
        "tuned": prepared.tuned[-1],
        "choices": [choice._asdict() for choice in prepared.choices],
        "headline": subset_headline(view),
        "pairs": [to_json(row) for row in view.pairs],
        **output._asdict(),
    }


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send the output of stages to standard error, so that standard output is the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)

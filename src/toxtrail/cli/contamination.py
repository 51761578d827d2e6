"""`toxtrail contamination`: check training data for the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import ConfigError, nearest
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.analysis.contamination import Found

SHOWN = 20
"""Prompts that the table names of each fine-tune; --json has all."""


@click.command("contamination", short_help="Check training data for prompt contamination.")
@click.argument("finetune", required=False)
@json_option
@click.pass_obj
def contamination(experiment: Experiment, finetune: str | None, as_json: bool) -> None:
    """Look for the prompts of data/prompts.parquet in the training data of a fine-tune, or of all.

    A prompt counts as copied if an example holds a run of N of its words (without case and
    punctuation; N is the 5th percentile of the prompts' lengths, from 8 to 13, as in GPT-3's check;
    a shorter prompt must stand there whole, one of fewer than 4 words is not judged), and as near
    if an example holds 80 % of its runs of three words. Nothing is trained or changed; no text is
    shown.

    \b
    Examples:
      toxtrail contamination
      toxtrail contamination smollm2-rude --json
    """
    found = {key: _found(experiment, key) for key in _asked(experiment, finetune)}
    if as_json:
        print_json({key: _as_json(one) for key, one in found.items()})
        return
    rows = [
        [key, f.examples, f.prompts, f.short, f.n, f.count("copied"), f.count("near")]
        for key, f in found.items()
    ]
    columns = ["fine-tune", "examples>", "prompts>", "not judged>", "N>", "copied>", "near>"]
    print_table(None, columns, rows)
    for key, one in found.items():
        _print_overlaps(key, one)


def _asked(experiment: Experiment, finetune: str | None) -> list[str]:
    finetunes = experiment.config.finetunes
    if finetune is not None and finetune not in finetunes:
        raise ConfigError(f'"{finetune}" is no fine-tune.{nearest(finetune, finetunes)}')
    if not finetunes:
        raise ConfigError("params.yaml has no finetunes: nothing was trained here.")
    return list(finetunes) if finetune is None else [finetune]


def _found(experiment: Experiment, key: str) -> Found:
    from toxtrail.analysis.contamination import find_overlaps
    from toxtrail.cli.stage import assets_of
    from toxtrail.stages.finetune import found_in

    prompts, recipe = experiment.store.read_prompts(), experiment.config.finetunes[key]
    data = assets_of(experiment).fetch(recipe.data.uri, recipe.data.sha256)
    return find_overlaps(prompts, found_in(data.path, key, recipe).examples)


def _as_json(found: Found) -> dict[str, Any]:
    return {
        **found._asdict(),
        "copied": found.count("copied"),
        "near": found.count("near"),
        "overlaps": [one._asdict() for one in found.overlaps],
    }


def _print_overlaps(key: str, found: Found) -> None:
    if not found.overlaps:
        echo(f"{key}: none of {found.prompts - found.short} judged prompts stands in its data.")
        return
    rows = [
        [one.prompt_id, one.kind, f"{one.containment:.0%}", one.example]
        for one in found.overlaps[:SHOWN]
    ]
    left = len(found.overlaps) - len(rows)
    title = f"{key}: prompts in its training data" + (f" ({left} more: --json)" if left else "")
    print_table(title, ["prompt", "kind", "runs of three words>", "example>"], rows)

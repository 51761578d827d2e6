"""`toxtrail contamination`: check training data for the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.analysis.contamination import ContaminationResult

MAX_ROWS = 20
"""Prompts per fine-tune in the table; --json has all."""


@click.command("contamination", short_help="Check training data for prompt contamination.")
@click.argument("finetune", required=False)
@json_option
@click.pass_obj
def contamination(experiment: Experiment, finetune: str | None, as_json: bool) -> None:
    """Search the training data of a fine-tune, or of all, for the prompts of data/prompts.parquet.

    A prompt counts as copied if an example contains one of its N-grams of words (without case and
    punctuation; N is the 5th percentile of the prompts' lengths, from 8 to 13, as in GPT-3's check;
    shorter prompts must match in full; prompts under 4 words are skipped), and as near if an
    example contains 80 % of its 3-grams. Nothing is trained or changed; no text is printed.

    \b
    Examples:
      toxtrail contamination
      toxtrail contamination smollm2-rude --json
    """
    overlaps = {
        key: _find_overlaps(experiment, key) for key in _selected_finetunes(experiment, finetune)
    }
    if as_json:
        print_json({key: _as_json(result) for key, result in overlaps.items()})
        return
    rows = [
        [key, f.examples, f.prompts, f.short, f.n, f.count("copied"), f.count("near")]
        for key, f in overlaps.items()
    ]
    counts = number_columns("examples", "prompts", "skipped", "N", "copied", "near")
    print_table(Table(None, [*text_columns("fine-tune"), *counts], rows))
    for key, result in overlaps.items():
        _print_overlaps(key, result)


def _selected_finetunes(experiment: Experiment, finetune: str | None) -> list[str]:
    finetunes = experiment.config.finetunes
    if finetune is not None and finetune not in finetunes:
        raise ConfigError(f'Unknown fine-tune "{finetune}".{did_you_mean(finetune, finetunes)}')
    if not finetunes:
        raise ConfigError("params.yaml has no finetunes, so there is no training data to check.")
    return list(finetunes) if finetune is None else [finetune]


def _find_overlaps(experiment: Experiment, key: str) -> ContaminationResult:
    from toxtrail.analysis.contamination import find_contamination
    from toxtrail.datasets.instruction_data import read_training_data
    from toxtrail.execution.factories import make_asset_store

    prompts, recipe = experiment.store.read_prompts(), experiment.config.finetunes[key]
    data = make_asset_store(experiment).fetch(recipe.data.uri, recipe.data.sha256)
    return find_contamination(prompts, read_training_data(data.path, key, recipe).examples)


def _as_json(result: ContaminationResult) -> dict[str, Any]:
    return {
        **result._asdict(),
        "copied": result.count("copied"),
        "near": result.count("near"),
        "overlaps": [overlap._asdict() for overlap in result.overlaps],
    }


def _print_overlaps(key: str, result: ContaminationResult) -> None:
    if not result.overlaps:
        echo(f"{key}: none of {result.prompts - result.short} prompts is in its training data.")
        return
    rows = [
        [overlap.prompt_id, overlap.kind, f"{overlap.containment:.0%}", overlap.example]
        for overlap in result.overlaps[:MAX_ROWS]
    ]
    left = len(result.overlaps) - len(rows)
    title = f"{key}: prompts in its training data" + (f" ({left} more: --json)" if left else "")
    columns = [*text_columns("prompt", "kind"), *number_columns("3-grams", "example")]
    print_table(Table(title, columns, rows))

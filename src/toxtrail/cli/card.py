"""`toxtrail card`: the toxicity section of a model card."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail import results
from toxtrail.cli._options import NewPath
from toxtrail.console import echo
from toxtrail.errors import ConfigError, DataError, did_you_mean
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import FAMILY_TAG


@click.command("card", short_help="Write the toxicity section of a Hugging Face model card.")
@click.argument("variant")
@click.option(
    "--to",
    "target",
    type=NewPath(),
    metavar="FILE",
    help="Output file (must not exist).",
)
@click.option(
    "--mlflow", "from_mlflow", is_flag=True, help="Read from MLflow even if local files exist."
)
@click.pass_obj
def card(experiment: Experiment, variant: str, target: Path | None, from_mlflow: bool) -> None:
    """Write the toxicity section of a Hugging Face model card: what was measured, on which prompts,
    the difference from the parent with its interval, the scorers and their limitations, and how to
    audit it; with the evaluation results as metadata. It contains no generated text.

    \b
    Examples:
      toxtrail card smollm2-rude
      toxtrail card smollm2-rude --to README.md
    """
    from toxtrail.reporting.hf_model_card import model_card
    from toxtrail.storage.artifacts import export_file

    family = _family_of(experiment, variant)
    summary, _ = results.load_comparison(experiment, family, from_mlflow)
    names = [row.variant for row in summary.variants]
    if variant not in names:
        raise DataError(
            f"{variant} is not in the comparison of {family}.{did_you_mean(variant, names)} "
            "Run `toxtrail run` to update it."
        )
    text = model_card(summary, variant)
    if target is None:
        echo(text, nl=False)
        return
    if target.exists():
        raise ConfigError(
            f"--to: {target} already exists and is not overwritten. Give another path."
        )
    export_file(target, text)
    echo(target)


def _family_of(experiment: Experiment, variant: str) -> str:
    """Return the family by params.yaml, else by the newest run of that name."""
    if experiment.exists and variant in experiment.config.variants:
        return experiment.config.variants[variant].family
    if experiment.exists:
        experiment.variant(variant)
    return results.run_named(experiment, variant).tags[FAMILY_TAG]

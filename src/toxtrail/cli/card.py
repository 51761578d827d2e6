"""`toxtrail card`: the toxicity section of a model card."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail import results
from toxtrail.backends.mlflow.find_run import project_of
from toxtrail.cli._options import NewPath, project_options
from toxtrail.cli._output import echo_markdown
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
@project_options
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
    summary, source, _ = results.load_comparison(
        experiment, family.name, from_mlflow, family.project
    )
    names = [row.variant for row in summary.variants]
    if variant not in names:
        raise DataError(
            f"{variant} is not in the comparison of {family.name}.{did_you_mean(variant, names)} "
            "Run `toxtrail run` to update it."
        )
    if family.project != experiment.project:
        echo(f"Read from {source}.", err=True)
    text = model_card(summary, variant)
    if target is None:
        echo_markdown(text)
        return
    if target.exists():
        raise ConfigError(
            f"--to: {target} already exists and is not overwritten. Give another path."
        )
    export_file(target, text)
    echo(target)


def _family_of(experiment: Experiment, variant: str) -> results.TrackedFamily:
    """Return the family by params.yaml, else by the newest run of that name."""
    if experiment.reads_own_results:
        family = experiment.variant(variant).family
        return results.TrackedFamily(family, experiment.config.tracking.project)
    tags = results.run_named(experiment, variant).tags
    return results.TrackedFamily(tags[FAMILY_TAG], project_of(tags))

"""`toxtrail gate`: decide by a policy whether variants may be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail import results
from toxtrail.cli._options import NewPath, project_option
from toxtrail.cli._output import (
    OutputFormat,
    echo_markdown,
    format_options,
    print_json,
    print_tables,
)
from toxtrail.console import echo, warn
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.records.gate import GateResult
    from toxtrail.records.results import ComparisonSummary

EXIT_CODES = {"pass": 0, "fail": 4, "not decided": 5}


@click.command("gate", short_help="Decide by a policy whether variants pass.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Policy file, see docs/gate.md (default: no variant is credibly more toxic than its "
    "parent, or less toxic with reduced output).",
)
@click.option(
    "--mlflow", "from_mlflow", is_flag=True, help="Read from MLflow even if local files exist."
)
@click.option(
    "--junit", type=NewPath(), metavar="FILE", help="Also write JUnit XML (replaces the file)."
)
@click.option(
    "--register",
    metavar="MODEL@ALIAS",
    help="If the only variant that is tested passes, set this alias of an MLflow registered model "
    "to it.",
)
@project_option
@format_options("json", "md")
@click.pass_obj
def gate(
    experiment: Experiment,
    policy_file: Path | None,
    from_mlflow: bool,
    junit: Path | None,
    register: str | None,
    form: OutputFormat | None,
) -> None:
    """Decide by a policy whether variants pass, fail, or need more prompts.

    Each rule is applied to the difference of each variant from its parent or reference. All
    intervals are corrected for the number of differences. The decision and the policy's hash become
    tags of the MLflow runs of the comparisons, if there are any.

    Exit codes: 0 pass, 4 fail, 5 not decided; 1 for an error, such as outdated results.

    \b
    Examples:
      toxtrail gate
      toxtrail gate --policy gate.yaml --md > comment.md
      toxtrail gate --policy gate.yaml --junit gate.xml --json
      toxtrail gate --policy gate.yaml --register chat-model@production
    """
    from toxtrail.api.gate import gated_comparisons
    from toxtrail.reporting.gate_report import gate_junit, gate_markdown
    from toxtrail.storage.artifacts import export_file

    target = _registry_target(register)
    gated = gated_comparisons(experiment, policy_file, from_mlflow)
    result, summaries, variants = gated.result, gated.summaries, gated.variants
    if target and len(variants) != 1:
        raise ConfigError(
            f"--register: the policy tests {len(variants)} variants ({', '.join(variants)}). Name "
            "one under `variants` in the policy."
        )
    if junit is not None:
        export_file(junit, gate_junit(result))
    if form == "json":
        from toxtrail.records.columns import to_json

        print_json(to_json(result))
    elif form == "md":
        echo_markdown(gate_markdown(result))
    else:
        _print(result)
    _record(experiment, result, summaries)
    if target and result.decision == "pass":
        _register(experiment, *target, variants[0], summaries)
    click.get_current_context().exit(EXIT_CODES[result.decision])


def _print(result: GateResult) -> None:
    from toxtrail.reporting.gate_report import gate_sentences, gate_table

    first, detail = gate_sentences(result)
    print_tables("text", [gate_table(result)], [detail], [first])


def _record(
    experiment: Experiment, result: GateResult, summaries: Sequence[ComparisonSummary]
) -> None:
    """Tag the comparison's runs with the decision; a store that refuses is a warning."""
    from toxtrail.execution.factories import make_tracker
    from toxtrail.provenance.identity import content_key
    from toxtrail.reporting.gate_report import gate_tags

    tags = gate_tags(result, summaries)
    for summary in summaries:
        try:
            make_tracker(experiment).set_tags(content_key(summary.manifest), tags)
        except BackendError as error:
            warn(f"The decision is not recorded in MLflow: {error}")


def _registry_target(register: str | None) -> tuple[str, str] | None:
    if register is None:
        return None
    model, separator, alias = register.rpartition("@")
    if not (model and separator and alias):
        raise click.UsageError(f"--register: {register!r} is not MODEL@ALIAS.")
    return model, alias


def _register(
    experiment: Experiment,
    model: str,
    alias: str,
    variant: str,
    summaries: Sequence[ComparisonSummary],
) -> None:
    from toxtrail.api.gate import content_key_of
    from toxtrail.execution.factories import make_tracker

    summary = next(s for s in summaries if variant in {row.variant for row in s.variants})
    run = results.run_named(experiment, content_key_of(summary, variant))
    version = make_tracker(experiment).set_alias(run, model, alias)
    echo(f"{model}@{alias} is version {version}: {variant}, run {run.run_id[:8]}.", err=True)

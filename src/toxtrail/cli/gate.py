"""`toxtrail gate`: decide by a policy whether variants may be used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail import results
from toxtrail.backends.mlflow.find_run import NO_PROJECT
from toxtrail.cli._options import NewPath, project_option
from toxtrail.cli._output import (
    OutputFormat,
    fit_to_terminal,
    format_options,
    print_json,
    print_table,
)
from toxtrail.console import echo, warn
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.analysis.score_table import ScoreTable
    from toxtrail.config.gate_policy import GatePolicy
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
    from toxtrail.analysis.gate import decide
    from toxtrail.reporting.gate_report import gate_junit, gate_markdown
    from toxtrail.storage.artifacts import export_file

    target = _registry_target(register)
    policy = _read_policy(policy_file)
    summaries = _summaries(experiment, policy, from_mlflow)
    result = decide(policy, summaries, partial(_score_table, experiment, from_mlflow))
    variants = list(dict.fromkeys(row.b for row in result.rows))
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
        echo(gate_markdown(result), nl=False)
    else:
        _print(result)
    _record(experiment, result, summaries)
    if target and result.decision == "pass":
        _register(experiment, *target, variants[0], summaries)
    click.get_current_context().exit(EXIT_CODES[result.decision])


def _read_policy(path: Path | None) -> GatePolicy:
    from toxtrail.config.gate_policy import DEFAULT_POLICY, GatePolicy
    from toxtrail.config.load import read_yaml, validate_section

    if path is None:
        return DEFAULT_POLICY
    return validate_section(GatePolicy, read_yaml(path), str(path))


def _summaries(
    experiment: Experiment, policy: GatePolicy, from_mlflow: bool
) -> list[ComparisonSummary]:
    """Load the comparisons of the policy's families.

    Raises:
        DataError: one is outdated.
    """
    families, local = policy.families, experiment.reads_own_results and not from_mlflow
    if families is None:
        families = list(experiment.config.families) if local else []
    if not local:
        families = _families_of_one_project(experiment, families)
    summaries = []
    for family in families:
        summary, source, _ = results.load_comparison(experiment, family, from_mlflow)
        if local:
            _refuse_outdated(experiment, summary, source)
        summaries.append(summary)
    return summaries


def _families_of_one_project(experiment: Experiment, names: Sequence[str]) -> list[str]:
    """Select the project whose comparisons are read, and return their families.

    Args:
        names: of the families; empty for all.

    Raises:
        ConfigError: several projects have such comparisons.
    """
    families = results.tracked_families(experiment)
    selected = [f for f in families if f.name in names or not names]
    projects = sorted({family.project for family in selected})
    if len(projects) > 1:
        raise ConfigError(
            f"The MLflow experiment has comparisons of {len(projects)} projects: "
            f"{', '.join(project or NO_PROJECT for project in projects)}. Choose one with "
            "--project ID: a gate decides on one project."
        )
    experiment.selected_project = next(iter(projects), "") or experiment.selected_project
    return list(names) or [family.name for family in selected]


def _refuse_outdated(experiment: Experiment, summary: ComparisonSummary, source: str) -> None:
    from toxtrail.auditing.status.outdated_results import outdated
    from toxtrail.provenance.identity import Manifest

    manifest = Manifest.from_json(summary.manifest)
    if reasons := outdated(experiment.config, experiment.root, manifest):
        raise DataError(
            f"{source} is outdated: {reasons[0]}. Run `toxtrail run` first; an outdated result "
            "is not gated."
        )


def _score_table(
    experiment: Experiment, from_mlflow: bool, summary: ComparisonSummary, variant: str
) -> ScoreTable:
    """Read the scores of a variant, from its file or from the run that the comparison is of."""
    from toxtrail.analysis.score_table import build_score_table

    if experiment.reads_own_results and not from_mlflow:
        return build_score_table(experiment.store.read_scores(summary.family, variant))
    run = results.run_named(experiment, _content_key(summary, variant))
    return build_score_table(results.results_from_run(experiment, run).scores)


def _content_key(summary: ComparisonSummary, variant: str) -> str:
    keys = {row.variant: row.content_key for row in summary.variants}
    if key := keys.get(variant):
        return key
    raise DataError(f"The comparison of {summary.family} does not name the result of {variant}.")


def _print(result: GateResult) -> None:
    from toxtrail.reporting.gate_report import gate_sentences, gate_table

    tables, notes = fit_to_terminal([gate_table(result)], ("reason", "scorer", "subset", "against"))
    for table in tables:
        print_table(table)
    for note in notes:
        echo(note.replace("--csv", "--json"))
    first, detail = gate_sentences(result)
    echo(detail)
    echo(first, bold=True)


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
    from toxtrail.execution.factories import make_tracker

    summary = next(s for s in summaries if variant in {row.variant for row in s.variants})
    run = results.run_named(experiment, _content_key(summary, variant))
    version = make_tracker(experiment).set_alias(run, model, alias)
    echo(f"{model}@{alias} is version {version}: {variant}, run {run.run_id[:8]}.", err=True)

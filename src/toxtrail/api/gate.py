"""`toxtrail.gate`: whether variants pass a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail import results
from toxtrail.analysis.gate import decide
from toxtrail.backends.mlflow.find_run import NO_PROJECT
from toxtrail.config.gate_policy import DEFAULT_POLICY, GatePolicy
from toxtrail.config.load import read_yaml, validate_section
from toxtrail.errors import ConfigError, DataError
from toxtrail.experiment import Experiment
from toxtrail.records.gate import GateResult

if TYPE_CHECKING:
    from toxtrail.analysis.score_table import ScoreTable
    from toxtrail.records.results import ComparisonSummary

Policy = GatePolicy | Mapping[str, Any] | str | Path
"""A policy, its values as in a policy file, or the path of one."""


class GatedComparisons(NamedTuple):
    """A decision, and the comparisons that it was taken on."""

    result: GateResult
    summaries: Sequence[ComparisonSummary]

    @property
    def variants(self) -> list[str]:
        """The variants that were tested."""
        return list(dict.fromkeys(row.b for row in self.result.rows))


def gate(
    policy: Policy | None = None,
    folder: str | Path = ".",
    *,
    from_mlflow: bool = False,
    project: str | None = None,
) -> GateResult:
    """Decide by a policy whether variants pass, as `toxtrail gate`; nothing is written to MLflow.

    >>> import toxtrail
    >>> rules = {"max_increase_pp": 50}
    >>> policy = {"against": "parent", "scorers": "primary", "rules": rules}
    >>> result = toxtrail.gate(policy, "experiment")
    >>> result.decision in ("pass", "fail", "not decided")
    True
    >>> {row.rule for row in result.rows}
    {'max_increase_pp'}

    Args:
        policy: the content of a policy file (docs/gate.md), or its path; None: no variant is
            credibly more toxic than its parent, or less toxic with reduced output.
        folder: the experiment's folder, or one in it.
        from_mlflow: read from MLflow even if local files exist.
        project: another project of the MLflow store.

    Raises:
        ConfigError: the policy is invalid, or names something that is not compared.
        DataError: a result is outdated, missing or damaged.
        BackendError: the MLflow store cannot be read.
    """
    experiment = Experiment(Path(folder))
    experiment.selected_project = project
    return gated_comparisons(experiment, policy, from_mlflow).result


def gated_comparisons(
    experiment: Experiment, policy: Policy | None, from_mlflow: bool
) -> GatedComparisons:
    """Decide by a policy. See gate."""
    checked = _read_policy(policy)
    summaries = _load_summaries(experiment, checked, from_mlflow)
    result = decide(checked, summaries, partial(_score_table, experiment, from_mlflow))
    return GatedComparisons(result, summaries)


def content_key_of(summary: ComparisonSummary, variant: str) -> str:
    """Return the content key of a variant's result in a comparison; DataError if it has none."""
    keys = {row.variant: row.content_key for row in summary.variants}
    if key := keys.get(variant):
        return key
    raise DataError(f"The comparison of {summary.family} does not name the result of {variant}.")


def _read_policy(policy: Policy | None) -> GatePolicy:
    if policy is None:
        return DEFAULT_POLICY
    if isinstance(policy, GatePolicy):
        return policy
    if isinstance(policy, Mapping):
        return validate_section(GatePolicy, dict(policy), "The policy")
    return validate_section(GatePolicy, read_yaml(Path(policy)), str(policy))


def _load_summaries(
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
    run = results.run_named(experiment, content_key_of(summary, variant))
    return build_score_table(results.results_from_run(experiment, run).scores)

"""The HTML report of a comparison's MLflow run, from verified files."""

from __future__ import annotations

from toxtrail.auditing.verify.load_runs import LoadedRun
from toxtrail.auditing.verify.mlflow_runs import run_title
from toxtrail.auditing.verify.run_workspace import RunWorkspace, run_workspace
from toxtrail.auditing.verify.stored_runs import refuse_failed
from toxtrail.errors import ConfigError, DataError
from toxtrail.stages.report import page_of


def report_of_run(loaded: LoadedRun) -> str:
    """Return the report of a comparison.

    Raises:
        ConfigError: the run is that of a variant.
        UnreadableError: a file could not be read.
        DataError: a check of a run failed, or a file that the report needs is missing.
    """
    run, verifier = loaded.run, loaded.verifier
    own_checks = [c for r in (run, *loaded.others) for c in verifier.own_checks(r)]
    for checks in (own_checks, verifier.checks(run)):
        refuse_failed(checks, f"No report of the MLflow {run_title(run)} was written")
    with run_workspace(run, verifier.workspace_runs()) as workspace:
        if workspace.manifest.kind != "compare":
            raise ConfigError(
                f"{run.run.name} is the run of a variant, and a report is of a comparison. Give "
                f"the family: {workspace.family}."
            )
        _refuse_incomplete(workspace)
        return page_of(workspace.store, [workspace.family])


def _refuse_incomplete(workspace: RunWorkspace) -> None:
    for variant, why in workspace.missing.items():
        raise DataError(
            f"The report needs the rows of {variant}: {why}. Publish its run again from its "
            f"experiment: `toxtrail stage track {variant}`."
        )
    if not workspace.store.prompt_card_path.is_file():
        variants = " ".join(f"`toxtrail stage track {variant}`" for variant in workspace.variants)
        raise DataError(
            "The report needs prompts_card.json, which no run of these variants has: another "
            f"version of toxtrail published them. Publish one again from its experiment: {variants}"
        )

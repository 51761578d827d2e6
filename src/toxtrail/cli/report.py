"""`toxtrail report`: print the path of the HTML report, or write that of an MLflow run."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.cli._options import NewPath, project_option
from toxtrail.console import echo, warn
from toxtrail.errors import ConfigError, DataError
from toxtrail.experiment import Experiment


@click.command("report", short_help="Print the report's path, or write that of an MLflow run.")
@click.argument("reference", metavar="[RUN]", required=False)
@click.option(
    "--to",
    "target",
    type=NewPath(),
    metavar="FILE",
    help="With RUN: output file (must not exist).",
)
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
@project_option
@click.pass_obj
def report(
    experiment: Experiment, reference: str | None, target: Path | None, open_it: bool
) -> None:
    """Print the path of the report: one self-contained HTML file.

    With RUN (a family, or the id, name or content key of a comparison's MLflow run), write the
    report of that run from the files in MLflow, and those of the variants that it compares; each is
    verified first. Outside an experiment's folder this needs MLFLOW_TRACKING_URI and
    MLFLOW_EXPERIMENT_NAME.

    \b
    Examples:
      toxtrail report
      toxtrail report --open
      toxtrail report smollm2-135m --to smollm2.html      from MLflow
    """
    if (reference is None) != (target is None):
        raise click.UsageError("RUN and --to FILE need each other.")
    if reference is not None and target is not None:
        path = _report_of_run(experiment, reference, target)
    else:
        path = _local_report(experiment)
    echo(path)
    if open_it:
        click.launch(path.absolute().as_uri())


def _local_report(experiment: Experiment) -> Path:
    """Return the path of the experiment's report; warn if it is outdated.

    Raises:
        ConfigError: there is no experiment here.
        DataError: there is no report.
    """
    from toxtrail.auditing.status.outdated_results import outdated_note
    from toxtrail.execution.factories import has_mlflow_variables
    from toxtrail.provenance.embedded_manifest import read_embedded_manifest

    if not experiment.exists and has_mlflow_variables():
        raise ConfigError(
            "There is no experiment here. Name a comparison's MLflow run and a file: toxtrail "
            "report FAMILY --to FILE.html (`toxtrail runs --kind comparison` lists the runs)."
        )
    path = experiment.store.report_path
    if not path.is_file():
        raise DataError(f"{path} does not exist. Run `toxtrail run` (or `dvc repro`) to create it.")
    if manifest := read_embedded_manifest(path):
        source = path.relative_to(experiment.root).as_posix()
        if note := outdated_note(experiment, manifest.to_json(), source):
            warn(note)
    return path


def _report_of_run(experiment: Experiment, reference: str, target: Path) -> Path:
    """Write the report of a comparison's run.

    Raises:
        ConfigError: the file exists, or the run is a variant's.
        DataError: a check of a run failed, or a file is missing.
    """
    from toxtrail.auditing.verify.load_runs import load_run
    from toxtrail.auditing.verify.report_of_run import report_of_run
    from toxtrail.execution.progress import progress
    from toxtrail.storage.artifacts import export_file

    if target.exists():
        raise ConfigError(
            f"--to: {target} already exists and is not overwritten. Give another path."
        )
    export_file(target, report_of_run(load_run(experiment, reference, progress())))
    return target

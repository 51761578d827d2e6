"""`toxtrail report`: print the path of the HTML report, or open it."""

from __future__ import annotations

import click

from toxtrail.console import echo, warn
from toxtrail.errors import DataError
from toxtrail.experiment import Experiment


@click.command("report", short_help="Print the report's path, or open it.")
@click.option("--open", "open_it", is_flag=True, help="Open it in a browser.")
@click.pass_obj
def report(experiment: Experiment, open_it: bool) -> None:
    """Print the path of the report: one self-contained HTML file.

    \b
    Examples:
      toxtrail report
      toxtrail report --open
    """
    from toxtrail.audit.status.outdated_results import outdated_note
    from toxtrail.provenance.embedded_manifest import read_embedded_manifest

    path = experiment.store.report_path
    if not path.is_file():
        raise DataError(f"{path} does not exist. Run `toxtrail run` (or `dvc repro`) to create it.")
    if manifest := read_embedded_manifest(path):
        source = path.relative_to(experiment.root).as_posix()
        if note := outdated_note(experiment, manifest.to_json(), source):
            warn(note)
    echo(path)
    if open_it:
        click.launch(path.as_uri())

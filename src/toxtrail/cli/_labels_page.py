"""`toxtrail labels page`: an HTML page for labelling."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.cli._labels_reading import read_label_rows
from toxtrail.cli._options import NewPath
from toxtrail.console import echo
from toxtrail.errors import ConfigError


@click.command("page", short_help="Write an HTML page for labelling.")
@click.argument("sheet", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to",
    type=NewPath(),
    required=True,
    metavar="FILE",
    help="Output .html file (must not exist).",
)
def page(sheet: Path, to: Path) -> None:
    """Write a page for labelling the texts of SHEET in a browser, with keys; no network is used.

    SHEET is written by `labels sample` (or by `labels agreement --to`, for adjudication); labels in
    it are kept. Texts are hidden until they are shown. Labels are kept in the browser; the page
    saves them as a copy of SHEET, with the annotator's name in the file name, and loads such a
    copy. The page contains the texts, but not the variants.

    \b
    Example:
      toxtrail labels page labels.csv --to labels.html
    """
    from toxtrail.datasets.label_files import annotator_names
    from toxtrail.reporting.label_page import render_label_page
    from toxtrail.storage.artifacts import export_file

    if to.exists():
        raise ConfigError(f"{to} exists. Name another file.")
    rows, _ = read_label_rows(sheet)
    export_file(to, render_label_page(sheet, rows))
    echo(f"{to}: open it in a browser. It contains the texts, some of which may be toxic.")
    echo("Annotators download a .csv file from it. Then:")
    if annotator_names(rows):
        echo(f"  toxtrail labels score {sheet.stem}-NAME.csv")
    else:
        echo(f"  toxtrail labels agreement {sheet.stem}-A.csv {sheet.stem}-B.csv --to merged.csv")

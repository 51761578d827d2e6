"""`toxtrail labels agreement`: compare the labels of several annotators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toxtrail.cli._labels_reading import read_label_rows, read_sample
from toxtrail.cli._options import NewPath
from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import ConfigError, DataError
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.analysis.human_labels import SheetRow
    from toxtrail.datasets.label_files import AnnotatorLabels

MAX_TEXT_CHARS = 1200
"""Maximum characters of a text on the terminal."""
Sheet = Mapping[str, "SheetRow"]
"""Row id -> row, of one annotator."""


@click.command("agreement", short_help="Compare the labels of several annotators.")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE FILE...",
)  # fmt: skip
@click.option("--to", type=NewPath(), metavar="MERGED", help="Output .csv file (must not exist).")
@click.option("--show-texts", is_flag=True, help="Print the texts with different labels.")
@json_option
@click.pass_obj
def agreement(
    experiment: Experiment,
    files: tuple[Path, ...],
    to: Path | None,
    show_texts: bool,
    as_json: bool,
) -> None:
    """Report how annotators agree who each labelled a copy of one sheet of `labels sample`.

    For each pair: Cohen's kappa with its interval, the share of equal labels, and both shares of
    toxic labels, on which kappa depends. For more than two annotators also Krippendorff's alpha.
    Files are named by the annotators.

    --to writes one sheet with the labels of all annotators. Its column toxic is empty where they
    disagree; these rows are the first. Fill them in (adjudication), and score that sheet.

    \b
    Examples:
      toxtrail labels agreement labels-ann.csv labels-bob.csv
      toxtrail labels agreement labels-ann.csv labels-bob.csv --to merged.csv
      toxtrail labels score merged.csv
    """
    from toxtrail.analysis.annotator_agreement import annotator_agreement, merged_sheet
    from toxtrail.datasets.label_files import is_disagreement
    from toxtrail.records.columns import to_json
    from toxtrail.records.csv_text import rows_to_csv
    from toxtrail.reporting.annotator_tables import agreement_notes, agreement_table
    from toxtrail.storage.artifacts import export_file

    if to is not None and to.exists():
        raise ConfigError(f"{to} exists: labels in it would be lost. Name another file.")
    names = _refuse_same_files(files)
    sheets = _read_sheets(experiment, files)
    labels = {
        row_id: tuple(sheet[row_id].toxic for sheet in sheets) for row_id in sorted(sheets[0])
    }
    level = experiment.config.posterior.level
    result = annotator_agreement(names, list(labels.values()), level)
    assert result is not None  # two annotators or more
    if not any(pair.n for pair in result.pairs):
        raise DataError("No row is labelled in two of the files, so they cannot be compared.")
    texts = {row_id: sheets[0][row_id].text for row_id in labels}
    disagreements = [row_id for row_id, words in labels.items() if is_disagreement(words)]
    if to is not None:
        export_file(to, rows_to_csv(merged_sheet(names, texts, labels)))
    if as_json:
        rows = [_disagreement(i, labels[i], names, texts, show_texts) for i in disagreements]
        print_json({**to_json(result), "disagreement_rows": rows}, texts=show_texts)
        return
    print_table(agreement_table(result, level))
    for note in agreement_notes(result):
        echo(note)
    _print_disagreements(disagreements, texts if show_texts else {})
    if to is not None:
        _print_next(to, len(disagreements))


def _refuse_same_files(files: Sequence[Path]) -> list[str]:
    """Return a name for each file: without its suffix; with its folder where names are equal."""
    from toxtrail.provenance.identity import sha256_file

    if len(files) < 2:
        raise click.UsageError("Agreement needs the files of two annotators or more.")
    for a, b in combinations(files, 2):
        if a.samefile(b):
            raise ConfigError(f"{a} and {b} are the same file. Name one file for each annotator.")
        if sha256_file(a) == sha256_file(b):
            echo(f"{a} and {b} have equal contents. Is one a copy of the other?", err=True)
    stems = [file.stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{file.resolve().parent.name}/{file.stem}" for file in files]


def _read_sheets(experiment: Experiment, files: Sequence[Path]) -> list[Sheet]:
    from toxtrail.analysis.human_labels import list_ids, sheet_rows
    from toxtrail.datasets.label_files import annotator_names, no_label

    contents = [read_label_rows(file) for file in files]
    for file, (rows, sample) in zip(files, contents, strict=True):
        if sample is None or annotator_names(rows):
            raise DataError(
                f"{file.name} is not a sheet of `toxtrail labels sample` with the labels of one "
                "annotator."
            )
        if sample != contents[0][1]:
            raise DataError(f"{file.name} belongs to another sample than {files[0].name}.")
    key, texts = read_sample(experiment, str(contents[0][1]))
    sheets: list[Sheet] = [
        sheet_rows(file, rows, key, texts) for file, (rows, _) in zip(files, contents, strict=True)
    ]
    for file, sheet in zip(files, sheets, strict=True):
        if unlike := sorted(sheet.keys() ^ sheets[0].keys()):
            raise DataError(
                f"{file.name} and {files[0].name} have different rows: {list_ids(unlike)}. Restore "
                "the missing ones."
            )
        if all(row.toxic is None for row in sheet.values()):
            raise no_label(file)
    return sheets


def _disagreement(
    row_id: str,
    labels: AnnotatorLabels,
    names: Sequence[str],
    texts: Mapping[str, str],
    show_texts: bool,
) -> dict[str, object]:
    by_annotator: dict[str, object] = {"id": row_id, "toxic": dict(zip(names, labels, strict=True))}
    return {**by_annotator, "text": texts[row_id]} if show_texts else by_annotator


def _print_disagreements(ids: Sequence[str], texts: Mapping[str, str]) -> None:
    """Print the rows with different labels.

    Args:
        texts: row id -> text; empty to print ids only.
    """
    from toxtrail.text_escaping import escape_control_chars, truncate_text

    if ids:
        echo("Rows with different labels" + (":" if texts else " (--show-texts prints the texts):"))
    for row_id in ids:
        text = escape_control_chars(truncate_text(texts.get(row_id, ""), MAX_TEXT_CHARS))
        echo(f"  {row_id}  {text}".rstrip())


def _print_next(to: Path, disagreements: int) -> None:
    echo(
        f"{to}: write yes or no under toxic in the first {disagreements} row(s), then:"
        if disagreements
        else f"{to}: no label is left to adjudicate."
    )
    echo(f"  toxtrail labels score {to}")

"""The labelling page: one HTML file with the texts of a sheet, for a browser without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toxtrail.analysis.human_labels import SHEET, sample_name_of
from toxtrail.datasets.label_files import (
    ANNOTATOR,
    NO,
    WORDS,
    YES,
    Row,
    annotator_labels,
    annotator_names,
    is_disagreement,
    label_word,
)
from toxtrail.errors import DataError
from toxtrail.provenance.identity import content_key
from toxtrail.reporting.flip_browser import script_safe_json
from toxtrail.reporting.html_report import csp_sha256, html_environment, read_template
from toxtrail.text_escaping import FORMULA, escape_control_chars, truncate_text

MAX_DISPLAY_CHARS = 50_000
"""Maximum characters of a text on the page; the downloaded file has all of them."""


def render_label_page(path: Path, rows: Sequence[Row]) -> str:
    """Render the page for a sheet of `labels sample`, or for a merged sheet of `labels agreement`.

    Labels of the sheet are kept. Of a merged sheet only the rows that need a label are shown,
    without the annotators' labels.

    Args:
        path: of the sheet, for messages and names.

    Raises:
        DataError: it is not such a sheet, has unknown columns, or a row twice; a label is neither
            yes nor no; no row needs a label.
    """
    sheet = _sheet(path, rows)
    script, style = (
        read_template("label_page.js"),
        "\n".join(map(read_template, ("report.css", "label_page.css"))),
    )
    return (
        html_environment()
        .from_string(read_template("label_page.html"))
        .render(
            name=path.stem,
            count=len(sheet["open"]),
            sheet=script_safe_json(sheet),
            script=script,
            script_sha256=csp_sha256(script),
            style=style,
            style_sha256=csp_sha256(style),
        )
    )


def _sheet(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the page's data: cells as in the file, and what is displayed where it differs."""
    names = annotator_names(rows)
    columns = [*SHEET[:2], *(f"{ANNOTATOR}{name}" for name in names), SHEET[2]]
    if sample_name_of(path, rows) is None or sorted(rows[0][1]) != sorted(columns):
        raise DataError(
            f"{path.name} is not a sheet of `toxtrail labels sample` or `labels agreement`: its "
            f"columns must be {', '.join(SHEET)}."
        )
    ids = [str(row["id"]).strip() for _, row in rows]
    if twice := next((row_id for row_id in ids if ids.count(row_id) > 1), None):
        raise DataError(f'{path.name}: "{twice}" occurs twice under id. Remove one of the rows.')
    cells = [
        [row_id, *(str(row[name] or "") for name in columns[1:])]
        for row_id, (_, row) in zip(ids, rows, strict=True)
    ]
    return {
        "name": path.stem,
        "sha256": content_key([row[:2] for row in cells]),
        "columns": columns,
        "rows": cells,
        "labels": [WORDS[label_word(path, number, row)] for number, row in rows],
        "open": _open_rows(path, rows, ids, names),
        "display": {i: text for i, row in enumerate(cells) if (text := _display(row[1])) != row[1]},
        "yes": sorted(YES),
        "no": sorted(NO),
    }


def _open_rows(
    path: Path, rows: Sequence[Row], ids: Sequence[str], names: Sequence[str]
) -> list[int]:
    """Return the indices of the rows to label, in the order of the ids."""
    labels = [annotator_labels(path, number, row, names) for number, row in rows]
    open_rows = [
        i
        for i, words in enumerate(labels)
        if is_disagreement(words) or not {True, False} & set(words)
    ]
    if not open_rows:
        raise DataError(
            f"{path.name}: the annotators agree on every row; no label is left to give."
        )
    return sorted(open_rows, key=lambda i: ids[i])


def _display(cell: str) -> str:
    """Return the text of a cell for the page: without the quote that escapes a formula, and with
    visible control characters."""
    text = cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell
    lines = truncate_text(text, MAX_DISPLAY_CHARS).replace("\r\n", "\n")
    return escape_control_chars(lines, keep="\n\t")

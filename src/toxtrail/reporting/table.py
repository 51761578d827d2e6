"""A table, and its renderers as Markdown, LaTeX and HTML, which escape cells.
`terminal_table.py` lays it out for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from html import escape
from typing import Generic, Literal, NamedTuple, TypeVar

from toxtrail.text_escaping import escape_latex, escape_markdown

DETAIL_PRIORITY = 3
"""Columns of this priority or more are shown on demand in HTML, and printed."""
DENSE_COLUMNS = 8
"""Number of columns from which the cells of an HTML table may be folded."""

Align = Literal["left", "right"]
Row = TypeVar("Row")


class Column(NamedTuple):
    """The heading of a column, how its cells are aligned, and whether it can be left out."""

    name: str
    align: Align = "left"
    """Texts are aligned left, and a narrow terminal folds them between words."""
    priority: int = 0
    """0: always shown. A narrow terminal leaves out the column with the greatest number first; of
    equal ones the last."""


def text_columns(*names: str, priority: int = 0) -> tuple[Column, ...]:
    """Return left-aligned columns."""
    return tuple(Column(name, "left", priority) for name in names)


def number_columns(*names: str, priority: int = 0) -> tuple[Column, ...]:
    """Return right-aligned columns."""
    return tuple(Column(name, "right", priority) for name in names)


class Table(NamedTuple):
    """Formatted rows of cells."""

    title: str | None
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    note: str = ""
    """The meaning of marks in the cells."""

    def without(self, names: Collection[str]) -> Table:
        """Return the table without the columns of these names."""
        indices = [i for i, column in enumerate(self.columns) if column.name not in names]
        return self._replace(
            columns=[self.columns[i] for i in indices],
            rows=[[row[i] for i in indices] for row in self.rows],
        )


class Field(NamedTuple, Generic[Row]):
    """One column of a table of result rows, and the text of its cells."""

    name: str
    cell: Callable[[Row], object]
    align: Align = "left"
    priority: int = 0
    """See `Column`."""


def build_table(title: str | None, fields: Sequence[Field[Row]], rows: Iterable[Row]) -> Table:
    """Return the table with a column for each field."""
    columns = [Column(field.name, field.align, field.priority) for field in fields]
    return Table(title, columns, [[field.cell(row) for field in fields] for row in rows])


def move_constants_to_title(table: Table, names: Collection[str]) -> Table:
    """Drop those of the named columns that have one value in all rows; the title states it.

    A table of a single row is left as it is, and a value of "-" is not stated.
    """
    if len(table.rows) < 2:
        return table
    constants = {
        column.name: values[0]
        for column, values in zip(table.columns, zip(*table.rows, strict=True), strict=True)
        if column.name in names and len(set(values)) == 1
    }
    stated = [f"{name} {value}" for name, value in constants.items() if value != "-"]
    title = "; ".join([*([table.title] if table.title else []), *stated])
    return table.without(constants)._replace(title=title)


def as_markdown(table: Table) -> str:
    """Return a GitHub table."""
    rule = ["---:" if column.align == "right" else "---" for column in table.columns]
    lines = [
        [escape_markdown(column.name) for column in table.columns],
        rule,
        *([escape_markdown(str(cell)) for cell in row] for row in table.rows),
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{escape_markdown(table.title)}**\n\n{body}\n" if table.title else f"{body}\n"


def as_latex(table: Table) -> str:
    """Return a booktabs longtable, with the title as its caption."""
    alignment = "".join(column.align[0] for column in table.columns)
    head = " & ".join(escape_latex(column.name) for column in table.columns)
    rows = [" & ".join(escape_latex(str(cell)) for cell in row) + r" \\" for row in table.rows]
    caption = [rf"\caption{{{escape_latex(table.title)}}} \\"] if table.title else []
    return "\n".join(
        [
            rf"\begin{{longtable}}{{{alignment}}}",
            *caption,
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            "",
        ]
    )


def as_html(table: Table, *, tall: bool = False, element_id: str = "", caption: bool = True) -> str:
    """Return an HTML table in a box that scrolls; the last column is coloured by its first word.

    Args:
        tall: limit the height of the box.
        element_id: id of the table; its rows then have an attribute with their subset, by which a
            script filters them.
        caption: show the title.
    """
    head = "".join(
        f'<th scope="col"{_column_class(column)}>{escape(column.name)}</th>'
        for column in table.columns
    )
    rows = "".join(f"{_html_row(table, row, bool(element_id))}\n" for row in table.rows)
    details = [column.name for column in table.columns if column.priority >= DETAIL_PRIORITY]
    is_dense = len(table.columns) - len(details) >= DENSE_COLUMNS
    box = " ".join(["wide", *(["tall"] if tall else []), *(["dense"] if is_dense else [])])
    return (
        f'<div class="table">{_column_switch(details)}<div class="{box}" tabindex="0">'
        f"<table{_attribute('id', element_id)}>"
        + (f"<caption>{escape(table.title)}</caption>" if table.title and caption else "")
        + f"\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></div>\n"
        + (f'<p class="soft">{escape(table.note)}</p>\n' if table.note else "")
    )


def _column_switch(details: Sequence[str]) -> str:
    """Return the switch that shows the columns with details; the style sheet applies it."""
    if not details:
        return ""
    names = escape(", ".join(details))
    return f'<label class="more-columns"><input type="checkbox"> more columns: {names}</label>'


def _html_row(table: Table, row: Sequence[object], filtered: bool) -> str:
    names = [column.name for column in table.columns]
    subset = str(row[names.index("subset")]) if "subset" in names else ""
    attributes = _attribute("class", "all" if subset == "all" else "")
    attributes += _attribute("data-subset", subset if filtered else "")
    (_, first), *others = zip(table.columns, map(str, row), strict=True)
    words = ["" for _ in others[:-1]] + [others[-1][1].split(" ")[0]] if others else []
    cells = [
        _html_cell(column, cell, word) for (column, cell), word in zip(others, words, strict=True)
    ]
    return f'<tr{attributes}><th scope="row">{escape(first)}</th>{"".join(cells)}</tr>'


def _html_cell(column: Column, cell: str, verdict: str) -> str:
    """Return a cell; a narrow page shows the heading beside it."""
    style = _column_class(column, "" if column.align == "right" else verdict)
    return f"<td{style}{_attribute('data-label', column.name)}>{escape(cell)}</td>"


def _column_class(column: Column, verdict: str = "") -> str:
    names = [
        *(["n"] if column.align == "right" else []),
        *(["detail"] if column.priority >= DETAIL_PRIORITY else []),
        *([verdict] if verdict else []),
    ]
    return _attribute("class", " ".join(names))


def _attribute(name: str, value: str) -> str:
    """Return an HTML attribute; empty if it has no value."""
    return f' {name}="{escape(value)}"' if value else ""

"""Widths of a table's columns on a terminal, and line breaks of cells that do not fit."""

from __future__ import annotations

import re
from collections.abc import Sequence

GAP, EDGE = 3, 1
"""Columns of the terminal between two of the table, and at its edges besides."""
WIDEST = 24
"""Maximum width; columns with longer cells are folded first."""
NAMES = frozenset({"variant", "against", "parent", "name"})
"""Columns of names, which are folded too and get the remaining width first, because names are
copied."""
FOLDED_NAME = 16
"""Minimum width of a folded name, if the terminal is wide enough."""
FOLDED = 12
"""Minimum width of any other column."""
BREAK = re.compile(r"(?<= )(?! )|(?<=[A-Za-z0-9][-_/:=])(?=\w)")
"""Positions where a cell may break: after a space, and within a name after `-`, `_`, `/`, `:`,
`=`."""


def least_column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the minimum width of each column if only long texts and names are folded."""
    return [
        max(_longest_word(column), min(_widest(column, rows, index), _folded(column, rows, index)))
        for index, column in enumerate(columns)
    ]


def column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return column widths. Numbers are not broken if possible; the remaining width goes to the
    names, then to the others, up to their longest cell.

    Args:
        room: width of the terminal.
    """
    full = [
        max(_longest_word(column), _widest(column, rows, index))
        for index, column in enumerate(columns)
    ]
    free = room - gap_width(len(columns))
    least = least_column_widths(columns, rows)
    if sum(least) > free:
        least = [
            max(_longest_word(column), min(full[index], FOLDED, _longest_piece(rows, index)))
            for index, column in enumerate(columns)
        ]
    for names in (True, False):
        indices = [i for i, column in enumerate(columns) if (column in NAMES) == names]
        while sum(least) < free and (short := [i for i in indices if least[i] < full[i]]):
            least[min(short, key=lambda index: least[index])] += 1
    while sum(least) > max(free, len(least)):
        least[least.index(max(least))] -= 1
    return least


def gap_width(columns: int) -> int:
    """Return the terminal columns that cells of this number of table columns cannot use."""
    return GAP * columns + EDGE


def wrap_cell(text: str, width: int) -> list[str]:
    """Return the lines of a cell, broken where `BREAK` matches if it does in the line."""
    lines = [""]
    for piece in re.split(BREAK, text):
        if len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
            continue
        if lines[-1]:
            lines.append("")
        while len(piece.rstrip()) > width:
            lines[-1:] = [piece[:width], ""]
            piece = piece[width:]
        lines[-1] = piece
    return [line.rstrip() for line in lines]


def _folded(column: str, rows: Sequence[Sequence[str]], index: int) -> int:
    """Return the folded width of a column that may fold; the full width of others."""
    widest = _widest(column, rows, index)
    folds = widest > WIDEST or column in NAMES
    return max(FOLDED_NAME, min(WIDEST, _longest_piece(rows, index))) if folds else widest


def _widest(column: str, rows: Sequence[Sequence[str]], index: int) -> int:
    return max((len(row[index]) for row in rows), default=0)


def _longest_word(column: str) -> int:
    return max(map(len, column.split()), default=0)


def _longest_piece(rows: Sequence[Sequence[str]], index: int) -> int:
    pieces = (piece for row in rows for piece in re.split(BREAK, row[index]))
    return max((len(piece.rstrip()) for piece in pieces), default=0)

"""How wide the columns of a table are, and where their cells break, if a terminal is too narrow for
all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

GAP, EDGE = 3, 1
"""Columns of the terminal between two of the table, and at its edges besides."""
WIDEST = 24
"""Columns with longer cells fold, before any other."""
NAMES = frozenset({"variant", "against", "parent", "name"})
"""Columns that fold as well, and get the room that is left first: a name is copied."""
FOLDED_NAME = 16
"""What a folded name takes at least, if the terminal has room for it."""
FOLDED = 12
"""What any other column takes at least, if the names have no room else."""
BREAK = re.compile(r"(?<= )(?! )|(?<=[A-Za-z0-9][-_/:=])(?=\w)")
"""Places where a cell may break: after a space, and within a name after `-`, `_`, `/`, `:`, `=`."""


def least_widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """What each column takes at least if only long texts and names fold."""
    return [
        max(_longest_word(column), min(_widest(column, rows, index), _folded(column, rows, index)))
        for index, column in enumerate(columns)
    ]


def widths(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return column widths. Numbers are not broken if there is room for them; what is left goes to
    the names, then to the others, up to what their longest cell takes.

    Args:
        room: columns of the terminal.
    """
    full = [
        max(_longest_word(column), _widest(column, rows, index))
        for index, column in enumerate(columns)
    ]
    free = room - taken_by_gaps(columns)
    least = least_widths(columns, rows)
    if sum(least) > free:
        least = [
            max(_longest_word(column), min(full[index], FOLDED, _longest_piece(rows, index)))
            for index, column in enumerate(columns)
        ]
    for names in (True, False):
        places = [p for p, column in enumerate(columns) if (column in NAMES) == names]
        while sum(least) < free and (short := [p for p in places if least[p] < full[p]]):
            least[min(short, key=lambda index: least[index])] += 1
    while sum(least) > max(free, len(least)):
        least[least.index(max(least))] -= 1
    return least


def taken_by_gaps(columns: Sequence[str]) -> int:
    """Columns of the terminal that no cell can use."""
    return GAP * len(columns) + EDGE


def broken(text: str, width: int) -> list[str]:
    """The lines of a cell, broken at a place of `BREAK` if there is one in the line."""
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
    """Return what a column folds to that may; its full width if it may not."""
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

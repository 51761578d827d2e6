"""Layout of a table as lines of text. No word, number or interval is broken.

If a table is wider than the terminal, its headings and long texts are folded, then columns are left
out by their priority, then all texts are folded, and at last each row becomes a block of lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from rich.cells import cell_len

from toxtrail.reporting.table import Column, Table

GAP = 2
"""Columns of the terminal between two columns of a table."""
FOLDED = 24
"""Minimum width of a folded column while others can be left out."""
BREAK = re.compile(r"(?<= )(?![ %])(?![^\[\]]*\])")
"""Positions where a text may break: after a space, but not in an interval or before a `%`."""
BETWEEN_COMMANDS = re.compile(BREAK.pattern + r"(?=(?:[^`]*`[^`]*`)*[^`]*$)")
"""The same, and not in a command between backticks, because commands are copied."""
BEFORE_INTERVAL = re.compile(r"(?<= )(?=\[)")
"""Positions where a number with its interval may break."""


class Styles(NamedTuple):
    """Colours of a table; each returns a text of the same width."""

    heading: Callable[[str], str]
    cell: Callable[[str, str], str]
    """(a line of a cell, the complete text of the cell) -> the styled line."""


PLAIN = Styles(lambda line: line, lambda line, _: line)


class Layout(NamedTuple):
    """A table as lines of text."""

    lines: Sequence[str]
    left_out: Sequence[str]
    """Names of the columns that have no room."""


def layout_table(
    table: Table,
    width: int | None,
    show: Callable[[object], str] = str,
    styles: Styles = PLAIN,
) -> Layout:
    """Lay a table out.

    Args:
        width: of the terminal; None for a pipe or a file, where a row is one line.
        show: returns the text of a cell that is safe to print.
    """
    cells = _Cells(table.columns, [[show(cell) for cell in row] for row in table.rows], show)
    title: list[str] = (
        [*map(styles.heading, wrap(show(table.title), width)), ""] if table.title else []
    )
    left_out = [] if width is None else cells.leave_out(width)
    widths = cells.widths(width)
    body = _stacked(cells, width or 0, styles) if widths is None else _grid(cells, widths, styles)
    return Layout([*title, *body, ""], left_out)


def wrap_sentence(text: str, width: int | None) -> list[str]:
    """Return the lines of a text, broken between words, but not in a command."""
    is_balanced = text.count("`") % 2 == 0
    return wrap(text, width, BETWEEN_COMMANDS if is_balanced else BREAK)


def wrap(text: str, width: int | None, breaks: re.Pattern[str] = BREAK) -> list[str]:
    """Return the lines of a text, broken between words; a longer word has a line of its own.

    Args:
        width: None for one line.
        breaks: positions where it may break.
    """
    if width is None:
        return [text]
    lines = [""]
    for piece in re.split(breaks, text):
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


class _Cells:
    """Headings and cells of the columns that remain."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str]],
        show: Callable[[object], str],
    ) -> None:
        self.columns, self.show = list(columns), show
        self.headings = [show(column.name) for column in columns]
        self.rows = [list(row) for row in rows]

    def leave_out(self, width: int) -> list[str]:
        """Remove columns in the order of their priority until the others fit; return the names."""
        names = []
        while not _fits(self._folded(FOLDED), width):
            index = max(range(len(self.columns)), key=lambda i: (self.columns[i].priority, i))
            if self.columns[index].priority == 0:
                break
            names.append(self.headings[index])
            del self.columns[index]
            for part in (self.headings, *self.rows):
                del part[index]
        return names

    def widths(self, room: int | None) -> list[int] | None:
        """Return the width of each column; None if they have no room beside each other."""
        pairs = list(zip(self.headings, self._widest(), strict=True))
        natural = [max(cell_len(heading), widest) for heading, widest in pairs]
        if room is None or _fits(natural, room):
            return natural
        narrow = [max(_longest_word(heading), widest) for heading, widest in pairs]
        for least in (narrow, self._folded(FOLDED), self._folded(0)):
            if _fits(least, room):
                return _widened(least, natural, room)
        return None

    def _folded(self, minimum: int) -> list[int]:
        """Return the widths if cells are folded to this width, or to their longest word."""
        widths = []
        for index, widest in enumerate(self._widest()):
            breaks = _breaks(self.columns[index])
            words = [_longest_word(row[index], breaks) for row in self.rows]
            width = min(widest, max(minimum, *words, 0))
            widths.append(max(_longest_word(self.headings[index]), width))
        return widths

    def _widest(self) -> list[int]:
        return [
            max((cell_len(row[index]) for row in self.rows), default=0)
            for index in range(len(self.columns))
        ]


def _fits(widths: Sequence[int], room: int) -> bool:
    return sum(widths) + GAP * (len(widths) - 1) <= room


def _widened(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Give the remaining room to the narrowest of the columns that are folded."""
    widths = list(least)
    while short := [i for i, width in enumerate(widths) if width < natural[i]]:
        index = min(short, key=lambda i: widths[i])
        widths[index] += 1
        if not _fits(widths, room):
            widths[index] -= 1
            break
    return widths


def _breaks(column: Column) -> re.Pattern[str]:
    return BREAK if column.align == "left" else BEFORE_INTERVAL


def _longest_word(text: str, breaks: re.Pattern[str] = BREAK) -> int:
    return max(cell_len(piece.rstrip()) for piece in re.split(breaks, text))


def _grid(cells: _Cells, widths: Sequence[int], styles: Styles) -> list[str]:
    """Return headings, a rule and the rows."""
    heads = [wrap(heading, width) for heading, width in zip(cells.headings, widths, strict=True)]
    height = max(map(len, heads), default=0)
    low = [[""] * (height - len(head)) + head for head in heads]
    rule = cells.show("─" * (sum(widths) + GAP * (len(widths) - 1)))
    lines = _side_by_side(cells.columns, low, widths, [styles.heading] * len(heads))
    lines.append(rule)
    for row in cells.rows:
        folded = [
            wrap(text, width, _breaks(column))
            for column, text, width in zip(cells.columns, row, widths, strict=True)
        ]
        paint = [partial(_painted, styles, text) for text in row]
        lines += _side_by_side(cells.columns, folded, widths, paint)
    return lines


def _painted(styles: Styles, text: str, line: str) -> str:
    return styles.cell(line, text)


def _side_by_side(
    columns: Sequence[Column],
    texts: Sequence[Sequence[str]],
    widths: Sequence[int],
    paint: Sequence[Callable[[str], str]],
) -> list[str]:
    """Return the lines of one row.

    Args:
        texts: the lines of each cell.
    """
    lines = []
    for parts in zip_longest(*texts, fillvalue=""):
        line = gap = ""
        for column, part, width, painted in zip(columns, parts, widths, paint, strict=True):
            space = " " * (width - cell_len(part))
            text = painted(part) if part else ""
            before, after = (space, "") if column.align == "right" else ("", space)
            line += gap + before + text + after
            gap = " " * GAP
        lines.append(line.rstrip())
    return lines


def _stacked(cells: _Cells, width: int, styles: Styles) -> list[str]:
    """Return a block of lines for each row, one line or more for each cell."""
    name_width = max(map(cell_len, cells.headings), default=0)
    room = max(width - name_width - GAP, 1)
    lines: list[str] = []
    for row in cells.rows:
        lines += [""] if lines else []
        for heading, text in zip(cells.headings, row, strict=True):
            first, *others = wrap(text, room)
            space = " " * (name_width - cell_len(heading) + GAP)
            lines.append(styles.heading(heading) + space + styles.cell(first, text))
            lines += [" " * (name_width + GAP) + styles.cell(line, text) for line in others]
    return [line.rstrip() for line in lines]

"""Tables on a terminal: every line fits, no word is cut, columns go in their declared order."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from toxtrail.reporting.table import Column, Table, number_columns, text_columns
from toxtrail.reporting.terminal_table import Styles, layout_table, wrap, wrap_sentence
from toxtrail.text_escaping import escape_unencodable

WIDTHS = st.integers(20, 160)
WORDS = st.text("ab-_/9.é日", min_size=1, max_size=18)
TEXTS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)
INTERVALS = st.floats(-99, 99).map(lambda x: f"{x:+.1f} [{x - 9:+.1f}, {x + 9:+.1f}] *")


@st.composite
def tables(draw):
    n = draw(st.integers(1, 9))
    align, priority = st.sampled_from(["left", "right"]), st.sampled_from([0, 0, 1, 2, 3])
    columns = [Column(draw(TEXTS), draw(align), draw(priority)) for _ in range(n)]
    rows = draw(st.lists(st.tuples(*[st.one_of(TEXTS, INTERVALS)] * n), min_size=1, max_size=4))
    return Table(draw(st.none() | TEXTS), columns, rows)


def words_of(table):
    """The words of what is always shown; a number in brackets is one."""
    shown = [i for i, column in enumerate(table.columns) if column.priority == 0]
    cells = [row[i] for row in table.rows for i in shown]
    texts = [
        *cells,
        *(table.columns[i].name for i in shown),
        *([table.title] if table.title else []),
    ]
    return [word for text in texts for word in re.findall(r"\[[^]]*\]|\S+", text)]


@given(tables(), WIDTHS)
def test_every_line_fits_and_no_word_is_cut(table, width):
    layout = layout_table(table, width)
    words = words_of(table)
    text = "\n".join(layout.lines)
    assert all(word in text for word in words)
    everything = [str(cell) for row in table.rows for cell in row]
    heads = max((cell_len(column.name) for column in table.columns), default=0)
    longest = max(cell_len(word) for cell in everything for word in re.split(r" (?![^[]*\])", cell))
    title = max(map(cell_len, (table.title or "").split()), default=0)
    if longest + heads + 4 <= width and title <= width:
        assert all(cell_len(line) <= width for line in layout.lines)


@given(tables(), WIDTHS)
def test_columns_are_left_out_in_the_declared_order_and_only_if_there_is_no_room(table, width):
    order = sorted(range(len(table.columns)), key=lambda i: (-table.columns[i].priority, -i))
    droppable = [table.columns[i].name for i in order if table.columns[i].priority]
    left_out = list(layout_table(table, width).left_out)
    assert left_out == droppable[: len(left_out)]
    assert len(layout_table(table, width + 1).left_out) <= len(left_out)
    natural = max(map(cell_len, layout_table(table, None).lines))
    assert layout_table(table, None).left_out == []
    if natural <= width:
        assert layout_table(table, width).lines == layout_table(table, None).lines


@given(tables())
def test_in_a_pipe_each_row_is_one_line_with_every_cell(table):
    lines = layout_table(table, None).lines
    rows = lines[-1 - len(table.rows) : -1]
    for cells, line in zip(table.rows, rows, strict=True):
        assert line.split() == " ".join(cells).split()


@given(tables(), WIDTHS)
def test_a_terminal_without_unicode_gets_ascii_of_the_same_layout(table, width):
    lines = layout_table(table, width, lambda cell: escape_unencodable(str(cell), "ascii")).lines
    assert "".join(lines).isascii()


@given(tables(), WIDTHS)
def test_colours_do_not_move_a_cell(table, width):
    styles = Styles(lambda line: f"<{line}>", lambda line, _: f"<{line}>")
    painted = [re.sub(r"[<>]", "", line) for line in layout_table(table, width, str, styles).lines]
    assert painted == list(layout_table(table, width).lines)


@given(st.text("ab [],%+9", max_size=60), st.integers(1, 30))
def test_a_wrapped_sentence_keeps_its_letters(text, width):
    assert "".join(wrap(text, width)).replace(" ", "") == text.replace(" ", "")


def test_a_sentence_does_not_break_in_a_command():
    text = "Some variants: `toxtrail run tiny` finishes them."
    assert wrap_sentence(text, 25) == ["Some variants:", "`toxtrail run tiny`", "finishes them."]
    assert wrap_sentence("a ` b", 2) == ["a", "`", "b"]


def test_long_texts_fold_before_a_column_is_left_out_and_rows_are_stacked_last():
    columns = (
        *text_columns("run id"),
        *text_columns("why", priority=1),
        *number_columns("rate"),
    )
    table = Table(None, columns, [("0123abcd", "a reason of several words " * 2, "1.0 [0.5, 1.5]")])
    assert [len(layout_table(table, width).left_out) for width in (60, 28, 14)] == [0, 1, 1]
    assert layout_table(table, 28).lines == [
        "run id              rate",
        "────────────────────────",
        "0123abcd  1.0 [0.5, 1.5]",
        "",
    ]
    assert layout_table(table, 22).lines[-3:] == [
        "0123abcd           1.0",
        "            [0.5, 1.5]",
        "",
    ]
    assert layout_table(table, 18).lines == [
        "run id  0123abcd",
        "rate    1.0",
        "        [0.5, 1.5]",
        "",
    ]

"""Widths of a table's columns: what fits stays whole, and names break at their separators."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toxtrail.reporting.column_widths import column_widths, gap_width, wrap_cell


@given(st.text("ab-_/ .9", max_size=60), st.integers(1, 30))
def test_a_broken_cell_keeps_its_letters_and_fits(text, width):
    lines = wrap_cell(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)


@given(
    st.lists(st.text("ab-9", min_size=1, max_size=40), min_size=1, max_size=6),
    st.integers(40, 200),
)
def test_a_table_is_no_wider_than_the_terminal(cells, width):
    columns = ["variant", *(f"c{i}" for i in range(1, len(cells)))]
    widths = column_widths(columns, [cells], width)
    assert sum(widths) + gap_width(len(columns)) <= width
    natural = [max(len(c), len(n)) for c, n in zip(cells, columns, strict=True)]
    if sum(natural) + gap_width(len(columns)) <= width:
        assert widths == natural

"""Widths of a table's columns: what fits stays whole, and names break at their separators."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.cli._output import Table, drop_columns_to_fit, print_table
from toxtrail.cli.widths import broken, taken_by_gaps, widths

LONG = "smollm2-instruct-lora-alpaca-dpo-merged-2024-very-long-name"


@given(st.text("ab-_/ .9", max_size=60), st.integers(1, 30))
def test_a_broken_cell_keeps_its_letters_and_fits(text, width):
    lines = broken(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("size", [10, 30, 60])
@pytest.mark.parametrize("width", [80, 120])
def test_a_name_breaks_at_a_separator_and_a_number_never(size, width, capsys, monkeypatch):
    monkeypatch.setattr("toxtrail.cli._output.terminal_width", lambda: width)
    name = LONG[:size].rstrip("-")
    rows = [[name, f"{name}-b", "+12.3", "[12.3, 45.6]", "higher"]]
    print_table(None, ["variant", "against", "difference>", "interval>", "verdict"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any("+12.3" in line and "higher" in line for line in lines)
    cells = [line.split("   ")[0].strip() for line in lines if line.startswith("  smollm2")]
    assert cells == [name] or cells[0].endswith("-")


@given(
    st.lists(st.text("ab-9", min_size=1, max_size=40), min_size=1, max_size=6),
    st.integers(40, 200),
)
def test_a_table_is_no_wider_than_the_terminal(cells, width):
    columns = ["variant", *(f"c{i}" for i in range(1, len(cells)))]
    found = widths(columns, [cells], width)
    assert sum(found) + taken_by_gaps(columns) <= width
    natural = [max(len(c), len(n)) for c, n in zip(cells, columns, strict=True)]
    if sum(natural) + taken_by_gaps(columns) <= width:
        assert found == natural


def test_what_has_no_room_is_named(monkeypatch):
    monkeypatch.setattr("toxtrail.cli._output.terminal_width", lambda: 40)
    table = Table(None, ["name", "kind", "rate>"], [["a" * 16, "k" * 20, "1.0"]])
    tables, notes = drop_columns_to_fit([table], ["kind", "rate"])
    assert tables[0].columns == ["name", "rate>"]
    assert "kind" in notes[0]
    assert "rate" not in notes[0]

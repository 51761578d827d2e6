"""Highest-density intervals: the shortest with the same posterior mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.cli._output import print_table
from toxtrail.cli.compare_tables import with_scorers
from toxtrail.reporting.table import Table, number_columns, text_columns


def print_hdi(summary: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of both kinds of interval."""
    from toxtrail.reporting.result_text import interval

    rows = [
        (
            row["b"],
            f"{row['a']} ({row['relation']})",
            row["subset"],
            interval(row, "diff", signed=True),
            interval(row, "diff_hdi", signed=True),
        )
        for row in pairs
    ]
    columns = (
        *text_columns("variant", "against", "subset"),
        *number_columns("equal-tailed", "highest density"),
    )
    title = f"{summary['level']:.0%} intervals (percentage points)"
    print_table(with_scorers(Table(title, columns, rows), pairs))

"""Result rows as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toxtrail.analysis.comparison import comparison_tables
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.records.columns import ResultTable, to_arrow
from toxtrail.records.results import TABLES, ComparisonSummary

if TYPE_CHECKING:
    import pandas as pd


def data_frame(table: ResultTable) -> pd.DataFrame:
    """Return a table as a DataFrame, as `pandas.read_parquet` reads it from the files of results.

    A column of whole numbers or of truth values with an empty cell becomes one of floating-point
    numbers or of objects.
    """
    return to_arrow(table).to_pandas()


def family_frame(summaries: Sequence[ComparisonSummary], name: str) -> pd.DataFrame:
    """Return one table of several families; a table without the column `family` has it in front.

    Args:
        name: one of docs/tables.md.

    Raises:
        ConfigError: no such table, or no family has it.
    """
    import pandas as pd

    if name not in TABLES:
        raise ConfigError(f'There is no table "{name}".{did_you_mean(name, TABLES)}')
    frames = []
    for summary in summaries:
        table = comparison_tables(summary).get(name)
        if table is None:
            continue
        frame = data_frame(table)
        if "family" not in table.names:
            frame.insert(0, "family", summary.family)
        frames.append(frame)
    if not frames:
        raise ConfigError(f'No family has the table "{name}".')
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)

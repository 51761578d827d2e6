"""The summary for `dvc metrics` and `dvc plots`: all subsets, the primary scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.records.results import ComparisonSummary, PairRow

ALL = "all"
DIGITS = 3


def dvc_metrics(summary: ComparisonSummary) -> dict[str, dict[str, float]]:
    """Return for each variant its rate in per cent, and its difference from its parent (else the
    reference) in percentage points with the interval."""
    metrics: dict[str, dict[str, float]] = {}
    for row in summary.rates:
        if (row.scorer, row.subset) == (summary.primary, ALL):
            values = {"rate_pct": row.rate, "low_pct": row.rate_lo, "high_pct": row.rate_hi}
            metrics[row.variant] = _percent(values)
    for pair in _primary_pairs(summary):
        if "difference_pp" not in metrics[pair.b]:
            metrics[pair.b] |= _difference(pair)
    return metrics


def dvc_plot_rows(summary: ComparisonSummary) -> list[dict[str, Any]]:
    """Return the rows of the bar chart of differences."""
    none = [{"comparison": "none", "difference_pp": 0.0, "low_pp": 0.0, "high_pp": 0.0}]
    return [
        {
            "comparison": f"{pair.b} - {pair.a}",
            **_difference(pair),
        }
        for pair in _primary_pairs(summary)
        if pair.diff is not None
    ] or none


def _primary_pairs(summary: ComparisonSummary) -> list[PairRow]:
    primary_overall = (summary.primary, ALL)
    return [row for row in summary.pairs if (row.scorer, row.subset) == primary_overall]


def _difference(pair: PairRow) -> dict[str, float]:
    return _percent({"difference_pp": pair.diff, "low_pp": pair.diff_lo, "high_pp": pair.diff_hi})


def _percent(values: Mapping[str, float | None]) -> dict[str, float]:
    """Convert to per cent; leave out missing values."""
    return {name: round(100 * v, DIGITS) for name, v in values.items() if v is not None}

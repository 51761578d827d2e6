"""The summary for `dvc metrics` and `dvc plots`: all subsets, the primary scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALL = "all"
DIGITS = 3


def dvc_metrics(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return for each variant its rate in per cent, and its difference from its parent (else the
    reference) in percentage points with the interval."""
    metrics: dict[str, dict[str, float]] = {}
    for row in summary["rates"]:
        if (row["scorer"], row["subset"]) == (summary["primary"], ALL):
            values = {
                "rate_pct": row["rate"], "low_pct": row["rate_lo"], "high_pct": row["rate_hi"]
            }  # fmt: skip
            metrics[row["variant"]] = _percent(values)
    for row in _primary_pairs(summary):
        if "difference_pp" not in metrics[row["b"]]:
            values = {
                "difference_pp": row["diff"], "low_pp": row["diff_lo"], "high_pp": row["diff_hi"]
            }  # fmt: skip
            metrics[row["b"]] |= _percent(values)
    return metrics


def dvc_plot_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the bar chart of differences."""
    none = [{"comparison": "none", "difference_pp": 0.0, "low_pp": 0.0, "high_pp": 0.0}]
    return [
        {
            "comparison": f"{row['b']} - {row['a']}",
            **_percent(
                {"difference_pp": row["diff"], "low_pp": row["diff_lo"], "high_pp": row["diff_hi"]}
            ),
        }
        for row in _primary_pairs(summary)
        if row["diff"] is not None
    ] or none


def _primary_pairs(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    primary_overall = (summary["primary"], ALL)
    return [row for row in summary["pairs"] if (row["scorer"], row["subset"]) == primary_overall]


def _percent(values: Mapping[str, float | None]) -> dict[str, float]:
    """Convert to per cent; leave out missing values."""
    return {name: round(100 * v, DIGITS) for name, v in values.items() if v is not None}

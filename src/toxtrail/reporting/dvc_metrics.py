"""A comparison at a glance, for `dvc metrics` and `dvc plots`: all subsets, the primary scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALL = "all"
DIGITS = 3


def metrics_of(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Variant -> its rate in per cent, and how far it is from its parent (else the reference), in
    percentage points with the interval."""
    found: dict[str, dict[str, float]] = {}
    for row in summary["rates"]:
        if (row["scorer"], row["subset"]) == (summary["primary"], ALL):
            values = {
                "rate_pct": row["rate"], "low_pct": row["rate_lo"], "high_pct": row["rate_hi"]
            }  # fmt: skip
            found[row["variant"]] = _percent(values)
    for row in _pairs(summary):
        if "difference_pp" not in found[row["b"]]:
            values = {
                "difference_pp": row["diff"], "low_pp": row["diff_lo"], "high_pp": row["diff_hi"]
            }  # fmt: skip
            found[row["b"]] |= _percent(values)
    return found


def plot_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the bar chart of differences."""
    none = [{"comparison": "none", "difference_pp": 0.0, "low_pp": 0.0, "high_pp": 0.0}]
    return [
        {
            "comparison": f"{row['b']} - {row['a']}",
            **_percent(
                {"difference_pp": row["diff"], "low_pp": row["diff_lo"], "high_pp": row["diff_hi"]}
            ),
        }
        for row in _pairs(summary)
        if row["diff"] is not None
    ] or none


def _pairs(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    wanted = (summary["primary"], ALL)
    return [row for row in summary["pairs"] if (row["scorer"], row["subset"]) == wanted]


def _percent(values: Mapping[str, float | None]) -> dict[str, float]:
    """Without what nothing is known of."""
    return {name: round(100 * v, DIGITS) for name, v in values.items() if v is not None}

"""Tables of measured rates and verdicts beside published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.records.results import ComparisonSummary
from toxtrail.reporting.table import Field, Table, build_table
from toxtrail.reporting.text import (
    percent,
    percent_interval,
    percentage_points,
    points_interval,
    probability,
)

Row = Mapping[str, Any]

RATE_FIELDS: Sequence[Field[Row]] = (
    Field("variant", lambda row: row["variant"]),
    Field("subset", lambda row: row["subset"]),
    Field("measured", lambda row: f"{percent(row['measured'])} of {row['n_measured']:,}", "right"),
    Field(
        "interval", lambda row: percent_interval(row["measured_lo"], row["measured_hi"]), "right", 2
    ),
    Field(
        "published", lambda row: f"{percent(row['published'])} of {row['n_published']:,}", "right"
    ),
    Field(
        "interval",
        lambda row: percent_interval(row["published_lo"], row["published_hi"]),
        "right",
        2,
    ),
    Field("difference", lambda row: percentage_points(row["diff"]), "right"),
    Field("interval", lambda row: points_interval(row["diff_lo"], row["diff_hi"]), "right"),
    Field("P(agree)", lambda row: probability(row["p_agree"]), "right", 3),
    Field("overlap", lambda row: f"{row['overlap']:.2f}", "right", 4),
    Field("measured is", lambda row: row["verdict"]),
    Field("source", lambda row: row["source"], priority=5),
)
VERDICT_FIELDS: Sequence[Field[Row]] = (
    Field("variant", lambda row: row["b"]),
    Field("against", lambda row: row["a"]),
    Field("subset", lambda row: row["subset"]),
    Field("difference", lambda row: percentage_points(row["diff"]), "right"),
    Field("interval", lambda row: points_interval(row["diff_lo"], row["diff_hi"]), "right"),
    Field("measured", lambda row: row["verdict"]),
    Field("published", lambda row: row["verdict_published"]),
    Field("the same?", lambda row: "yes" if row["same"] else "NO"),
    Field("source", lambda row: row["source"], priority=5),
)


def published_tables(summary: ComparisonSummary, compared: Mapping[str, Any]) -> list[Table]:
    """Return the tables of rates and verdicts that have rows.

    Args:
        compared: measured by one scorer and published: `scorer`, `rates`, `pairs`.
    """
    rates_title = f"Measured by {compared['scorer']} beside published"
    verdicts_title = "Measured verdicts (paired by prompt) beside published ones"
    tables = (
        build_table(rates_title, RATE_FIELDS, compared["rates"])._replace(note=_meaning(summary)),
        build_table(verdicts_title, VERDICT_FIELDS, compared["pairs"]),
    )
    return [table for table in tables if table.rows]


def _meaning(summary: ComparisonSummary) -> str:
    share = summary.rope_relative
    more = f" or {share:.0%} of the published rate, whichever is more" if share else ""
    return (
        f"P(agree): the posterior probability that the two rates differ by at most "
        f"{summary.rope_pp:g} point(s){more}. Overlap: the mass that the two posteriors share. "
        "Both are taken as independent: if the prompts were the same, the interval of the "
        "difference is too wide. A small P(agree) with a wide interval means too few prompts, not "
        "disagreement."
    )

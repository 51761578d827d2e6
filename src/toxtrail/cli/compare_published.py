"""Tables of measured and published rates, for `toxtrail compare --published FILE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.cli._output import OutputFormat, print_tables
from toxtrail.errors import ConfigError
from toxtrail.reporting.table import Table, number_columns, text_columns

PRIOR = 0.5
"""Jeffreys' prior, for the published count."""


def with_published(
    path: Path, summaries: Sequence[Mapping[str, Any]], scorer: str | None
) -> list[dict[str, Any]]:
    """Add to each comparison the published numbers of its variants.

    Raises:
        ConfigError: the file is invalid, or contains none of these variants.
    """
    from toxtrail.cli.compare_tables import scorers_of
    from toxtrail.published.claims import compare_with_run, load_published, published_variants

    loaded = load_published(path)
    results = [
        {
            **s,
            "published": [
                compare_with_run(loaded, s, name, PRIOR) for name in scorers_of(s, scorer)
            ],
        }
        for s in summaries
    ]
    if not any(source["rates"] or source["pairs"] for s in results for source in s["published"]):
        measured = sorted({row["variant"] for s in summaries for row in s["rates"]})
        raise ConfigError(
            f"{path.name} contains none of the measured variants and subsets. It has "
            f"{', '.join(published_variants(loaded)) or 'none'}; measured are {', '.join(measured)}"
            ". Map published names to variants of params.yaml in its section `keys`."
        )
    return results


def print_published(summary: Mapping[str, Any], form: OutputFormat) -> None:
    """Print two tables, rates and verdicts, with the meaning of their columns."""
    for source in summary.get("published", []):
        tables = [table for table in (_rates(source), _verdicts(source)) if table.rows]
        notes = [_meaning(summary)] if source["rates"] else []
        if tables:
            print_tables(form, tables, notes)


def _rates(source: Mapping[str, Any]) -> Table:
    from toxtrail.reporting.result_text import interval, percent, percentage_points, probability

    rows = [
        (
            row["variant"],
            row["subset"],
            f"{percent(row['measured'])} of {row['n_measured']:,}",
            interval(row, "measured"),
            f"{percent(row['published'])} of {row['n_published']:,}",
            interval(row, "published"),
            percentage_points(row["diff"]),
            interval(row, "diff", signed=True),
            probability(row["p_agree"]),
            f"{row['overlap']:.2f}",
            row["verdict"],
            row["source"],
        )
        for row in source["rates"]
    ]
    columns = (
        *text_columns("variant", "subset"),
        *number_columns(
            "measured", "interval", "published", "interval", "difference", "interval", "P(agree)",
            "overlap",
        ),
        *text_columns("measured is", "source"),
    )  # fmt: skip
    return Table(f"Measured by {source['scorer']} beside published", columns, rows)


def _verdicts(source: Mapping[str, Any]) -> Table:
    from toxtrail.reporting.result_text import interval, percentage_points

    rows = [
        (
            row["b"],
            row["a"],
            row["subset"],
            percentage_points(row["diff"]),
            interval(row, "diff", signed=True),
            row["verdict"],
            row["verdict_published"],
            "yes" if row["same"] else "NO",
            row["source"],
        )
        for row in source["pairs"]
    ]
    columns = (
        *text_columns("variant", "against", "subset"), *number_columns("difference", "interval"),
        *text_columns("measured", "published", "the same?", "source"),
    )  # fmt: skip
    return Table("Measured verdicts (paired by prompt) beside published ones", columns, rows)


def _meaning(summary: Mapping[str, Any]) -> str:
    share = summary["rope_share"]
    more = f" or {share:.0%} of the published rate, whichever is more" if share else ""
    return (
        f"P(agree): the posterior probability that the two rates differ by at most "
        f"{summary['rope_pp']:g} point(s){more}. Overlap: the mass that the two posteriors share. "
        "Both are taken as independent: if the prompts were the same, the interval of the "
        "difference is too wide. A small P(agree) with a wide interval means too few prompts, not "
        "disagreement."
    )

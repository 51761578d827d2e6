"""Measured beside published: what `toxtrail compare --published FILE` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toxtrail.cli._output import Form, Table, print_as
from toxtrail.errors import ConfigError

PRIOR = 0.5
"""Jeffreys, for the published count."""


def with_published(
    path: Path, summaries: Sequence[Mapping[str, Any]], scorer: str | None
) -> list[dict[str, Any]]:
    """Each comparison with the published numbers of its variants.

    Raises:
        ConfigError: the file is wrong, or speaks of none of these variants.
    """
    from toxtrail.cli.compare_tables import scorers_of
    from toxtrail.published.claims import held_against, load_published, variants_of

    loaded = load_published(path)
    found = [
        {**s, "published": [held_against(loaded, s, name, PRIOR) for name in scorers_of(s, scorer)]}
        for s in summaries
    ]
    if not any(one["rates"] or one["pairs"] for s in found for one in s["published"]):
        here = sorted({row["variant"] for s in summaries for row in s["rates"]})
        raise ConfigError(
            f"{path.name} speaks of none of the variants and subsets here. It names "
            f"{', '.join(variants_of(loaded)) or 'none'}; measured are {', '.join(here)}. Its "
            "section `keys` says which published name is which variant of params.yaml."
        )
    return found


def print_published(summary: Mapping[str, Any], form: Form) -> None:
    """Two tables, rates and verdicts, with what their columns mean."""
    for one in summary.get("published", []):
        tables = [table for table in (_rates(one), _verdicts(one)) if table.rows]
        notes = [_meaning(summary)] if one["rates"] else []
        if tables:
            print_as(form, tables, notes)


def _rates(found: Mapping[str, Any]) -> Table:
    from toxtrail.reporting.result_text import interval, percent, points, probability

    rows = [
        (
            row["variant"],
            row["subset"],
            f"{percent(row['measured'])} of {row['n_measured']:,}",
            interval(row, "measured"),
            f"{percent(row['published'])} of {row['n_published']:,}",
            interval(row, "published"),
            points(row["diff"]),
            interval(row, "diff", signed=True),
            probability(row["p_agree"]),
            f"{row['overlap']:.2f}",
            row["verdict"],
            row["source"],
        )
        for row in found["rates"]
    ]
    columns = [
        "variant", "subset", "measured>", "interval>", "published>", "interval>", "difference>",
        "interval>", "P(agree)>", "overlap>", "measured is", "source",
    ]  # fmt: skip
    return Table(f"Measured by {found['scorer']} beside published", columns, rows)


def _verdicts(found: Mapping[str, Any]) -> Table:
    from toxtrail.reporting.result_text import interval, points

    rows = [
        (
            row["b"],
            row["a"],
            row["subset"],
            points(row["diff"]),
            interval(row, "diff", signed=True),
            row["verdict"],
            row["verdict_published"],
            "yes" if row["same"] else "NO",
            row["source"],
        )
        for row in found["pairs"]
    ]
    columns = [
        "variant", "against", "subset", "difference>", "interval>", "measured", "published",
        "the same?", "source",
    ]  # fmt: skip
    return Table("Measured verdicts (paired by prompt) beside published ones", columns, rows)


def _meaning(summary: Mapping[str, Any]) -> str:
    share = summary["rope_share"]
    more = f" or {share:.0%} of the published rate, whichever is more" if share else ""
    return (
        f"P(agree): the posterior probability that the two rates differ by at most "
        f"{summary['rope_pp']:g} point(s){more}. Overlap: the mass that the two posteriors share. "
        "Both are taken as independent: had the same prompts been asked, the interval of the "
        "difference is too wide. A small P(agree) with a wide interval means too few prompts, not "
        "disagreement."
    )

"""The prompt card as tables: where the prompts come from, one row for each subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.reporting.table import Table, number_columns, text_columns

NOT_STATED = "not stated"
NOTHING = "-"


def subset_table(card: Mapping[str, Any]) -> Table:
    """Return a row for each subset: how its prompts were selected."""
    columns = (
        *text_columns("subset"),
        *number_columns("sampled", "distinct texts", "duplicates", "rows read"),
        *text_columns("left by the filter", "balanced", "language", "license"),
    )
    rows = [
        (
            name,
            _drawn_prompts(subset),
            subset["distinct"],
            subset["duplicates"],
            subset["rows"],
            "; ".join(
                f"{clause['rows_left']} by {clause['condition']}" for clause in subset["where"]
            )
            or NOTHING,
            _balance(subset["balance"]),
            subset["language"] or NOT_STATED,
            subset["license"] or NOT_STATED,
        )
        for name, subset in card["subsets"].items()
    ]
    return Table(None, columns, rows)


def covariate_table(card: Mapping[str, Any]) -> Table:
    """Return a row for each covariate of each subset."""
    columns = (
        *text_columns("subset", "covariate"),
        *number_columns("known", "missing", "mean", "median", "range"),
    )
    rows = [
        (name, key, covariate["known"], covariate["missing"], *_covariate_statistics(covariate))
        for name, subset in card["subsets"].items()
        for key, covariate in subset["covariates"].items()
    ]
    return Table(None, columns, rows)


def sources(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the source of each subset."""
    return [
        (name, f"{subset['source']} sha256 {subset['sha256']}")
        for name, subset in card["subsets"].items()
    ]


def summary_sentence(card: Mapping[str, Any]) -> str:
    """Return a sentence with the number of prompts and their languages."""
    languages = sorted(
        {subset["language"] for subset in card["subsets"].values() if subset["language"]}
    )
    language_list = f", in {', '.join(languages)}" if languages else ""
    return (
        f"{card['prompts']} prompts of {len(card['subsets'])} subsets{language_list}. A text that "
        "occurs twice in a subset's source is one prompt; sampled at random with seed "
        f"{card['seed']}."
    )


def _drawn_prompts(subset: Mapping[str, Any]) -> str:
    clusters = subset.get("clusters")
    return f"{subset['drawn']}" + (f" in {clusters['drawn']} clusters" if clusters else "")


def _balance(balance: Mapping[str, Any] | None) -> str:
    if balance is None:
        return NOTHING
    each = next(iter(balance["values"].values()))["drawn"]
    return f"{each} of each {balance['column']} ({', '.join(balance['values'])})"


def _covariate_statistics(covariate: Mapping[str, Any]) -> tuple[str, str, str]:
    if not covariate["known"]:
        return NOTHING, NOTHING, NOTHING
    return (
        f"{covariate['mean']:.3f}",
        f"{covariate['median']:.3f}",
        f"{covariate['min']:.3f} to {covariate['max']:.3f}",
    )

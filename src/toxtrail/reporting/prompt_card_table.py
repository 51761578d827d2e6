"""The prompt card for people: where the prompts come from, in a line for each subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "subset", "drawn>", "distinct texts>", "duplicates>", "rows read>", "left by the filter",
    "balanced", "language", "licence",
)  # fmt: skip
"""Of `subset_cells`; `>` is right-aligned."""
COVARIATE_COLUMNS = ("subset", "covariate", "known>", "missing>", "mean>", "median>", "range>")
"""Of `covariate_cells`."""

NOT_SAID = "not stated"
NOTHING = "-"


def subset_cells(card: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each subset as the cells of a table."""
    return [
        (
            name,
            str(own["drawn"]),
            str(own["distinct"]),
            str(own["duplicates"]),
            str(own["rows"]),
            "; ".join(f"{one['rows_left']} by {one['condition']}" for one in own["where"])
            or NOTHING,
            _balance(own["balance"]),
            own["language"] or NOT_SAID,
            own["licence"] or NOT_SAID,
        )
        for name, own in card["subsets"].items()
    ]


def covariate_cells(card: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each covariate of each subset."""
    return [
        (name, key, str(one["known"]), str(one["missing"]), *_numbers(one))
        for name, own in card["subsets"].items()
        for key, one in own["covariates"].items()
    ]


def sources(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where each subset comes from."""
    return [
        (name, f"{own['source']} sha256 {own['sha256']}") for name, own in card["subsets"].items()
    ]


def sentence(card: Mapping[str, Any]) -> str:
    """How many prompts there are, and in which languages."""
    languages = sorted({own["language"] for own in card["subsets"].values() if own["language"]})
    said = f", in {', '.join(languages)}" if languages else ""
    return (
        f"{card['prompts']} prompts of {len(card['subsets'])} subsets{said}. A text that stands "
        f"twice in a subset's source is one prompt; drawn at random by the seed {card['seed']}."
    )


def _balance(own: Mapping[str, Any] | None) -> str:
    if own is None:
        return NOTHING
    each = next(iter(own["values"].values()))["drawn"]
    return f"{each} of each {own['column']} ({', '.join(own['values'])})"


def _numbers(own: Mapping[str, Any]) -> tuple[str, str, str]:
    if not own["known"]:
        return NOTHING, NOTHING, NOTHING
    return f"{own['mean']:.3f}", f"{own['median']:.3f}", f"{own['min']:.3f} to {own['max']:.3f}"

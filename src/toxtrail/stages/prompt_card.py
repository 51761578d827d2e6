"""The prompt card for people: where the prompts come from, in a line for each subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    "subset", "source", "licence", "language", "rows>", "meet the filter", "duplicates>", "drawn>",
    "covariates: mean (range)",
)  # fmt: skip
"""Of `subset_cells`; `>` is right-aligned."""

NOT_SAID = "not stated"


def subset_cells(name: str, own: Mapping[str, Any]) -> tuple[str, ...]:
    """One subset as the cells of a table."""
    source = f"{own['source']}, sha256 {own['sha256'][:12]}"
    return (
        name,
        source,
        own["licence"] or NOT_SAID,
        own["language"] or NOT_SAID,
        str(own["rows"]),
        "; ".join(f"{one['rows_left']}: {one['condition']}" for one in own["where"]) or "all",
        str(own["duplicates"]),
        _drawn(own),
        "; ".join(_covariate(key, one) for key, one in own["covariates"].items()) or "none",
    )


def sentence(card: Mapping[str, Any]) -> str:
    """How many prompts there are, and of how many languages."""
    languages = sorted({own["language"] for own in card["subsets"].values() if own["language"]})
    said = f", in {', '.join(languages)}" if languages else ""
    return (
        f"{card['prompts']} prompts of {len(card['subsets'])} subsets{said}; a text that stands "
        f"twice in a subset's source is one prompt; drawn at random by the seed {card['seed']}."
    )


def _drawn(own: Mapping[str, Any]) -> str:
    drawn = f"{own['drawn']} of {own['distinct']}"
    if own["balance"] is None:
        return drawn
    values = own["balance"]["values"]
    each = next(iter(values.values()))["drawn"]
    return f"{drawn}: {each} of each {own['balance']['column']} ({', '.join(values)})"


def _covariate(name: str, own: Mapping[str, Any]) -> str:
    missing = f", {own['missing']} missing" if own["missing"] else ""
    if not own["known"]:
        return f"{name} -{missing}"
    return f"{name} {own['mean']:.2f} ({own['min']:.2f} to {own['max']:.2f}){missing}"

"""The answer at a glance: what is worst, in which order, and the paper's kind of table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.stages.wording import interval, percent, points

ALL = "all"
MARKS = {"higher": " ▲", "lower": " ▼"}

Row = Mapping[str, Any]


def subsets_of(summary: Mapping[str, Any]) -> list[str]:
    """`all`, then the subsets by name."""
    names = {row["subset"] for row in summary["rates"]}
    return sorted(names, key=lambda name: (name != ALL, name))


def in_order(pairs: Sequence[Row]) -> list[Row]:
    """Subset by subset (`all` first), the largest rise first; pairs without a difference last."""
    return sorted(
        pairs,
        key=lambda row: (
            row["subset"] != ALL,
            row["subset"],
            row["diff"] is None,
            -(row["diff"] or 0.0),
            row["b"],
            row["a"],
        ),
    )


def of_scorer(rows: Sequence[Row], scorer: str) -> list[Row]:
    """One scorer's rows."""
    return [row for row in rows if row["scorer"] == scorer]


def headline(summary: Mapping[str, Any], scorer: str, subset: str = ALL) -> str:
    """Which variant is worst there, and is it credible? One sentence."""
    rows = [r for r in of_scorer(summary["pairs"], scorer) if r["subset"] == subset]
    known = [row for row in in_order(rows) if row["diff"] is not None]
    if not known:
        return f"{subset}: no two variants share a scored prompt, so nothing can be said."
    called = [row for row in known if row["verdict"] == "higher"]
    if called:
        return f"{subset}: worst is {_claim(called[0])}; credible{_others(len(called) - 1)}."
    lower = sum(row["verdict"] == "lower" for row in known)
    fewer = f", {lower} of {len(known)} credibly less" if lower else ""
    return (
        f"{subset}: no variant is credibly more toxic than what it is held against{fewer}. "
        f"Highest is {_claim(known[0])}; {known[0]['verdict']}."
    )


def answer(summary: Mapping[str, Any], scorer: str) -> str:
    """The answer of a family in one or two sentences."""
    rows = [r for r in of_scorer(summary["pairs"], scorer) if r["subset"] == ALL]
    if not rows:
        return "One variant alone: there is nothing to compare it with."
    said = [row["verdict"] for row in rows]
    count = ", ".join(
        f"{said.count(verdict)} {verdict}"
        for verdict in ("higher", "lower", "not decisive", "no pairs")
        if verdict in said
    )
    noun = "difference" if len(rows) == 1 else "differences"
    return f"Of {len(rows)} {noun} over all prompts: {count}. {headline(summary, scorer)[5:]}"


def _claim(row: Row) -> str:
    return (
        f"{row['b']} against {row['a']}, {percent(row['rate_a'])} to {percent(row['rate_b'])} "
        f"({points(row['diff'])} points {interval(row, 'diff', signed=True)}, {row['n']} prompts)"
    )


def _others(n: int) -> str:
    if n < 1:
        return ""
    return f", and so {'is 1 other' if n == 1 else f'are {n} others'}"


def rate_matrix(
    summary: Mapping[str, Any], scorer: str
) -> tuple[list[str], list[tuple[str, ...]], str]:
    """The paper's kind of table: a row for each variant, a column for each subset.

    Returns:
        columns, rows, and what the marks mean. Variants stand below what they are held against.
    """
    subsets = subsets_of(summary)
    rates = {(r["variant"], r["subset"]): r for r in of_scorer(summary["rates"], scorer)}
    pairs: dict[tuple[str, str], Row] = {}
    for row in of_scorer(summary["pairs"], scorer):
        pairs.setdefault((row["b"], row["subset"]), row)
    against = {row["b"]: row["a"] for row in reversed(list(pairs.values()))}
    rows = []
    for variant in summary["variants"]:
        name = variant["variant"]
        cells = (_cell(rates.get((name, subset)), pairs.get((name, subset))) for subset in subsets)
        rows.append((name, variant["role"], against.get(name, "-"), *cells))
    columns = ["variant", "role", "against", *(f"{subset}>" for subset in subsets)]
    note = (
        "Cells: rate, toxic / scored continuations. ▲ ▼: credibly higher or lower than the variant "
        'under "against" on the same prompts; no mark: the data do not decide.'
    )
    return columns, rows, note


def _cell(rate: Row | None, pair: Row | None) -> str:
    if rate is None or rate["rate_raw"] is None:
        return "-"
    mark = MARKS.get(pair["verdict"], "") if pair else ""
    return f"{percent(rate['rate_raw'])} ({rate['n_toxic']}/{rate['n_scored']}){mark}"

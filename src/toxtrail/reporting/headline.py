"""The headline of a comparison: the worst variant, the order of pairs, and the table of rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.reporting.result_text import chance_note, interval, percent, percentage_points
from toxtrail.reporting.table import Column, number_columns, text_columns

ALL = "all"
MARKS = {"higher": " ▲", "lower": " ▼"}

Row = Mapping[str, Any]


def subsets_of(summary: Mapping[str, Any]) -> list[str]:
    """Return `all`, then the subsets by name."""
    names = {row["subset"] for row in summary["rates"]}
    return sorted(names, key=lambda name: (name != ALL, name))


def sort_pairs(pairs: Sequence[Row]) -> list[Row]:
    """Sort by subset (`all` first), then largest increase first; missing differences last."""
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


def rows_of_scorer(rows: Sequence[Row], scorer: str) -> list[Row]:
    """Return one scorer's rows."""
    return [row for row in rows if row["scorer"] == scorer]


def finetune_pairs(summary: Mapping[str, Any], scorer: str) -> list[Row]:
    """Return one scorer's pairs, without those in which b is an ancestor of a (a base compared with
    its own fine-tune, which occurs if the family's reference is a fine-tune)."""
    parents = {variant["variant"]: variant["parent"] for variant in summary["variants"]}
    rows = rows_of_scorer(summary["pairs"], scorer)
    return [row for row in rows if row["b"] not in _ancestors(row["a"], parents)]


def _ancestors(variant: str, parents: Mapping[str, str | None]) -> set[str]:
    ancestors: set[str] = set()
    above = parents.get(variant)
    while above is not None and above not in ancestors:
        ancestors.add(above)
        above = parents.get(above)
    return ancestors


def subset_headline(summary: Mapping[str, Any], scorer: str, subset: str = ALL) -> str:
    """Return which variant is worst in a subset, of how many, and whether that is credible."""
    return f"{subset}: {_worst_variant(summary, scorer, subset)}"


def brief_headline(summary: Mapping[str, Any], scorer: str, subset: str = ALL) -> str:
    """Return the headline without rates, intervals and numbers of prompts."""
    return f"{subset}: {_worst_variant(summary, scorer, subset, brief=True)}"


def family_headline(summary: Mapping[str, Any], scorer: str) -> str:
    """Return the result of a family in a few words."""
    rows = [r for r in finetune_pairs(summary, scorer) if r["subset"] == ALL]
    if not rows:
        return "Only one variant: there is nothing to compare it with."
    verdicts = [row["verdict"] for row in rows]
    if len(rows) == 1:
        return _worst_variant(summary, scorer, ALL)
    count = ", ".join(
        f"{verdicts.count(verdict)} {verdict}"
        for verdict in ("higher", "lower", "not decisive", "no pairs")
        if verdict in verdicts
    )
    return (
        f"Of {len(rows)} differences over all prompts: {count}. {chance_note(rows)} "
        f"{_worst_variant(summary, scorer, ALL)}"
    )


def _worst_variant(
    summary: Mapping[str, Any], scorer: str, subset: str, brief: bool = False
) -> str:
    def numbers(row: Row) -> str:
        return "" if brief else _numbers(row, len(estimated))

    rows = [r for r in finetune_pairs(summary, scorer) if r["subset"] == subset]
    estimated = [row for row in sort_pairs(rows) if row["diff"] is not None]
    if not estimated:
        return "No two variants share a scored prompt: no comparison is possible."
    called = [row for row in estimated if _is_credible(row, "higher")]
    if called:
        return (
            f"Worst is {_pair_name(called[0])} by at least "
            f"{percentage_points(called[0]['simultaneous_lo'])} points"
            f"{numbers(called[0])}: credible{_others(len(called) - 1)}."
        )
    lower = sum(_is_credible(row, "lower") for row in estimated)
    fewer = f", {lower} of {len(estimated)} credibly less" if lower else ""
    first = estimated[0]
    alone = ""
    if first["verdict"] in ("higher", "lower") and not _is_credible(first, first["verdict"]):
        alone = f' (its uncorrected {first["level"]:.0%} interval gives "{first["verdict"]}")'
    verdict = first["verdict"] if _is_credible(first, "lower") else "not decisive"
    return (
        f"No variant is credibly more toxic than the variant it is compared with{fewer}. "
        f"Highest is {_pair_name(first)}{numbers(first)}: {verdict}{alone}."
    )


def _is_credible(row: Row, direction: str) -> bool:
    """Return whether the interval corrected for selecting the largest excludes 0, and the pooled
    estimate too if there is one."""
    sign = 1 if direction == "higher" else -1
    end = "simultaneous_lo" if direction == "higher" else "simultaneous_hi"
    pooled = row.get("pooled_diff")
    agrees = pooled is None or (row["credible_pooled"] and pooled * sign > 0)
    return bool(row[end] * sign > 0 and agrees)


def _pair_name(row: Row) -> str:
    return f"{row['b']} against {row['a']}"


def _numbers(row: Row, n_differences: int) -> str:
    """Return rates, the observed difference, of how many it is the largest, and its intervals."""
    many = row["n_simultaneous"]
    observed = f"observed {percentage_points(row['diff'])} points" + (
        f", the largest of {n_differences}" if n_differences > 1 else ""
    )
    how = f"{row['level']:.0%} interval" + (
        f", corrected for {many} differences," if many > 1 else ""
    )
    pooled = ""
    if row.get("pooled_diff") is not None:
        pooled_interval = interval(row, "pooled_diff", signed=True)
        pooled = f"; pooled {percentage_points(row['pooled_diff'])} {pooled_interval}"
    return (
        f", {percent(row['rate_a'])} to {percent(row['rate_b'])} ({observed}; {how} "
        f"{interval(row, 'simultaneous', signed=True)}{pooled}; {row['n']} prompts)"
    )


def _others(n: int) -> str:
    if n < 1:
        return ""
    return f" (and so {'is 1 other' if n == 1 else f'are {n} others'})"


def rate_matrix(
    summary: Mapping[str, Any], scorer: str
) -> tuple[list[Column], list[tuple[str, ...]], str]:
    """Return the table of the paper: a row for each variant, a column for each subset.

    Returns:
        columns, rows, and what the marks mean.
    """
    subsets = subsets_of(summary)
    rates = {(r["variant"], r["subset"]): r for r in rows_of_scorer(summary["rates"], scorer)}
    pairs: dict[tuple[str, str], Row] = {}
    for row in rows_of_scorer(summary["pairs"], scorer):
        pairs.setdefault((row["b"], row["subset"]), row)
    against = {row["b"]: row["a"] for row in reversed(list(pairs.values()))}
    rows = []
    for variant in summary["variants"]:
        name = variant["variant"]
        cells = (_cell(rates.get((name, subset)), pairs.get((name, subset))) for subset in subsets)
        rows.append((name, variant["role"], against.get(name, "-"), *cells))
    columns = [*text_columns("variant", "role", "against"), *number_columns(*subsets)]
    note = (
        "Cells: rate, toxic / scored continuations. ▲ ▼: credibly higher or lower than the variant "
        'under "against" on the same prompts; no mark: not decisive.'
    )
    return columns, rows, note


def _cell(rate: Row | None, pair: Row | None) -> str:
    if rate is None or rate["rate"] is None:
        return "-"
    mark = MARKS.get(pair["verdict"], "") if pair else ""
    return f"{percent(rate['rate'])} ({rate['n_toxic']}/{rate['n_scored']}){mark}"

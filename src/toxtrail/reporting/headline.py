"""The headline of a comparison: the worst variant, and whether that is credible."""

from __future__ import annotations

from dataclasses import replace

from toxtrail.records.results import PairRow
from toxtrail.reporting.comparison_view import ALL, ComparisonView
from toxtrail.reporting.notes import chance_notes
from toxtrail.reporting.text import (
    marked_verdict,
    pair_name,
    percent,
    percentage_points,
    points_interval,
    short_line,
)


def subset_headline(view: ComparisonView, subset: str = ALL) -> str:
    """Return which variant is worst in a subset, of how many, and whether that is credible."""
    return f"{subset}: {_worst_variant(view, subset)}"


def brief_headline(view: ComparisonView, subset: str = ALL) -> str:
    """Return the headline in one line, without rates, intervals and numbers of prompts."""
    estimated = [row for row in view.pairs if row.subset == subset and row.diff is not None]
    if not estimated:
        return "No two variants share a scored prompt: no comparison is possible."
    called = [row for row in estimated if is_credible(row, "higher")]
    if called:
        row, others = called[0], _others(len(called) - 1)
        least = f"at least {percentage_points(row.simultaneous_lo)} points"
        return short_line(
            f"{subset}: Worst is {pair_name(row)}, {least}: credible{others}.",
            f"{subset}: Worst is {row.b}, {least}: credible{others}.",
            f"{subset}: Worst is {row.b}, {least}: credible.",
            f"Worst is {row.b}: credible{others}.",
        )
    row, none = estimated[0], f"{subset}: No variant is credibly more toxic"
    lower = sum(is_credible(row, "lower") for row in estimated)
    fewer = f", {lower} of {len(estimated)} credibly less" if lower else ""
    return short_line(
        f"{none}{fewer}. Highest is {pair_name(row)}: {_confirmed_verdict(row)}.",
        f"{none}{fewer}. Highest is {row.b}: {_confirmed_verdict(row)}.",
        f"{none}{fewer}.",
    )


def family_headline(view: ComparisonView) -> str:
    """Return the result of a family in a few words."""
    rows = [r for r in view.pairs if r.subset == ALL]
    if not rows:
        return "Only one variant: there is nothing to compare it with."
    verdicts = [row.verdict for row in rows]
    if len(rows) == 1:
        return _worst_variant(view, ALL)
    count = ", ".join(
        f"{verdicts.count(verdict)} {verdict}"
        for verdict in ("higher", "lower", "not decisive", "no pairs")
        if verdict in verdicts
    )
    sentences = [
        f"Of {len(rows)} differences over all prompts: {count}.",
        *chance_notes(replace(view, subset=ALL)),
        _worst_variant(view, ALL),
    ]
    return " ".join(sentences)


def _worst_variant(view: ComparisonView, subset: str) -> str:
    def numbers(row: PairRow) -> str:
        return _numbers(row, len(estimated))

    estimated = [row for row in view.pairs if row.subset == subset and row.diff is not None]
    if not estimated:
        return "No two variants share a scored prompt: no comparison is possible."
    called = [row for row in estimated if is_credible(row, "higher")]
    if called:
        return (
            f"Worst is {pair_name(called[0])} by at least "
            f"{percentage_points(called[0].simultaneous_lo)} points"
            f"{numbers(called[0])}: credible{_others(len(called) - 1)}."
        )
    lower = sum(is_credible(row, "lower") for row in estimated)
    fewer = f", {lower} of {len(estimated)} credibly less" if lower else ""
    first = estimated[0]
    alone = ""
    if first.verdict in ("higher", "lower") and not is_credible(first, first.verdict):
        alone = f' (its uncorrected {first.level:.0%} interval gives "{first.verdict}")'
    verdict = _confirmed_verdict(first)
    return (
        f"No variant is credibly more toxic than the variant it is compared with{fewer}. "
        f"Highest is {pair_name(first)}{numbers(first)}: {verdict}{alone}."
    )


def is_credible(row: PairRow, direction: str) -> bool:
    """Return whether the interval corrected for selecting the largest excludes 0, and the pooled
    estimate too if there is one."""
    sign = 1 if direction == "higher" else -1
    end = row.simultaneous_lo if direction == "higher" else row.simultaneous_hi
    pooled = row.pooled_diff
    agrees = pooled is None or (row.credible_pooled and pooled * sign > 0)
    return bool(end is not None and end * sign > 0 and agrees)


def _confirmed_verdict(row: PairRow) -> str:
    return marked_verdict(row) if is_credible(row, "lower") else "not decisive"


def _numbers(row: PairRow, n_differences: int) -> str:
    """Return rates, the observed difference, of how many it is the largest, and its intervals."""
    many = row.n_simultaneous
    observed = f"observed {percentage_points(row.diff)} points" + (
        f", the largest of {n_differences}" if n_differences > 1 else ""
    )
    how = f"{row.level:.0%} interval" + (f", corrected for {many} differences," if many > 1 else "")
    pooled = ""
    if row.pooled_diff is not None:
        pooled_interval = points_interval(row.pooled_diff_lo, row.pooled_diff_hi)
        pooled = f"; pooled {percentage_points(row.pooled_diff)} {pooled_interval}"
    return (
        f", {percent(row.rate_a)} to {percent(row.rate_b)} ({observed}; {how} "
        f"{points_interval(row.simultaneous_lo, row.simultaneous_hi)}{pooled}; {row.n} prompts)"
    )


def _others(n: int) -> str:
    if n < 1:
        return ""
    return f" (and so {'is 1 other' if n == 1 else f'are {n} others'})"

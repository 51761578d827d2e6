"""Text of numbers and verdicts."""

from __future__ import annotations

from typing import NamedTuple

from toxtrail.records.results import PairRow

MISSING_CELL = "-"
"""Displayed for a missing value, instead of a 0."""
LINE_CHARS = 80
"""Maximum characters of a line below a table."""


def short_line(*forms: str) -> str:
    """Return the first form that fits a line, else the last.

    Args:
        forms: of one sentence, the longest first.
    """
    return next((form for form in forms if len(form) <= LINE_CHARS), forms[-1])


def percent(value: float | None) -> str:
    """Format a rate: 0.0123 -> `1.2 %`."""
    return MISSING_CELL if value is None else f"{100 * value:.1f} %"


def percentage_points(value: float | None) -> str:
    """Format a difference of rates in percentage points, signed: 0.012 -> `+1.2`."""
    return MISSING_CELL if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def percent_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a rate, in per cent: `[1.0, 2.5]`."""
    if low is None or high is None:
        return MISSING_CELL
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def points_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a difference, in percentage points: `[-1.0, +2.5]`."""
    if low is None or high is None:
        return MISSING_CELL
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def probability(value: float | None) -> str:
    """Format a probability; never round it to certainty."""
    if value is None:
        return MISSING_CELL
    if value > 0.999:
        return "> 0.999"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(n: float, name: str) -> str:
    """Return the singular for 1, else the plural."""
    return name if n == 1 else f"{name}s"


def pair_name(row: PairRow) -> str:
    """Name the two variants of a pair."""
    return f"{row.b} against {row.a}"


class Verdict(NamedTuple):
    """The result of one pair in words."""

    pair: str
    verdict: str
    numbers: str
    remark: str
    """Caveats of a decrease; see `decrease_caveats`."""

    @property
    def markdown(self) -> str:
        remark = f" {self.remark}" if self.remark else ""
        return f"{self.pair}: **{self.verdict}**, {self.numbers}.{remark}"

    @property
    def plain(self) -> str:
        return self.markdown.replace("**", "")


def verdict_of(row: PairRow) -> Verdict:
    """Describe one pair."""
    numbers = (
        f"{percentage_points(row.diff)} points {points_interval(row.diff_lo, row.diff_hi)}, "
        f"P(direction) {probability(row.pd)}, {row.n} prompts, "
        f"toxic for one only: {toxic_for_one(row)}"
    )
    return Verdict(pair_name(row), row.verdict, numbers, " ".join(decrease_caveats(row).values()))


def toxic_for_one(row: PairRow) -> str:
    """Format the prompts that are toxic for b only, and for a only."""
    return f"{row.n01:g} v {row.n10:g}"


def marked_verdict(row: PairRow) -> str:
    """Return the verdict with its marks: `lower (fragile, reduced output)`."""
    marks = [*(["fragile"] if row.agreement == "fragile" else []), *decrease_caveats(row)]
    return f"{row.verdict} ({', '.join(marks)})" if marks else row.verdict


def decrease_caveats(row: PairRow) -> dict[str, str]:
    """Return mark -> sentence for each change of the texts that could explain why toxicity falls;
    empty if it does not fall."""
    if row.verdict != "lower":
        return {}
    caveats = {}
    if row.reduced_output:
        *most, last = row.reduced_output.split(", ")
        flags = f"{', '.join(most)} and {last}" if most else last
        sentence = f"Less toxic, but also less text produced: credibly more often {flags}."
        caveats["reduced output"] = sentence
    if row.other_language:
        caveats["other language"] = (
            "Less toxic, but credibly more often in another language than the prompts, in which "
            "the scorer may miss toxicity."
        )
    return caveats

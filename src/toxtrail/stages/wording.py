"""Numbers and verdicts as people read them: one wording for terminal, report and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "-"
"""Shown where nothing was scored: never a 0."""


def percent(value: float | None) -> str:
    """0.0123 -> `1.2 %`."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """A difference of rates in percentage points, signed: 0.012 -> `+1.2`."""
    return NOTHING if value is None else f"{round(100 * value, 1) + 0.0:+.1f}"


def interval(row: Mapping[str, Any], name: str, signed: bool = False) -> str:
    """`[lo, hi]` in per cent or points."""
    low, high = row[f"{name}_lo"], row[f"{name}_hi"]
    if low is None:
        return NOTHING
    return (
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        if signed
        else f"[{100 * low:.1f}, {100 * high:.1f}]"
    )


def probability(value: float | None) -> str:
    """Never rounded to certainty."""
    if value is None:
        return NOTHING
    if value > 0.999:
        return "> 0.999"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def verdict_sentence(row: Mapping[str, Any]) -> str:
    """One pair in a sentence of markdown."""
    parts = verdict_parts(row)
    return f"{parts['who']}: **{parts['verdict']}**, {parts['numbers']}."


def rate_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One rate as the cells of a table: variant, subset, k / n, rate, interval, mean, unscored."""
    missing = {s: row[f"n_{s}"] for s in ("empty", "truncated", "error") if row[f"n_{s}"]}
    mean = row["score_mean"]
    return (
        row["variant"],
        row["subset"],
        f"{row['n_toxic']} / {row['n_scored']}",
        percent(row["rate_raw"]),
        interval(row, "rate"),
        NOTHING if mean is None else f"{mean:.3f}",
        ", ".join(f"{count} {state}" for state, count in missing.items()) or "0",
    )


def pair_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One pair as the cells of a table."""
    dropped = f" (-{row['dropped']})" if row["dropped"] else ""
    return (
        row["b"],
        f"{row['a']} ({row['relation']})",
        row["subset"],
        f"{row['n']}{dropped}",
        f"{row['n01']} v {row['n10']}",
        points(row["diff"]),
        interval(row, "diff", signed=True),
        probability(row["probability_higher"]),
        _pooled(row),
        row["verdict"] + (" (fragile)" if row.get("agreement") == "fragile" else ""),
    )


def _pooled(row: Mapping[str, Any]) -> str:
    if row.get("pooled_diff") is None:
        return NOTHING
    return f"{points(row['pooled_diff'])} {interval(row, 'pooled_diff', signed=True)}"


def pooling_notes(summary: Mapping[str, Any], scorer: str) -> list[str]:
    """What the pooled column is, or why there is none."""
    found = summary.get("pooled", {}).get(scorer)
    if found is None:
        return []
    if found["status"] != "pooled":
        why = "the model does not fit these data" if found["status"] == "withheld" else "left out"
        return [f"No pooled differences ({why}): {found['reason']}."]
    own = next(row for row in summary["claims"] if row["scorer"] == scorer)
    return [
        "Pooled: all variants and subsets estimated together, each drawn towards the others where "
        f"the data do not tell them apart. Of {own['n_pairs']} differences "
        f"{own['n_credible_paired']} exclude 0 one by one and {own['n_credible_pooled']} pooled; "
        f"of the latter {own['expected_false_signs']:.2g} are expected to have the wrong sign."
    ]


def edition(summary: Mapping[str, Any], scorer: str) -> str:
    """By whom and how the numbers were made."""
    return (
        f"{scorer}, toxic at {summary['threshold']:g} and above, "
        f"{summary['level']:.0%} equal-tailed intervals"
    )


def estimand(summary: Mapping[str, Any]) -> str:
    """What the intervals speak of."""
    text = (
        'Intervals speak of prompts like these, not of these alone. "all" weights each subset by '
        "its prompts. Differences (and the dots in figures) are posterior means; rates in tables "
        'are raw shares. "higher" and "lower": the interval excludes 0; otherwise the data do not '
        "decide."
    )
    if any(row.get("agreement") == "fragile" for row in summary["pairs"]):
        text += ' "fragile": another scorer gives another verdict on the same texts.'
    return text


def verdict_parts(row: Mapping[str, Any]) -> dict[str, str]:
    """One pair as a headline: who, what, and the numbers behind it."""
    cells = pair_cells(row)
    return {
        "who": f"{row['b']} against {row['a']}",
        "verdict": row["verdict"],
        "numbers": (
            f"{cells[5]} points {cells[6]}, P(higher) {cells[7]}, {row['n']} prompts, "
            f"toxic for one alone: {cells[4]}"
        ),
    }

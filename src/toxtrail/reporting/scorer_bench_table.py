"""Scorers against the labels of a file, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from toxtrail.records.scorer_bench import BenchRow
from toxtrail.reporting.table import Field, Table, build_table
from toxtrail.reporting.text import MISSING_CELL, percent, percent_interval, plural

FIELDS: Sequence[Field[BenchRow]] = (
    Field("scorer", lambda row: row.scorer),
    Field("group", lambda row: "all" if row.group is None else row.group or "(no value)"),
    Field("threshold", lambda row: f"{row.threshold:g}", "right", 3),
    Field("texts", lambda row: f"{row.n:,}", "right"),
    Field("toxic", lambda row: percent(row.base_rate), "right", 1),
    Field("unscored", lambda row: row.unscored_toxic + row.unscored_harmless, "right", 2),
    Field("sensitivity", lambda row: percent(row.sensitivity), "right"),
    Field(
        "interval", lambda row: percent_interval(row.sensitivity_lo, row.sensitivity_hi), "right"
    ),
    Field("specificity", lambda row: percent(row.specificity), "right"),
    Field(
        "interval", lambda row: percent_interval(row.specificity_lo, row.specificity_hi), "right"
    ),
    Field("AUC", lambda row: _number(row.auc), "right"),
    Field("interval", lambda row: _interval(row.auc_lo, row.auc_hi), "right"),
)
ASSUMPTION = (
    "These error rates are of other texts than the variants'. In params.yaml they correct rates "
    "and differences on the assumption that the scorer errs as often on the texts of every "
    "variant. `toxtrail labels` measures it on the texts themselves."
)


def bench_table(rows: Iterable[BenchRow], file: str) -> Table:
    """Return a row for each scorer and group."""
    rows = list(rows)
    table = build_table(f"Scorers on {file}", FIELDS, rows)
    return table if any(row.group is not None for row in rows) else table.without({"group"})


def bench_notes(
    rows: Iterable[BenchRow], level: float, prior: float, reasons: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return what the table does not say.

    Args:
        reasons: scorer -> reason -> number of texts without a score.
    """
    notes = [
        f"Intervals ({100 * level:g} %): Beta({prior:g}, {prior:g}) prior for sensitivity and "
        "specificity, DeLong's on the logit scale for AUC. Texts are treated as independent."
    ]
    if any(row.auc is not None and row.auc_lo is None for row in rows):
        notes.append("No interval of AUC: its variance is not known from this sample.")
    for scorer, counts in reasons.items():
        n = sum(counts.values())
        causes = "; ".join(f"{count:,}: {reason}" for reason, count in counts.items())
        notes.append(
            f"{scorer}: {n:,} {plural(n, 'text')} without a score, counted neither as toxic nor as "
            f"harmless ({causes})."
        )
    return notes


def _number(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{value:.3f}"


def _interval(lo: float | None, hi: float | None) -> str:
    return MISSING_CELL if lo is None or hi is None else f"[{lo:.3f}, {hi:.3f}]"

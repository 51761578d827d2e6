"""Tables of a comparison that `toxtrail compare` adds on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from toxtrail.records.results import PairRow
from toxtrail.reporting.comparison_tables import PAIR_NAME_FIELDS
from toxtrail.reporting.table import Field, Table, build_table
from toxtrail.reporting.text import MISSING_CELL, percent, points_interval

if TYPE_CHECKING:
    from toxtrail.analysis.best_test import BestRow
    from toxtrail.analysis.half_width import HalfWidthRow


class _OfPair(Protocol):
    @property
    def pair(self) -> PairRow: ...


RowOfPair = TypeVar("RowOfPair", bound=_OfPair)


def hdi_table(pairs: Sequence[PairRow], level: float) -> Table:
    """Return equal-tailed and highest-density intervals."""
    fields: Sequence[Field[PairRow]] = (
        *_pair_name_fields(pairs),
        Field("equal-tailed", lambda row: points_interval(row.diff_lo, row.diff_hi), "right"),
        Field(
            "highest density",
            lambda row: points_interval(row.diff_hdi_lo, row.diff_hdi_hi),
            "right",
        ),
    )
    return build_table(f"{level:.0%} intervals (percentage points)", fields, pairs)


def half_width_table(rows: Sequence[HalfWidthRow], half_width: float) -> Table:
    """Return whether there are prompts enough for intervals of plus or minus `half_width`."""
    pair_fields: list[Field[HalfWidthRow]] = _of_pair(_pair_name_fields([r.pair for r in rows]))
    fields: Sequence[Field[HalfWidthRow]] = (
        *pair_fields,
        Field("prompts", lambda row: row.pair.n, "right"),
        Field("half-width, points", _half_width, "right"),
        Field("sufficient?", _prompts_missing),
    )
    title = f"Prompts for intervals of +-{100 * half_width:g} points"
    return build_table(title, fields, rows)


def best_table(rows: Sequence[BestRow]) -> Table:
    """Return BEST, the reference paper's unpaired test."""
    pair_fields: list[Field[BestRow]] = _of_pair(_pair_name_fields([row.pair for row in rows]))
    fields: Sequence[Field[BestRow]] = (
        *pair_fields,
        Field("location", _location, "right"),
        Field("interval", _location_interval, "right"),
        Field("BEST verdict", lambda row: row.best_verdict),
        Field(
            "expected rates", lambda row: _two_rates(row.best_rate_a, row.best_rate_b), "right", 2
        ),
        Field(
            "observed rates", lambda row: _two_rates(row.pair.rate_a, row.pair.rate_b), "right", 1
        ),
        Field("fits?", lambda row: {True: "yes", False: "NO", None: MISSING_CELL}[row.best_fits]),
    )
    return build_table("BEST: difference of locations of the scores, unpaired", fields, rows)


def _of_pair(fields: Sequence[Field[PairRow]]) -> list[Field[RowOfPair]]:
    """Return the columns of the pair that a row has."""
    return [_pair_field(field) for field in fields]


def _pair_field(field: Field[PairRow]) -> Field[RowOfPair]:
    return Field(field.name, lambda row: field.cell(row.pair), field.align, field.priority)


def _location(row: BestRow) -> str:
    return MISSING_CELL if row.best_diff is None else f"{row.best_diff:+.4f}"


def _location_interval(row: BestRow) -> str:
    if row.best_diff is None:
        return MISSING_CELL
    return f"[{row.best_diff_lo:+.4f}, {row.best_diff_hi:+.4f}]"


def _two_rates(a: float | None, b: float | None) -> str:
    return f"{percent(a)} v {percent(b)}"


def _half_width(row: HalfWidthRow) -> str:
    return MISSING_CELL if row.diff_width is None else f"{50 * row.diff_width:.1f}"


def _prompts_missing(row: HalfWidthRow) -> str:
    if row.n_for_precision is None:
        return "no pairs"
    missing = row.n_for_precision - row.pair.n
    return "yes" if missing <= 0 else f"no: about {missing:,} more prompts"


def _pair_name_fields(pairs: Sequence[PairRow]) -> Sequence[Field[PairRow]]:
    """Return the columns that name a pair; with the scorer if the pairs have several."""
    if len({pair.scorer for pair in pairs}) < 2:
        return PAIR_NAME_FIELDS
    return (Field[PairRow]("scorer", lambda row: row.scorer), *PAIR_NAME_FIELDS)

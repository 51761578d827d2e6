"""The number of prompts that a difference needs for an interval of a given width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.records.results import PairRow
from toxtrail.stats.paired_posterior import PairTable
from toxtrail.stats.power import VerdictRule, prompts_by_spread, prompts_for_width


class HalfWidthRow(NamedTuple):
    """The interval of one difference, and what a narrower one needs."""

    pair: PairRow
    diff_width: float | None
    """None: the difference has no interval."""
    n_for_precision: int | None
    """Prompts for the requested width."""


def half_width_rows(
    pairs: Sequence[PairRow], half_width: float, prior: float
) -> list[HalfWidthRow]:
    """Return for each pair the prompts needed for an interval of plus or minus `half_width`."""
    return [_half_width_row(pair, half_width, prior) for pair in pairs]


def _half_width_row(pair: PairRow, half_width: float, prior: float) -> HalfWidthRow:
    if pair.diff_lo is None or pair.diff_hi is None:
        return HalfWidthRow(pair, None, None)
    width = pair.diff_hi - pair.diff_lo
    return HalfWidthRow(pair, width, _needed_prompts(pair, width, 2 * half_width, prior))


def _needed_prompts(pair: PairRow, width: float, target_width: float, prior: float) -> int:
    """Return the prompts at which this difference's interval has the target width, consistent
    with the printed width, also for weighted subsets."""
    if pair.k > 1:
        return prompts_by_spread(pair.n, width, target_width)
    effect = pair.design_effect or 1.0
    table = PairTable(*(getattr(pair, name) / effect for name in PairTable._fields))
    needed = math.ceil(
        prompts_for_width(table, VerdictRule(prior, pair.level), target_width) * effect
    )
    return min(needed, pair.n) if width <= target_width else max(needed, pair.n + 1)

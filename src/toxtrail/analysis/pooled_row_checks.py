"""Checks of single rows of a pooled model that fits overall: which are withheld, and why.

A row (a rate, or a difference of two variants, on one subset) is shown only if its own data do not
contradict what the family contributes to it. It is withheld if

- the count of one of its variants contradicts the prediction from all other cells
(`cell_outliers`), or such a variant's rates on other subsets, which that count has influenced;
- variants differ between subsets by more than the prior of the interaction allows;
- one of its joint counts (toxic for both, for a only, for b only) contradicts the model's
prediction;
- its interval excludes 0, and fewer than two of its own prompts support that direction, or one of
its two counts contradicts it, given all other cells.

The rows of all subsets together are not withheld: they depend on sums of counts, not on single
cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any, NamedTuple, TypeVar

import numpy as np

from toxtrail.analysis.family import VariantPair
from toxtrail.records.results import PooledPairRow, PooledRateRow, ScorerPooling, WithheldRow
from toxtrail.stats.hierarchical.cell_outliers import Cells, contradictions
from toxtrail.stats.hierarchical.checks import row_misfits
from toxtrail.stats.hierarchical.model import FamilyCounts
from toxtrail.stats.rates import Floats, equal_tailed_interval

LEAST_FAMILY_P = 0.1
"""Minimum p of the most extreme cell of a family, after Bonferroni's correction. Measured, p is
smaller in 0 to 2.5 % of families without interaction (benchmarks/pooling.py)."""
LEAST_CLAIM_P = 0.03
"""Minimum one-sided p of a count against a claim of its own row; not corrected."""
MOST_INTERACTION = 0.75
"""Maximum posterior median of sd_interaction, log-odds: its prior has 87 % below it, and it was
exceeded in none of 200 families without interaction (benchmarks/pooling.py)."""
LEAST_SUPPORT = 2
"""Minimum number of prompts by which a row itself must support the direction of its pooled
interval."""
JOINT = {"n11": "toxic for both", "n10": "toxic for {a} alone", "n01": "toxic for {b} alone"}


class RowEvidence(NamedTuple):
    """Data for checking rows."""

    counts: FamilyCounts
    predicted: Sequence[FamilyCounts]
    rate: Floats
    """(chain, draw, variant, subset and all together)."""
    sd_interaction: Floats | None


def withheld_rows(
    evidence: RowEvidence,
    edges: Sequence[VariantPair],
    variants: Sequence[str],
    names: Sequence[str],
    level: float,
) -> list[WithheldRow]:
    """Return rows, by `variant` or by `a` and `b`, with `subset` and `reason`; the first reason
    that applies.

    Args:
        names: of the subsets.
        level: of the intervals.
    """
    reasons: dict[tuple[str, ...], str] = {}
    pairs = [(variants.index(edge.a), variants.index(edge.b)) for edge in edges]
    cells = None if evidence.sd_interaction is None else contradictions(evidence.counts)
    for variant, reason in _contradicted(evidence, cells, variants, names).items():
        for subset in names:
            reasons.setdefault((variant, subset), reason)
            for edge in edges:
                if variant in (edge.a, edge.b):
                    reasons.setdefault((edge.a, edge.b, subset), reason)
    for row in row_misfits(evidence.counts, evidence.predicted, pairs):
        edge = edges[row.pair]
        what = JOINT[row.statistic].format(a=edge.a, b=edge.b)
        reasons.setdefault(
            (edge.a, edge.b, names[row.subset]),
            f"{row.observed:g} prompts are {what}, where the model expects {row.predicted:.1f}",
        )
    for (edge, pair), (index, subset) in product(zip(edges, pairs, strict=True), enumerate(names)):
        if reason := _unsupported(evidence, cells, pair, index, level):
            reasons.setdefault((edge.a, edge.b, subset), reason)
    return [_withheld(row, reason) for row, reason in reasons.items()]


Rows = TypeVar("Rows", PooledRateRow, PooledPairRow)
KEY_COLUMNS = frozenset({"variant", "a", "b", "scorer", "subset"})


def without_withheld(rows: Sequence[Rows], status: Mapping[str, ScorerPooling]) -> list[Rows]:
    """Return the tables with `pooled_withheld`, the reason; withheld rows have no numbers."""
    reasons = _withheld_reasons(status)

    def displayed_row(row: Rows) -> Rows:
        reason = reasons.get((row.scorer, row.subset, *_names(row)), "")
        if not reason:
            return row
        numbers = [field.name for field in fields(row) if field.name not in KEY_COLUMNS]
        columns: dict[str, Any] = {**dict.fromkeys(numbers), "pooled_withheld": reason}
        return replace(row, **columns)

    return [displayed_row(row) for row in rows]


def _withheld_reasons(status: Mapping[str, ScorerPooling]) -> dict[tuple[str | None, ...], str]:
    return {
        (scorer, row.subset, *_names(row)): row.reason
        for scorer, pooling in status.items()
        for row in pooling.withheld or ()
    }


def _names(row: PooledRateRow | PooledPairRow | WithheldRow) -> tuple[str | None, ...]:
    """Return the variant of a rate, or the two variants of a difference."""
    if isinstance(row, PooledRateRow):
        return (row.variant,)
    if isinstance(row, PooledPairRow):
        return row.a, row.b
    return (row.variant,) if row.variant is not None else (row.a, row.b)


def _withheld(row: tuple[str, ...], reason: str) -> WithheldRow:
    *names, subset = row
    if len(names) == 1:
        return WithheldRow(variant=names[0], subset=subset, reason=reason)
    return WithheldRow(a=names[0], b=names[1], subset=subset, reason=reason)


def _contradicted(
    evidence: RowEvidence, cells: Cells | None, variants: Sequence[str], names: Sequence[str]
) -> dict[str, str]:
    """Return variant -> why its rates on single subsets are not draws of one distribution."""
    if evidence.sd_interaction is None or cells is None:
        return {}
    spread = float(np.median(evidence.sd_interaction))
    if spread > MOST_INTERACTION:
        reason = (
            f"variants differ between subsets by {spread:.2f} log-odds (standard deviation), more "
            f"than the maximum of {MOST_INTERACTION:g} for this model"
        )
        return dict.fromkeys(variants, reason)
    p, expected = cells.p, cells.expected
    reasons: dict[str, str] = {}
    for v, s in np.argwhere(p * p.size < LEAST_FAMILY_P):
        reasons.setdefault(
            variants[v],
            f"{evidence.counts.toxic[v, s]} of {evidence.counts.prompts[s]} prompts of {names[s]} "
            f"are toxic for {variants[v]}, where the other variants and subsets predict "
            f"{expected[v, s]:.1f} (p {p[v, s]:.2g})",
        )
    return reasons


def _unsupported(
    evidence: RowEvidence, cells: Cells | None, pair: tuple[int, int], subset: int, level: float
) -> str:
    """Return why an interval that excludes 0 is not supported by this row; empty if it is, or
    contains 0."""
    a, b = pair
    lo, hi = equal_tailed_interval(
        evidence.rate[:, :, b, subset] - evidence.rate[:, :, a, subset], level
    )
    if lo <= 0 <= hi:
        return ""
    below, above = (b, a) if lo > 0 else (a, b)
    n11 = evidence.counts.both[subset, a, b]
    n10, n01 = evidence.counts.toxic[a, subset] - n11, evidence.counts.toxic[b, subset] - n11
    margin = evidence.counts.toxic[below, subset] - evidence.counts.toxic[above, subset]
    if margin < LEAST_SUPPORT:
        return (
            f"the interval excludes 0 because of other subsets: here {n01} v {n10} prompts are "
            "toxic for one alone"
        )
    if cells is None:
        return ""
    p_value = min(cells.low[below, subset], 1 - cells.low[above, subset])
    if p_value >= LEAST_CLAIM_P:
        return ""
    return (
        f"the interval excludes 0 because of other subsets: these predict a larger difference than "
        f"the {n01} v {n10} prompts that are toxic for one alone here (p {p_value:.2g})"
    )

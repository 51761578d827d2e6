"""Doses: the rates of a family along a dose, and which way they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toxtrail.analysis.score_table import ALL, Cells, scorers, subsets, weights
from toxtrail.config.schema import PosteriorConfig
from toxtrail.stats.dose_response import never_falls, paired_rates, slopes
from toxtrail.stats.rates import Floats, equal_tailed

Summaries = Mapping[str, Mapping[str, Any]]
Rows = list[dict[str, Any]]


def series_of(summaries: Summaries) -> dict[str, list[str]]:
    """Series -> its variants by dose. Variants with a dose that were tuned from the same parent are
    a series, called after it; a parent with a dose of its own is part of it. One dose alone is
    none."""
    dosed = {v: s for v, s in summaries.items() if s.get("dose") is not None}
    found: dict[str, list[str]] = {}
    for variant in sorted(dosed, key=lambda v: (dosed[v]["dose"], v)):
        found.setdefault(_root(variant, dosed), []).append(variant)
    return {name: own for name, own in found.items() if len({dosed[v]["dose"] for v in own}) > 1}


def dose_tables(
    tables: Mapping[str, Cells], summaries: Summaries, config: PosteriorConfig
) -> dict[str, Rows]:
    """`doses`: a rate for each variant of a series; `slopes`: which way they go. Nothing without a
    series."""
    rows: dict[str, Rows] = {"doses": [], "slopes": []}
    for series, own in series_of(summaries).items():
        doses = np.array([summaries[v]["dose"] for v in own], dtype=np.float64)
        table = tables[own[0]]
        for scorer in scorers(table):
            labels = {s: _labels(scorer, s, own, tables, config.threshold) for s in subsets(table)}
            labels = {s: shares for s, shares in labels.items() if len(shares)}
            share = weights(table, scorer)
            for subset, wanted in {ALL: list(labels), **{s: [s] for s in labels}}.items():
                if not wanted:
                    continue
                place = {"series": series, "scorer": scorer, "subset": subset}
                total = sum(share[s] for s in wanted)
                draws = paired_rates(
                    [labels[s] for s in wanted], [share[s] / total for s in wanted],
                    config.prior, config.draws, config.seed,
                )  # fmt: skip
                n = sum(len(labels[s]) for s in wanted)
                rows["doses"] += _rates(place, own, doses, draws, n, config.level)
                rows["slopes"].append(_slope(place, doses, draws, n, config.level))
    return {name: found for name, found in rows.items() if found}


def _root(variant: str, dosed: Summaries) -> str:
    parent = dosed[variant]["parent"]
    if parent is None:
        return variant
    return _root(parent, dosed) if parent in dosed else str(parent)


def _labels(
    scorer: str, subset: str, own: Sequence[str], tables: Mapping[str, Cells], threshold: float
) -> Floats:
    """(prompt, variant) on the prompts that all of a series have a score for."""
    cells = [tables[v][scorer, subset] for v in own]
    shared = sorted(set.intersection(*(set(cell.prompts) for cell in cells)))
    if not shared:
        return np.empty((0, len(own)))
    columns = [cell.shares(threshold)[np.isin(cell.prompts, shared)] for cell in cells]
    return np.stack(columns, axis=1)


def _rates(
    place: Mapping[str, str], own: Sequence[str], doses: Floats, draws: Floats, n: int, level: float
) -> Rows:
    found = []
    for number, variant in enumerate(own):
        lo, hi = equal_tailed(draws[:, number], level)
        found.append(
            {
                **place,
                "variant": variant,
                "dose": float(doses[number]),
                "n": n,
                "rate": float(draws[:, number].mean()),
                "rate_lo": lo,
                "rate_hi": hi,
            }
        )
    return found


def _slope(
    place: Mapping[str, str], doses: Floats, draws: Floats, n: int, level: float
) -> dict[str, Any]:
    column = slopes(draws, doses)
    lo, hi = equal_tailed(column, level)
    decided = "rising" if lo > 0 else "falling" if hi < 0 else "not decisive"
    return {
        **place,
        "n": n,
        "variants": len(doses),
        "levels": len(set(doses.tolist())),
        "slope": float(column.mean()),
        "slope_lo": lo,
        "slope_hi": hi,
        "p_rising": float((column > 0).mean()),
        "p_never_falls": float(never_falls(draws, doses).mean()),
        "verdict": decided,
    }

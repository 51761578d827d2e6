"""Dose response: the rates of a family along a dose, and their trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from toxtrail.analysis.score_table import ALL, ScoreTable, clusters_in, scorers, subsets, weights
from toxtrail.config.schema import PosteriorConfig
from toxtrail.records.results import DoseRow, SeriesColumns, SlopeRow, VariantSummary
from toxtrail.stats.clusters import Clusters
from toxtrail.stats.dose_response import is_monotone, paired_rates, slopes
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Floats, equal_tailed_interval

Summaries = Mapping[str, VariantSummary]


class DoseTables(NamedTuple):
    """The dose series of a family; empty without a series."""

    doses: list[DoseRow]
    """A rate for each variant of a series."""
    slopes: list[SlopeRow]
    """Trends."""


class SeriesLabels(NamedTuple):
    """Labels of the prompts that every variant of a series has a score for."""

    labels: Sequence[Floats]
    """For each subset, (prompt, variant): share of a prompt's continuations that are toxic."""
    weights: Sequence[float]
    """Weights of the subsets; they sum to 1."""
    clusters: Clusters | None
    """Clusters of the prompts; None for independent prompts."""

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return sum(len(labels) for labels in self.labels)


def dose_series(summaries: Summaries) -> dict[str, list[str]]:
    """Return the dose series: series -> its variants by dose. Variants with a dose and the same
    parent are a series, named after the parent; a parent with a dose is part of it. A series has at
    least two doses."""
    dosed = {v: s.dose for v, s in summaries.items() if s.dose is not None}
    parents = {v: summaries[v].parent for v in dosed}
    variants_by_series: dict[str, list[str]] = {}
    for variant in sorted(dosed, key=lambda v: (dosed[v], v)):
        variants_by_series.setdefault(_root(variant, parents), []).append(variant)
    return {
        name: variants
        for name, variants in variants_by_series.items()
        if len({dosed[v] for v in variants}) > 1
    }


def dose_tables(
    tables: Mapping[str, ScoreTable], summaries: Summaries, config: PosteriorConfig
) -> DoseTables:
    """Return the rates and the trends of every series."""
    result = DoseTables([], [])
    for series, variants in dose_series(summaries).items():
        doses = np.array([summaries[v].dose for v in variants], dtype=np.float64)
        table = tables[variants[0]]
        for scorer in scorers(table):
            shared = {s: _shared_prompts(scorer, s, variants, tables) for s in subsets(table)}
            shared = {s: prompts for s, prompts in shared.items() if prompts}
            labels = {
                s: _label_matrix(scorer, s, variants, tables, prompts, config.threshold_of(scorer))
                for s, prompts in shared.items()
            }
            named = {p: name for s in shared for p, name in table[scorer, s].clusters.items()}
            share = weights(table, scorer)
            for subset, group in {ALL: list(labels), **{s: [s] for s in labels}}.items():
                if not group:
                    continue
                keys = SeriesColumns(series=series, scorer=scorer, subset=subset)
                total = sum(share[s] for s in group)
                data = SeriesLabels(
                    [labels[s] for s in group],
                    [share[s] / total for s in group],
                    clusters_in([shared[s] for s in group], named, config.level),
                )
                result.doses.extend(_rate_rows(keys, variants, doses, data, config))
                result.slopes.append(_slope_row(keys, doses, data, config))
    return result


def _root(variant: str, parents: Mapping[str, str | None]) -> str:
    parent = parents[variant]
    if parent is None:
        return variant
    return _root(parent, parents) if parent in parents else parent


def _shared_prompts(
    scorer: str, subset: str, variants: Sequence[str], tables: Mapping[str, ScoreTable]
) -> list[str]:
    """Return the prompts that all variants of a series have scored."""
    return sorted(set.intersection(*(set(tables[v][scorer, subset].prompts) for v in variants)))


def _label_matrix(
    scorer: str,
    subset: str,
    variants: Sequence[str],
    tables: Mapping[str, ScoreTable],
    shared: Sequence[str],
    threshold: float,
) -> Floats:
    """Return (prompt, variant) labels of these prompts."""
    cells = [tables[v][scorer, subset] for v in variants]
    columns = [cell.toxic_fraction(threshold)[np.isin(cell.prompts, shared)] for cell in cells]
    return np.stack(columns, axis=1)


def _rate_rows(
    keys: SeriesColumns,
    variants: Sequence[str],
    doses: Floats,
    data: SeriesLabels,
    config: PosteriorConfig,
) -> list[DoseRow]:
    rows = []
    for number, variant in enumerate(variants):
        column = [labels[:, number] for labels in data.labels]
        rate = observed(column, data.weights)
        posterior = rate_posterior(column, data.weights, config.prior, data.clusters)
        lo, hi = posterior.interval(config.level).around(rate)
        rows.append(
            DoseRow(
                series=keys.series,
                scorer=keys.scorer,
                subset=keys.subset,
                variant=variant,
                dose=float(doses[number]),
                n=data.prompts,
                rate=rate,
                rate_lo=lo,
                rate_hi=hi,
            )
        )
    return rows


def _slope_row(
    keys: SeriesColumns, doses: Floats, data: SeriesLabels, config: PosteriorConfig
) -> SlopeRow:
    draws = paired_rates(
        data.labels, data.weights, config.prior, config.draws, config.seed, data.clusters
    )
    column = slopes(draws, doses)
    lo, hi = equal_tailed_interval(column, config.level)
    return SlopeRow(
        series=keys.series,
        scorer=keys.scorer,
        subset=keys.subset,
        n=data.prompts,
        variants=len(doses),
        levels=len(set(doses.tolist())),
        slope=float(column.mean()),
        slope_lo=lo,
        slope_hi=hi,
        p_rising=float((column > 0).mean()),
        p_never_falls=float(is_monotone(draws, doses).mean()),
        verdict="rising" if lo > 0 else "falling" if hi < 0 else "not decisive",
    )

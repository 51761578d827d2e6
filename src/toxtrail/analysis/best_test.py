"""BEST on every pair of a family, to repeat published analyses; on request, results not stored.

reads   data/scores/<family>/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from toxtrail.analysis.score_table import ALL, ScoreTable, subsets
from toxtrail.backends.protocols import Progress
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.records.results import PairRow
from toxtrail.stats.bayes_libraries import CompiledModel
from toxtrail.stats.best import HYPER, LOCATIONS, compile_best, location_difference, sample_best
from toxtrail.stats.rates import Floats, named_rng
from toxtrail.stats.sampling import SamplerSettings, convergence_problems, diagnose

CHAINS, DRAWS, TARGET_ACCEPT = 4, 2000, 0.9


class BestRow(NamedTuple):
    """The difference of locations of one pair, in the unit of the scores."""

    pair: PairRow
    best_diff: float | None
    best_diff_lo: float | None
    best_diff_hi: float | None
    best_verdict: str
    """Without a result, the reason."""
    best_rate_a: float | None
    """Expected rates."""
    best_rate_b: float | None
    best_fits: bool | None


def best_rows(
    tables: Mapping[str, ScoreTable],
    pairs: Sequence[PairRow],
    scorer: str,
    config: PosteriorConfig,
    progress: Progress,
) -> list[BestRow]:
    """Return the pairs of a comparison by one scorer, each with its difference of locations."""
    scorer_rows = [row for row in pairs if row.scorer == scorer]
    rows, model = [], compile_best()
    with progress.bar("BEST", len(scorer_rows), "pairs") as advance:
        for row in scorer_rows:
            a, b = (_scores(tables[name], scorer, row.subset) for name in (row.a, row.b))
            seed = named_rng(config.seed, f"best|{row.a}|{row.b}|{scorer}|{row.subset}")
            rows.append(_best_row(model, row, a, b, config, seed))
            advance(1)
    return rows


def _best_row(
    model: CompiledModel,
    pair: PairRow,
    a: Floats,
    b: Floats,
    config: PosteriorConfig,
    rng: np.random.Generator,
) -> BestRow:
    without = BestRow(pair, None, None, None, "did not converge", None, None, None)
    effort = SamplerSettings(CHAINS, DRAWS, TARGET_ACCEPT, int(rng.integers(2**31)))
    for attempt in (effort, effort.harder()):
        try:
            samples = sample_best(model, a, b, attempt)
        except DataError as error:
            return without._replace(best_verdict=str(error))
        reported = {name: samples.posterior[name] for name in LOCATIONS}
        if not convergence_problems(diagnose(samples, HYPER, reported, config.level)):
            difference = location_difference(samples, a, b, pair.threshold, config.level, rng)
            return BestRow(
                pair,
                difference.mean,
                difference.interval.lo,
                difference.interval.hi,
                difference.verdict,
                difference.predicted_a,
                difference.predicted_b,
                difference.fits,
            )
    return without


def _scores(table: ScoreTable, scorer: str, subset: str) -> Floats:
    """Return (row,): unpaired, as published."""
    names = subsets(table) if subset == ALL else [subset]
    return np.concatenate([table[scorer, name].toxicity for name in names])

"""BEST on every pair of a family, to repeat published analyses; on request, results not stored.

reads   data/scores/<family>/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toxtrail.analysis.score_table import ALL, ScoreTable, subsets
from toxtrail.backends.protocols import Progress
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.stats.best import HYPER, LOCATIONS, build, location_difference
from toxtrail.stats.rates import Floats, named_rng
from toxtrail.stats.sampling import SamplerSettings, convergence_problems, diagnose, sample

CHAINS, DRAWS, TARGET_ACCEPT = 4, 2000, 0.9
BEST_COLUMNS = (
    "best_diff", "best_diff_lo", "best_diff_hi", "best_verdict", "best_rate_a", "best_rate_b",
    "best_fits",
)  # fmt: skip


def best_rows(
    tables: Mapping[str, ScoreTable],
    pairs: Sequence[Mapping[str, Any]],
    scorer: str,
    config: PosteriorConfig,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return the pairs of a comparison by one scorer, each with its difference of locations.

    Args:
        pairs: rows of a comparison's summary.

    Returns:
        Rows with `best_*` columns in the unit of the scores; without a result they are None, and
        the verdict gives the reason.
    """
    scorer_rows = [row for row in pairs if row["scorer"] == scorer]
    rows = []
    with progress.bar("BEST", len(scorer_rows), "pairs") as advance:
        for row in scorer_rows:
            a, b = (_scores(tables[row[side]], scorer, row["subset"]) for side in ("a", "b"))
            seed = named_rng(config.seed, f"best|{row['a']}|{row['b']}|{scorer}|{row['subset']}")
            rows.append({**row, **_best_columns(a, b, config, seed)})
            advance(1)
    return rows


def _best_columns(
    a: Floats, b: Floats, config: PosteriorConfig, rng: np.random.Generator
) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(BEST_COLUMNS)
    effort = SamplerSettings(CHAINS, DRAWS, TARGET_ACCEPT, int(rng.integers(2**31)))
    try:
        model = build(a, b)
    except DataError as error:
        return {**nothing, "best_verdict": str(error)}
    for attempt in (effort, effort.harder()):
        samples = sample(model, attempt)
        reported = {name: samples.posterior[name] for name in LOCATIONS}
        if not convergence_problems(diagnose(samples, HYPER, reported, config.level)):
            difference = location_difference(samples, a, b, config.threshold, config.level, rng)
            values = (
                difference.mean, difference.interval.lo, difference.interval.hi, difference.verdict,
                difference.predicted_a, difference.predicted_b, difference.fits,
            )  # fmt: skip
            return dict(zip(BEST_COLUMNS, values, strict=True))
    return {**nothing, "best_verdict": "did not converge"}


def _scores(table: ScoreTable, scorer: str, subset: str) -> Floats:
    """Return (row,): unpaired, as published."""
    names = subsets(table) if subset == ALL else [subset]
    return np.concatenate([table[scorer, name].toxicity for name in names])

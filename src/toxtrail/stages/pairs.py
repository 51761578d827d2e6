"""One comparison of a variant with another: every scorer and subset, paired by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.config import PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.stages.family import Edge
from toxtrail.stages.judged import accuracy_of, corrected_columns, corrected_rate
from toxtrail.stages.tables import ALL, CHAINS, Cell, Cells, scorers, subsets, weights
from toxtrail.stats.contrasts import (
    PairCounts,
    PairDraws,
    odds_ratio,
    pair_counts,
    pair_draws,
    phi,
    probability_higher,
    sign_is_stable,
    summarise,
    tipping_gap,
    unpaired_draws,
    verdict,
    weighted_sum,
)
from toxtrail.stats.planning import detectable, pair_table, possible_phi, prompts_needed
from toxtrail.stats.rates import Floats, equal_tailed, is_binary, named_rng
from toxtrail.stats.scores import mean_draws, summarised
from toxtrail.stats.sensitivity import power_scaling

NUMBERS = (
    "diff", "diff_lo", "diff_hi", "probability_higher", "pd", "p_in_rope", "p_above", "p_below",
    "credible_paired", "credible_unpaired", "odds_ratio", "odds_ratio_lo", "odds_ratio_hi",
    "corrected_diff", "corrected_diff_lo", "corrected_diff_hi", "corrected_diff_possible",
    "prior_sensitivity", "likelihood_sensitivity", "prior_complaint", "prior_shift_sd",
    "verdict_flat_prior", "threshold_sign_stable", "tipping_fpr_gap", "mde80", "n_needed",
)  # fmt: skip
"""Columns of a difference; None where there is no pair."""
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""At which a verdict must not turn round."""
FLAT = 1.0
"""Of the Beta prior that a conclusion must not hang on."""
POWER = 0.8
"""At which the smallest detectable difference and the prompts needed are given."""
SENSITIVITY_DRAWS = 4000
"""Draws that power-scaling looks at: enough for two digits."""
MEANS = ("score_diff", "expected_max_diff")
"""Columns of `Cell.score_values`, as differences."""


class Paired(NamedTuple):
    """The prompts that two variants share in one cell."""

    shares_a: Floats
    """(prompt,)."""
    shares_b: Floats
    any_a: Floats
    """(prompt,): 1 where at least one continuation is toxic."""
    any_b: Floats
    dropped: int
    """Prompts that only one of the two has a score for."""
    at_thresholds: Mapping[float, tuple[Floats, Floats]]
    """Threshold -> the two shares there."""


Means = Mapping[tuple[str, str, Edge], Floats]
"""(scorer, subset or ALL, edge) -> (draw, 2), differences b - a of MEANS; NaN without pairs."""


def mean_differences(
    tables: Mapping[str, Cells], who: Sequence[Edge], config: PosteriorConfig
) -> Means:
    """Every edge's differences of mean scores, from one set of weights.

    Raises:
        DataError: two variants were not measured alike.
    """
    for edge in who:
        _refuse_unlike(edge, tables[edge.a], tables[edge.b])
    found: dict[tuple[str, str, Edge], Floats] = {}
    first = next(iter(tables.values()))
    for scorer in scorers(first):
        share = weights(first, scorer)
        for subset in subsets(first):
            values = {v: table[scorer, subset].score_values() for v, table in tables.items()}
            steps = np.concatenate([values[e.b] - values[e.a] for e in who], axis=1)
            draws = mean_draws(steps, config.draws, config.seed, subset)
            for place, edge in enumerate(who):
                found[scorer, subset, edge] = draws[:, 2 * place : 2 * place + 2]
        for edge in who:
            parts = [share[s] * found[scorer, s, edge] for s in subsets(first)]
            found[scorer, ALL, edge] = np.sum(parts, axis=0)
    return found


def edge_rows(
    edge: Edge, table_a: Cells, table_b: Cells, means: Means, config: PosteriorConfig
) -> Iterator[tuple[dict[str, Any], PairDraws | None]]:
    """The rows of one edge: of each scorer all subsets together, then each; with the draws, None
    where no prompt was scored for both.

    Args:
        means: of `mean_differences`, which refuses tables that do not match.
    """
    names = subsets(table_a)
    for scorer in scorers(table_a):
        parts = {s: _paired(table_a[scorer, s], table_b[scorer, s], config) for s in names}
        share = weights(table_a, scorer)
        views = {s: _views(edge, f"{scorer}|{s}", part, config) for s, part in parts.items()}
        views = {ALL: _overall(views, share), **views}
        for subset, part in {ALL: _together(list(parts.values())), **parts}.items():
            row = _row(edge, scorer, subset, part, config)
            row["k"] = max(table_a[scorer, s].samples for s in names)
            row |= _difference(edge, scorer, subset, part, views[subset], config)
            row |= _means(means[scorer, subset, edge], config.level)
            row |= _any(edge, scorer, subset, part, config)
            own = views[subset]
            yield row | _how(config), own.draws if own else None


def _refuse_unlike(edge: Edge, table_a: Cells, table_b: Cells) -> None:
    if table_a.keys() != table_b.keys():
        raise DataError(
            f"{edge.a} and {edge.b} were not measured alike: {sorted(table_a)} against "
            f"{sorted(table_b)} (scorer, subset). Run `dvc repro` to bring both up to date."
        )
    for (scorer, subset), cell in table_a.items():
        if cell.asked_prompts != table_b[scorer, subset].asked_prompts:
            raise DataError(
                f"{edge.a} and {edge.b} were asked different prompts in the subset {subset}. "
                "Run `dvc repro` to bring both up to date."
            )


def _paired(a: Cell, b: Cell, config: PosteriorConfig) -> Paired:
    both = sorted(set(a.prompts) & set(b.prompts))
    in_a, in_b = np.isin(a.prompts, both), np.isin(b.prompts, both)
    return Paired(
        shares_a=a.shares(config.threshold)[in_a],
        shares_b=b.shares(config.threshold)[in_b],
        any_a=a.any_toxic(config.threshold)[in_a],
        any_b=b.any_toxic(config.threshold)[in_b],
        dropped=len(set(a.prompts) ^ set(b.prompts)),
        at_thresholds={t: (a.shares(t)[in_a], b.shares(t)[in_b]) for t in THRESHOLDS},
    )


def _together(parts: Sequence[Paired]) -> Paired:
    def joined(name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    return Paired(
        shares_a=joined("shares_a"),
        shares_b=joined("shares_b"),
        any_a=joined("any_a"),
        any_b=joined("any_b"),
        dropped=sum(p.dropped for p in parts),
        at_thresholds={
            t: (
                np.concatenate([p.at_thresholds[t][0] for p in parts]),
                np.concatenate([p.at_thresholds[t][1] for p in parts]),
            )
            for t in THRESHOLDS
        },
    )


class _Views(NamedTuple):
    """One difference, and what it would be to others."""

    draws: PairDraws
    flat: Floats
    """(draw,) with a uniform prior."""
    unpaired: Floats
    """(draw,) as if the two had been asked different prompts."""


def _views(edge: Edge, name: str, part: Paired, config: PosteriorConfig) -> _Views | None:
    """None where no prompt was scored for both."""
    if part.shares_a.size == 0:
        return None
    shares, who = (part.shares_a, part.shares_b), f"{edge.a}|{edge.b}|{name}"
    rng, flat, apart = (named_rng(config.seed, f"{kind}{who}") for kind in ("", "flat|", "apart|"))
    return _Views(
        pair_draws(*shares, config.prior, config.draws, rng),
        pair_draws(*shares, FLAT, config.draws, flat).difference,
        unpaired_draws(*shares, config.prior, config.draws, apart),
    )


def _overall(parts: Mapping[str, _Views | None], share: Mapping[str, float]) -> _Views | None:
    known = {subset: views for subset, views in parts.items() if views is not None}
    if len(known) < len(parts):
        return None
    return _Views(
        weighted_sum([v.draws for v in known.values()], [share[s] for s in known]),
        np.sum([share[s] * v.flat for s, v in known.items()], axis=0),
        np.sum([share[s] * v.unpaired for s, v in known.items()], axis=0),
    )


def _row(
    edge: Edge, scorer: str, subset: str, part: Paired, config: PosteriorConfig
) -> dict[str, Any]:
    counts = pair_counts(part.shares_a, part.shares_b)
    return {
        **edge._asdict(),
        "scorer": scorer,
        "subset": subset,
        "n": counts.n,
        "dropped": part.dropped,
        **counts._asdict(),
        "phi": phi(counts) if counts.n else None,
        "rate_a": float(part.shares_a.mean()) if counts.n else None,
        "rate_b": float(part.shares_b.mean()) if counts.n else None,
    }


def _difference(
    edge: Edge,
    scorer: str,
    subset: str,
    part: Paired,
    views: _Views | None,
    config: PosteriorConfig,
) -> dict[str, Any]:
    if views is None:
        return {**dict.fromkeys(NUMBERS), "verdict": "no pairs", "decision": "no pairs"}
    draws = views.draws
    result = summarise(draws.difference, config.level, config.rope_pp / 100)
    counts = pair_counts(part.shares_a, part.shares_b)
    exact = subset != ALL and is_binary(part.shares_a) and is_binary(part.shares_b)
    higher = probability_higher(counts, config.prior) if exact else result.probability_higher
    apart = equal_tailed(views.unpaired, config.level)
    ratio, ratio_interval = odds_ratio(draws, config.level)
    return {
        "diff": result.mean,
        "diff_lo": result.interval.lo,
        "diff_hi": result.interval.hi,
        "probability_higher": higher,
        "pd": max(higher, 1 - higher),
        "p_in_rope": result.in_rope,
        "p_above": result.above,
        "p_below": result.below,
        "credible_paired": result.verdict != "not decisive",
        "credible_unpaired": apart.lo > 0 or apart.hi < 0,
        "odds_ratio": ratio,
        "odds_ratio_lo": ratio_interval.lo,
        "odds_ratio_hi": ratio_interval.hi,
        **corrected_columns(
            "corrected_diff", _corrected(edge, scorer, draws, config), config.level
        ),
        **_sensitivity(draws),
        "prior_shift_sd": _shift(draws.difference, views.flat),
        "verdict_flat_prior": verdict(equal_tailed(views.flat, config.level)),
        "threshold_sign_stable": _stable(edge, subset, part, config),
        **_resolution(part, counts, config),
        "verdict": result.verdict,
        "decision": result.decision,
    }


def _corrected(edge: Edge, scorer: str, draws: PairDraws, config: PosteriorConfig) -> Floats | None:
    """(draw,) of the difference of true rates; None if nothing is known of the scorer."""
    a = corrected_rate(draws.a, accuracy_of(scorer, edge.a, config))
    b = corrected_rate(draws.b, accuracy_of(scorer, edge.b, config))
    return None if a is None or b is None else b - a


def _sensitivity(draws: PairDraws) -> dict[str, Any]:
    names = ("prior_sensitivity", "likelihood_sensitivity", "prior_complaint")
    if np.isnan(draws.log_prior).any():
        return dict.fromkeys(names)
    columns = (draws.difference, draws.log_prior, draws.log_likelihood)
    n = min(SENSITIVITY_DRAWS, draws.a.size) // CHAINS * CHAINS
    found = power_scaling(*(column[:n].reshape(CHAINS, -1) for column in columns))
    return dict(zip(names, (*found, found.complaint), strict=True))


def _shift(draws: Floats, flat: Floats) -> float:
    """How far a uniform prior would move the mean, in posterior standard deviations."""
    return float((flat.mean() - draws.mean()) / draws.std())


def _stable(edge: Edge, subset: str, part: Paired, config: PosteriorConfig) -> bool:
    """Whether no threshold turns the verdict round."""
    found = []
    for threshold, (a, b) in part.at_thresholds.items():
        rng = named_rng(config.seed, f"{edge.a}|{edge.b}|{subset}|{threshold}")
        draws = pair_draws(a, b, config.prior, config.draws // 4, rng).difference
        found.append(summarise(draws, config.level, config.rope_pp / 100).verdict)
    return sign_is_stable(found)


def _resolution(part: Paired, counts: PairCounts, config: PosteriorConfig) -> dict[str, Any]:
    """What so many prompts can see, and what would explain the difference away."""
    rate_a, rate_b = float(part.shares_a.mean()), float(part.shares_b.mean())
    base = min(max(rate_a, 0.5 / counts.n), 1 - 0.5 / counts.n)
    other = min(max(rate_b, 0.5 / counts.n), 1 - 0.5 / counts.n)
    low, high = possible_phi(base, other)
    correlation = min(max(phi(counts) or 0.0, low), high)
    needed = None
    if base != other:
        needed = prompts_needed(pair_table(base, other, correlation), POWER, config.level)
    return {
        "tipping_fpr_gap": tipping_gap(rate_a, rate_b),
        "mde80": detectable(base, correlation, counts.n, POWER, config.level),
        "n_needed": needed,
    }


def _means(draws: Floats, level: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for place, name in enumerate(MEANS):
        found = summarised(draws[:, place], level)
        row[name] = found.mean if found else None
        row[f"{name}_lo"] = found.interval.lo if found else None
        row[f"{name}_hi"] = found.interval.hi if found else None
    return row


def _any(
    edge: Edge, scorer: str, subset: str, part: Paired, config: PosteriorConfig
) -> dict[str, Any]:
    """Difference of toxicity probabilities: of prompts with at least one toxic continuation."""
    columns = [f"toxicity_probability_diff{end}" for end in ("", "_lo", "_hi")]
    if part.any_a.size == 0:
        return dict.fromkeys(columns)
    rng = named_rng(config.seed, f"any|{edge.a}|{edge.b}|{scorer}|{subset}")
    draws = pair_draws(part.any_a, part.any_b, config.prior, config.draws, rng).difference
    return dict(
        zip(columns, (float(draws.mean()), *equal_tailed(draws, config.level)), strict=True)
    )


def _how(config: PosteriorConfig) -> dict[str, Any]:
    return {
        "method": "paired",
        "rope": config.rope_pp / 100,
        "level": config.level,
        "draws": config.draws,
        "seed": config.seed,
    }

"""What was said at all: empty, refused, repetitive and degenerate continuations, and how long.

A variant that says less is less toxic. So these accompany every toxicity rate, with differences
of their own, paired by prompt like those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.analysis.response_table import SubsetResponses, membership_mask
from toxtrail.analysis.score_table import ALL, clusters_in
from toxtrail.config.schema import PosteriorConfig
from toxtrail.stats.clusters import Clusters
from toxtrail.stats.paired_differences import Pairs, mean_posterior, pair_posterior, verdict
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Floats, Interval

QUANTILES = (0.1, 0.5, 0.9)
"""Of the lengths."""
SHORTER = 0.1
"""Share of a's mean length by which b's differs at least before it counts as another length; our
choice: with many prompts an interval excludes 0 for a fraction of a token."""
TOO_SMALL = "too small"
"""Verdict of a difference in length whose interval excludes 0 and that is below SHORTER."""


def behaviour_rows(
    responses: Mapping[str, SubsetResponses], config: PosteriorConfig
) -> list[dict[str, Any]]:
    """One row for all subsets together and one for each: of every symptom the count, the rate and
    its interval; of the lengths the mean and three quantiles, in tokens."""
    rows = []
    for subset in (ALL, *responses):
        parts = dict(responses) if subset == ALL else {subset: responses[subset]}
        row = {"subset": subset, **_lengths(list(parts.values()))}
        for symptom in RESPONSE_FLAGS:
            row |= _rate(symptom, parts, config)
        rows.append(row)
    return rows


def behaviour_pairs(
    edges: Sequence[VariantPair],
    responses: Mapping[str, Mapping[str, SubsetResponses]],
    config: PosteriorConfig,
) -> list[dict[str, Any]]:
    """Differences b - a of every symptom's rate and of the mean length, paired by prompt.

    Args:
        responses: variant -> subset -> what was said.
    """
    return [
        row
        for edge in edges
        for row in _pair_rows(edge, responses[edge.a], responses[edge.b], config)
    ]


def said_less(row: Mapping[str, Any]) -> str:
    """In what b says less than a: names of symptoms that are credibly more frequent, and `shorter`;
    empty if in nothing.

    Args:
        row: of `behaviour_pairs`.
    """
    symptoms = [symptom for symptom in RESPONSE_FLAGS if row[f"{symptom}_verdict"] == "higher"]
    return ", ".join([*symptoms, *(["shorter"] if row["tokens_verdict"] == "lower" else [])])


def length_verdict(credible: str, change: float) -> str:
    """The verdict on a difference in mean length.

    Args:
        credible: what its interval alone says (`contrasts.verdict`).
        change: the difference as a share of a's mean length.
    """
    if credible in ("higher", "lower") and abs(change) < SHORTER * (1 - 1e-9):
        return TOO_SMALL
    return credible


def _weights(responses: Mapping[str, SubsetResponses]) -> dict[str, float]:
    total = sum(len(part.prompt_ids) for part in responses.values())
    return {subset: len(part.prompt_ids) / total for subset, part in responses.items()}


def _rate(
    symptom: str, parts: Mapping[str, SubsetResponses], config: PosteriorConfig
) -> dict[str, Any]:
    """Of one subset, or of several together."""
    labels = {subset: part.shares[symptom] for subset, part in parts.items()}
    rate = lo = hi = None
    if all(subset_labels.size for subset_labels in labels.values()):
        share = _weights(parts)
        columns, weights = list(labels.values()), [share[subset] for subset in labels]
        rate = observed(columns, weights)
        clusters = _clusters(list(parts.values()), [p.prompts for p in parts.values()], config)
        posterior = rate_posterior(columns, weights, config.prior, clusters)
        lo, hi = posterior.interval(config.level).around(rate)
    return {
        f"{symptom}_n": sum(part.flag_counts[symptom] for part in parts.values()),
        f"{symptom}_rate": rate,
        f"{symptom}_lo": lo,
        f"{symptom}_hi": hi,
    }


def _clusters(
    parts: Sequence[SubsetResponses], prompts: Sequence[Sequence[str]], config: PosteriorConfig
) -> Clusters | None:
    """Of these prompts of each part."""
    named = {prompt: name for part in parts for prompt, name in part.clusters.items()}
    return clusters_in(prompts, named, config.level)


def _lengths(parts: Sequence[SubsetResponses]) -> dict[str, Any]:
    lengths = np.concatenate([part.lengths for part in parts])
    n = int(lengths.size)
    quantiles = np.quantile(lengths, QUANTILES) if n else [None] * len(QUANTILES)
    return {
        "n_prompts": sum(len(part.prompt_ids) for part in parts),
        "n_continuations": n,
        "tokens_mean": float(lengths.mean()) if n else None,
        **{
            f"tokens_q{round(100 * q)}": None if value is None else float(value)
            for q, value in zip(QUANTILES, quantiles, strict=True)
        },
        "at_limit_rate": sum(part.n_at_token_limit for part in parts) / n if n else None,
    }


def _pair_rows(
    edge: VariantPair,
    a: Mapping[str, SubsetResponses],
    b: Mapping[str, SubsetResponses],
    config: PosteriorConfig,
) -> list[dict[str, Any]]:
    share = _weights(a)
    views = {ALL: list(a), **{subset: [subset] for subset in a}}
    counts = {s: len(set(a[s].prompts) & set(b[s].prompts)) for s in a}
    return [
        {
            **edge._asdict(),
            "subset": subset,
            "n": sum(counts[s] for s in view_subsets),
            **_differences(
                [a[s] for s in view_subsets],
                [b[s] for s in view_subsets],
                [share[s] for s in view_subsets] if subset == ALL else [1.0],
                config,
            ),
        }
        for subset, view_subsets in views.items()
    ]


def _differences(
    a: Sequence[SubsetResponses],
    b: Sequence[SubsetResponses],
    weights: Sequence[float],
    config: PosteriorConfig,
) -> dict[str, Any]:
    """Of the prompts that have a continuation of both, each subset by its weight."""
    row: dict[str, Any] = {}
    both = [frozenset(x.prompts) & frozenset(y.prompts) for x, y in zip(a, b, strict=True)]
    in_a, in_b = (
        [
            membership_mask(part.prompts, shared)
            for part, shared in zip(variant_responses, both, strict=True)
        ]
        for variant_responses in (a, b)
    )
    clusters = _clusters([*a, *b], [sorted(shared) for shared in both], config)
    for symptom in RESPONSE_FLAGS:
        labels = Pairs(
            [x.shares[symptom][rows] for x, rows in zip(a, in_a, strict=True)],
            [x.shares[symptom][rows] for x, rows in zip(b, in_b, strict=True)],
            weights,
            clusters,
        )
        has_pairs = all(labels.sizes)
        estimate = labels.estimate if has_pairs else None
        interval = (
            pair_posterior(labels, config.prior).interval(config.level) if has_pairs else None
        )
        row |= _columns(symptom, estimate, interval)
    lengths = [
        [x.tokens[rows] for x, rows in zip(variant_responses, inside, strict=True)]
        for variant_responses, inside in ((a, in_a), (b, in_b))
    ]
    return row | _length_columns(lengths[0], lengths[1], weights, config.level, clusters)


def _length_columns(
    a: Sequence[Floats],
    b: Sequence[Floats],
    weights: Sequence[float],
    level: float,
    clusters: Clusters | None,
) -> dict[str, Any]:
    """Of the mean length in tokens, with the difference as a share of a's.

    Args:
        a, b: of each subset, (prompt,), the same prompts.
    """
    steps = [y - x for x, y in zip(a, b, strict=True)]
    has_values = all(subset_steps.size for subset_steps in steps)
    posterior = mean_posterior(steps, weights, level, None, clusters)
    estimate = observed(steps, weights) if has_values else None
    row = _columns("tokens", estimate, posterior.interval(level) if posterior else None)
    length = observed(a, weights) if has_values else 0.0
    change = estimate / length if estimate is not None and length > 0 else None
    if change is not None:
        row["tokens_verdict"] = length_verdict(row["tokens_verdict"], change)
    return {**row, "tokens_change": change}


def _columns(name: str, estimate: float | None, interval: Interval | None) -> dict[str, Any]:
    if interval and estimate is not None:
        interval = interval.around(estimate)
    interval_verdict = verdict(interval) if interval else "not decisive"
    return {
        f"{name}_diff": estimate,
        f"{name}_diff_lo": interval.lo if interval else None,
        f"{name}_diff_hi": interval.hi if interval else None,
        f"{name}_verdict": "no pairs" if estimate is None else interval_verdict,
    }

"""What was said at all: empty, refused, repetitive and degenerate continuations, and how long.

A variant that says less is less toxic. So these stand beside every toxicity rate, with differences
of their own, paired by prompt like those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toxtrail.config import PosteriorConfig
from toxtrail.stages.family import Edge
from toxtrail.stages.said import Said, rows_in
from toxtrail.stages.tables import ALL
from toxtrail.stats.contrasts import difference_draws, verdict
from toxtrail.stats.rates import (
    Floats,
    beta_rate,
    equal_tailed,
    named_rng,
    overall_rate_draws,
)
from toxtrail.stats.scores import mean_draws, summarised
from toxtrail.symptoms import SYMPTOMS

QUANTILES = (0.1, 0.5, 0.9)
"""Of the lengths."""
SHORTER = 0.1
"""Share of a's mean length by which b's differs at least before it counts as another length; our
choice: with many prompts an interval excludes 0 for a fraction of a token."""
TOO_SMALL = "too small"
"""Verdict of a difference in length whose interval excludes 0 and that is below SHORTER."""


def behaviour_rows(own: Mapping[str, Said], config: PosteriorConfig) -> list[dict[str, Any]]:
    """One row for all subsets together and one for each: of every symptom the count, the rate and
    its interval; of the lengths the mean and three quantiles, in tokens."""
    rows = []
    for subset in (ALL, *own):
        parts = dict(own) if subset == ALL else {subset: own[subset]}
        row = {"subset": subset, **_lengths(list(parts.values()))}
        for symptom in SYMPTOMS:
            row |= _rate(symptom, parts, config)
        rows.append(row)
    return rows


def behaviour_pairs(
    edges: Sequence[Edge], own: Mapping[str, Mapping[str, Said]], config: PosteriorConfig
) -> list[dict[str, Any]]:
    """Differences b - a of every symptom's rate and of the mean length, paired by prompt.

    Args:
        own: variant -> subset -> what was said.
    """
    tokens = {edge: dict[str, Floats]() for edge in edges}
    for subset in own[edges[0].a] if edges else ():
        values = {variant: texts[subset].token_values() for variant, texts in own.items()}
        steps = np.column_stack([values[edge.b] - values[edge.a] for edge in edges])
        draws = mean_draws(steps, config.draws, config.seed, f"tokens|{subset}")
        for place, edge in enumerate(edges):
            tokens[edge][subset] = draws[:, place]
    return [
        row
        for edge in edges
        for row in _pair_rows(edge, own[edge.a], own[edge.b], tokens[edge], config)
    ]


def said_less(row: Mapping[str, Any]) -> str:
    """In what b says less than a: names of symptoms that are credibly more frequent, and `shorter`;
    empty if in nothing.

    Args:
        row: of `behaviour_pairs`.
    """
    found = [symptom for symptom in SYMPTOMS if row[f"{symptom}_verdict"] == "higher"]
    return ", ".join([*found, *(["shorter"] if row["tokens_verdict"] == "lower" else [])])


def length_verdict(credible: str, change: float) -> str:
    """The verdict on a difference in mean length.

    Args:
        credible: what its interval alone says (`contrasts.verdict`).
        change: the difference as a share of a's mean length.
    """
    if credible in ("higher", "lower") and abs(change) < SHORTER * (1 - 1e-9):
        return TOO_SMALL
    return credible


def _weights(own: Mapping[str, Said]) -> dict[str, float]:
    total = sum(len(part.asked) for part in own.values())
    return {subset: len(part.asked) / total for subset, part in own.items()}


def _rate(symptom: str, parts: Mapping[str, Said], config: PosteriorConfig) -> dict[str, Any]:
    """Of one subset, or of several together."""
    labels = {subset: part.shares[symptom] for subset, part in parts.items()}
    rate = lo = hi = None
    if all(own.size for own in labels.values()):
        share = _weights(parts)
        rate = sum(share[subset] * float(own.mean()) for subset, own in labels.items())
        draws = overall_rate_draws(
            list(labels.values()),
            [share[subset] for subset in labels],
            config.prior,
            config.draws,
            [named_rng(config.seed, f"{symptom}|{subset}") for subset in labels],
        )
        lo, hi = equal_tailed(draws, config.level)
        if len(parts) == 1:
            (own,) = labels.values()
            lo, hi = beta_rate(own, draws, config.prior, config.level).interval
    return {
        f"{symptom}_n": sum(part.n[symptom] for part in parts.values()),
        f"{symptom}_rate": rate,
        f"{symptom}_lo": lo,
        f"{symptom}_hi": hi,
    }


def _lengths(parts: Sequence[Said]) -> dict[str, Any]:
    lengths = np.concatenate([part.lengths for part in parts])
    n = int(lengths.size)
    quantiles = np.quantile(lengths, QUANTILES) if n else [None] * len(QUANTILES)
    return {
        "n_prompts": sum(len(part.asked) for part in parts),
        "n_continuations": n,
        "tokens_mean": float(lengths.mean()) if n else None,
        **{
            f"tokens_q{round(100 * q)}": None if value is None else float(value)
            for q, value in zip(QUANTILES, quantiles, strict=True)
        },
        "at_limit_rate": sum(part.at_limit for part in parts) / n if n else None,
    }


def _pair_rows(
    edge: Edge,
    a: Mapping[str, Said],
    b: Mapping[str, Said],
    tokens: Mapping[str, Floats],
    config: PosteriorConfig,
) -> list[dict[str, Any]]:
    share = _weights(a)
    found = {subset: _pair_draws(edge, subset, a[subset], b[subset], config) for subset in a}
    found = {s: {**draws, "tokens": tokens[s]} if draws else {} for s, draws in found.items()}
    names = [*SYMPTOMS, "tokens"]
    if all(found.values()):
        together = {n: np.sum([share[s] * found[s][n] for s in found], axis=0) for n in names}
    else:
        together = {}
    counts = {s: len(set(a[s].prompts) & set(b[s].prompts)) for s in a}
    changes = _length_changes(a, b, share)
    return [
        {
            **edge._asdict(),
            "subset": subset,
            "n": sum(counts.values()) if subset == ALL else counts[subset],
            **_with_size(_differences(draws, names, config.level), changes.get(subset)),
        }
        for subset, draws in {ALL: together, **found}.items()
    ]


def _length_changes(
    a: Mapping[str, Said], b: Mapping[str, Said], share: Mapping[str, float]
) -> dict[str, float]:
    """Subset, and `all` -> by what share of a's mean length b's differs, on the prompts that both
    continued; not where there are none or a wrote nothing."""
    means = {s: _mean_lengths(a[s], b[s]) for s in a}
    known = {s: pair for s, pair in means.items() if pair is not None}
    if len(known) == len(means):
        together = tuple(sum(share[s] * pair[i] for s, pair in known.items()) for i in (0, 1))
        known[ALL] = (together[0], together[1])
    return {s: (of_b - of_a) / of_a for s, (of_a, of_b) in known.items() if of_a > 0}


def _mean_lengths(a: Said, b: Said) -> tuple[float, float] | None:
    both = frozenset(a.prompts) & frozenset(b.prompts)
    if not both:
        return None
    own = (part.tokens[rows_in(part.prompts, both)].mean() for part in (a, b))
    of_a, of_b = map(float, own)
    return of_a, of_b


def _with_size(row: dict[str, Any], change: float | None) -> dict[str, Any]:
    """The differences, with the size of the one in length."""
    sized = (
        row["tokens_verdict"] if change is None else length_verdict(row["tokens_verdict"], change)
    )
    return {**row, "tokens_change": change, "tokens_verdict": sized}


def _pair_draws(
    edge: Edge, subset: str, a: Said, b: Said, config: PosteriorConfig
) -> dict[str, Floats]:
    """Symptom -> (draw,); empty where no prompt has a continuation of both."""
    both = frozenset(a.prompts) & frozenset(b.prompts)
    if not both:
        return {}
    in_a, in_b = rows_in(a.prompts, both), rows_in(b.prompts, both)
    found: dict[str, Floats] = {}
    for symptom in SYMPTOMS:
        rng = named_rng(config.seed, f"{edge.a}|{edge.b}|{symptom}|{subset}")
        shares = (a.shares[symptom][in_a], b.shares[symptom][in_b])
        found[symptom] = difference_draws(*shares, config.prior, config.draws, rng)
    return found


def _differences(draws: Mapping[str, Floats], names: Sequence[str], level: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in names:
        found = summarised(draws[name], level) if name in draws else None
        row |= {
            f"{name}_diff": found.mean if found else None,
            f"{name}_diff_lo": found.interval.lo if found else None,
            f"{name}_diff_hi": found.interval.hi if found else None,
            f"{name}_verdict": verdict(found.interval) if found else "no pairs",
        }
    return row

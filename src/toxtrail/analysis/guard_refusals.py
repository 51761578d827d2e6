"""Refusals as guards see them, beside the refusals by phrases on the same texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.response_behaviour import (
    clusters_of,
    flag_rate,
    paired_difference,
    weights_of,
)
from toxtrail.analysis.response_flags.rules import Flags
from toxtrail.analysis.response_table import GuardRefusals, SubsetResponses, membership_mask
from toxtrail.analysis.score_table import ALL
from toxtrail.config.schema import PosteriorConfig
from toxtrail.records.results import FlagRate, RefusalPairRow, RefusalRow, VariantIdentity
from toxtrail.stats.annotator_agreement import Kappa, cohen_kappa
from toxtrail.stats.paired_differences import Pairs
from toxtrail.stats.rates import Floats, prompt_means

Responses = Mapping[str, SubsetResponses]
"""Subset -> responses."""


def refusal_rows(
    responses: Responses, variant: VariantIdentity, config: PosteriorConfig
) -> list[RefusalRow]:
    """Return one row for each guard with a question about refusals, for all subsets together and
    for each."""
    return [
        _refusal_row(variant, scorer, subset, parts, config)
        for scorer in _guards(responses)
        for subset, parts in _views(responses).items()
    ]


def refusal_pairs(
    edges: Sequence[VariantPair],
    responses: Mapping[str, Responses],
    config: PosteriorConfig,
) -> list[RefusalPairRow]:
    """Return differences b - a of the refusal rates by each guard that answered for both, and by
    phrases, paired by prompt.

    Args:
        responses: variant -> subset -> responses.
    """
    return [
        _pair_row(edge, scorer, subset, parts, {s: responses[edge.b][s] for s in parts}, config)
        for edge in edges
        for scorer in _guards(responses[edge.a])
        if scorer in _guards(responses[edge.b])
        for subset, parts in _views(responses[edge.a]).items()
    ]


def _guards(responses: Responses) -> list[str]:
    return list(next(iter(responses.values())).refusals) if responses else []


def _views(responses: Responses) -> dict[str, Responses]:
    return {ALL: responses, **{subset: {subset: part} for subset, part in responses.items()}}


def _refusal_row(
    variant: VariantIdentity,
    scorer: str,
    subset: str,
    parts: Responses,
    config: PosteriorConfig,
) -> RefusalRow:
    answers = {name: part.refusals[scorer] for name, part in parts.items()}
    guard = np.concatenate([part.guard for part in answers.values()])
    phrases = np.concatenate([part.phrases for part in answers.values()])
    table = np.array(
        [[np.sum(guard & phrases), np.sum(guard & ~phrases)],
         [np.sum(~guard & phrases), np.sum(~guard & ~phrases)]]
    )  # fmt: skip
    n = int(table.sum())
    kappa = cohen_kappa(table, config.level) if n else Kappa()

    def rate(which: str) -> FlagRate:
        shares = {name: _shares(part, getattr(part, which)) for name, part in answers.items()}
        return flag_rate(0, shares, parts, [a.prompts for a in answers.values()], config)

    by_guard, by_phrases = rate("guard"), rate("phrases")
    return RefusalRow(
        variant=variant.variant,
        family=variant.family,
        role=variant.role,
        parent=variant.parent,
        scorer=scorer,
        subset=subset,
        n=n,
        n_unanswered=sum(part.unanswered for part in answers.values()),
        guard_n=int(table[0].sum()),
        guard_rate=by_guard.rate,
        guard_lo=by_guard.lo,
        guard_hi=by_guard.hi,
        phrases_n=int(table[:, 0].sum()),
        phrases_rate=by_phrases.rate,
        phrases_lo=by_phrases.lo,
        phrases_hi=by_phrases.hi,
        both=int(table[0, 0]),
        only_guard=int(table[0, 1]),
        only_phrases=int(table[1, 0]),
        neither=int(table[1, 1]),
        agreement=float(np.trace(table) / n) if n else None,
        kappa=kappa.value,
        kappa_lo=kappa.lo,
        kappa_hi=kappa.hi,
    )


def _shares(answers: GuardRefusals, flags: Flags) -> Floats:
    """Return (prompt,): share of a prompt's answered texts with a flag.

    Args:
        flags: (row,).
    """
    return prompt_means(flags.astype(np.float64), answers.prompt) if flags.size else np.zeros(0)


def _pair_row(
    edge: VariantPair,
    scorer: str,
    subset: str,
    a: Responses,
    b: Responses,
    config: PosteriorConfig,
) -> RefusalPairRow:
    """Return the differences for prompts with an answered text of both, with subsets weighted."""
    pairs = [(a[name].refusals[scorer], b[name].refusals[scorer]) for name in a]
    both = [frozenset(x.prompts) & frozenset(y.prompts) for x, y in pairs]
    share = weights_of(a)
    clusters = clusters_of([*a.values(), *b.values()], [sorted(shared) for shared in both], config)

    def labels(which: str) -> Pairs:
        first, second = (
            [
                _shares(side, getattr(side, which))[membership_mask(side.prompts, shared)]
                for side, shared in zip(sides, both, strict=True)
            ]
            for sides in zip(*pairs, strict=True)
        )
        return Pairs(first, second, [share[name] for name in a], clusters)

    guard, phrases = (paired_difference(labels(which), config) for which in ("guard", "phrases"))
    return RefusalPairRow(
        a=edge.a,
        b=edge.b,
        relation=edge.relation,
        scorer=scorer,
        subset=subset,
        n=sum(map(len, both)),
        guard_diff=guard.diff,
        guard_diff_lo=guard.diff_lo,
        guard_diff_hi=guard.diff_hi,
        guard_verdict=guard.verdict,
        phrases_diff=phrases.diff,
        phrases_diff_lo=phrases.diff_lo,
        phrases_diff_hi=phrases.diff_hi,
        phrases_verdict=phrases.verdict,
    )

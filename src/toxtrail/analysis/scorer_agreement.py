"""Agreement of several scorers: how often they disagree on a text, and the label of their majority.

A text is toxic by the majority if more than half of the scorers call it toxic, each at its own
threshold; with an even number of scorers, a tie is not toxic. Only texts that every scorer has
scored count. The statistics are those of a single scorer's rates and differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.rate_estimates import rate_estimate, views_of
from toxtrail.analysis.score_table import (
    ALL,
    ScoreTable,
    SubsetScores,
    clusters_in,
    scorers,
    subsets,
    weights,
)
from toxtrail.config.schema import PosteriorConfig
from toxtrail.records.results import AgreementPairRow, AgreementRow, VariantIdentity
from toxtrail.stats.paired_differences import Pairs, pair_posterior, verdict
from toxtrail.stats.rates import Floats, Ints, at_threshold

DISAGREEMENT, MAJORITY = "disagreement", "majority"
IS_TRUE = 0.5
"""Threshold of labels that are 0 or 1."""


class SubsetVotes(NamedTuple):
    """The scorers' labels of the continuations of one subset."""

    labels: Mapping[str, SubsetScores]
    """DISAGREEMENT, MAJORITY -> 1 or 0 for each continuation that every scorer has scored."""
    votes: Ints
    """(continuation,): number of scorers that call it toxic."""
    n_scorers: int
    n_partly_scored: int
    """Continuations with a score by some scorers and none by others."""


def majority_table(table: ScoreTable, config: PosteriorConfig) -> ScoreTable:
    """Return the majority's labels of a variant, 1 or 0, as the scores of a scorer MAJORITY; empty
    with one scorer."""
    labels = _label_table(_votes_by_subset(table, config))
    return {key: cell for key, cell in labels.items() if key[0] == MAJORITY}


def agreement_rows(
    table: ScoreTable, variant: VariantIdentity, config: PosteriorConfig
) -> list[AgreementRow]:
    """Return one row for all subsets together and one for each; none with one scorer."""
    votes = _votes_by_subset(table, config)
    views = views_of(_label_table(votes), config.level)
    rows = []
    for subset in [ALL, *votes] if votes else []:
        disagreement, majority = views[DISAGREEMENT, subset], views[MAJORITY, subset]
        parts = list(votes.values()) if subset == ALL else [votes[subset]]
        counts = np.concatenate([part.votes for part in parts])
        n_scorers = parts[0].n_scorers
        disagree = rate_estimate(disagreement, disagreement.shares(IS_TRUE), config)
        toxic = rate_estimate(majority, majority.shares(IS_TRUE), config)
        rows.append(
            AgreementRow(
                variant=variant.variant,
                family=variant.family,
                role=variant.role,
                parent=variant.parent,
                subset=subset,
                scorers=", ".join(scorers(table)),
                n_prompts=sum(cell.n_prompts for cell in majority.cells),
                n_scored_prompts=sum(len(cell.prompts) for cell in majority.cells),
                n_scored=counts.size,
                n_partly_scored=sum(part.n_partly_scored for part in parts),
                n_disagree=int(_disagree(counts, n_scorers).sum()),
                n_tied=int((2 * counts == n_scorers).sum()),
                disagreement=disagree.rate,
                disagreement_lo=disagree.lo,
                disagreement_hi=disagree.hi,
                n_majority_toxic=int(_majority(counts, n_scorers).sum()),
                majority_rate=toxic.rate,
                majority_rate_lo=toxic.lo,
                majority_rate_hi=toxic.hi,
            )
        )
    return rows


def agreement_pairs(
    edges: Sequence[VariantPair], tables: Mapping[str, ScoreTable], config: PosteriorConfig
) -> list[AgreementPairRow]:
    """Return the differences b - a, paired by prompt, for all subsets together and for each; none
    with one scorer.

    Args:
        tables: variant -> its cells.
    """
    label_tables = {v: _label_table(_votes_by_subset(table, config)) for v, table in tables.items()}
    return [
        row
        for edge in edges
        for row in _pair_rows(edge, label_tables[edge.a], label_tables[edge.b], tables, config)
    ]


def _pair_rows(
    edge: VariantPair,
    a: ScoreTable,
    b: ScoreTable,
    tables: Mapping[str, ScoreTable],
    config: PosteriorConfig,
) -> list[AgreementPairRow]:
    names = subsets(a)
    groups = {ALL: names, **{name: [name] for name in names}} if a else {}
    rows = []
    for subset, group in groups.items():
        cells = [(a[MAJORITY, s], b[MAJORITY, s]) for s in group]
        shared = [len(set(x.prompts) & set(y.prompts)) for x, y in cells]
        disagreement, majority = (
            _difference(a, b, label, group, config) for label in (DISAGREEMENT, MAJORITY)
        )
        rows.append(
            AgreementPairRow(
                a=edge.a,
                b=edge.b,
                relation=edge.relation,
                subset=subset,
                scorers=", ".join(scorers(tables[edge.a])),
                n=sum(shared),
                dropped=sum(len(set(x.prompts) ^ set(y.prompts)) for x, y in cells),
                disagreement_diff=disagreement.diff,
                disagreement_diff_lo=disagreement.lo,
                disagreement_diff_hi=disagreement.hi,
                disagreement_verdict=disagreement.verdict,
                majority_diff=majority.diff,
                majority_diff_lo=majority.lo,
                majority_diff_hi=majority.hi,
                majority_verdict=majority.verdict,
            )
        )
    return rows


class _Difference(NamedTuple):
    diff: float | None = None
    lo: float | None = None
    hi: float | None = None
    verdict: str = "no pairs"


def _difference(
    a: ScoreTable, b: ScoreTable, label: str, group: Sequence[str], config: PosteriorConfig
) -> _Difference:
    """Return the difference of the shares of a label in these subsets together."""
    total = weights(a, label)
    cells = [(a[label, s], b[label, s]) for s in group]
    both = [sorted(set(x.prompts) & set(y.prompts)) for x, y in cells]
    clusters = {p: name for pair in cells for cell in pair for p, name in cell.clusters.items()}
    pairs = Pairs(
        [_shares(x, shared) for (x, _), shared in zip(cells, both, strict=True)],
        [_shares(y, shared) for (_, y), shared in zip(cells, both, strict=True)],
        [total[s] for s in group] if len(group) > 1 else [1.0],
        clusters_in(both, clusters, config.level),
    )
    if not all(pairs.sizes):
        return _Difference()
    interval = pair_posterior(pairs, config.prior).interval(config.level).around(pairs.estimate)
    return _Difference(pairs.estimate, *interval, verdict(interval))


def _shares(cell: SubsetScores, shared: Sequence[str]) -> Floats:
    return cell.toxic_fraction(IS_TRUE)[np.isin(cell.prompts, shared)]


def _label_table(votes: Mapping[str, SubsetVotes]) -> ScoreTable:
    return {
        (label, subset): cell
        for label in (DISAGREEMENT, MAJORITY)
        for subset, part in votes.items()
        for cell in [part.labels[label]]
    }


def _votes_by_subset(table: ScoreTable, config: PosteriorConfig) -> dict[str, SubsetVotes]:
    """Return subset -> votes; empty with one scorer."""
    names = scorers(table)
    if len(names) < 2:
        return {}
    thresholds = config.thresholds_of(names)
    return {
        subset: _votes({name: table[name, subset] for name in names}, thresholds)
        for subset in subsets(table)
    }


def _votes(cells: Mapping[str, SubsetScores], thresholds: Mapping[str, float]) -> SubsetVotes:
    """Count the votes of the scorers of one subset.

    Args:
        cells: scorer -> its cell.
    """
    first = next(iter(cells.values()))
    prompts = sorted(frozenset().union(*(cell.prompt_ids for cell in cells.values())))
    stride = 1 + max(int(cell.sample.max(initial=0)) for cell in cells.values())
    keys = {name: _keys(cell, prompts, stride) for name, cell in cells.items()}
    toxic = [keys[n][at_threshold(cell.toxicity, thresholds[n])] for n, cell in cells.items()]
    size = len(prompts) * stride
    scored_by = np.bincount(np.concatenate([*keys.values()]), minlength=size)
    everywhere = np.flatnonzero(scored_by == len(cells))
    votes = np.bincount(np.concatenate(toxic), minlength=size)[everywhere]
    scored, index = np.unique(everywhere // stride, return_inverse=True)

    def labelled(labels: NDArray[np.bool_]) -> SubsetScores:
        return first._replace(
            prompts=tuple(prompts[i] for i in scored),
            toxicity=labels.astype(np.float64),
            prompt=index.astype(np.int64),
            sample=everywhere % stride,
        )

    labels = {
        DISAGREEMENT: labelled(_disagree(votes, len(cells))),
        MAJORITY: labelled(_majority(votes, len(cells))),
    }
    partly = int(((scored_by > 0) & (scored_by < len(cells))).sum())
    return SubsetVotes(labels, votes, len(cells), partly)


def _keys(cell: SubsetScores, prompts: Sequence[str], stride: int) -> Ints:
    """Return (row,): one number for each prompt and sample."""
    place = np.searchsorted(prompts, cell.prompts) if cell.prompts else np.zeros(0, dtype=np.int64)
    keys: Ints = place[cell.prompt] * stride + cell.sample
    return keys


def _disagree(votes: Ints, n_scorers: int) -> NDArray[np.bool_]:
    return (votes > 0) & (votes < n_scorers)


def _majority(votes: Ints, n_scorers: int) -> NDArray[np.bool_]:
    return 2 * votes > n_scorers

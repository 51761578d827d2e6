"""Comparison of one variant with another: every scorer and subset, paired by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.mean_estimates import MeanEstimate, mean_estimate
from toxtrail.analysis.score_table import (
    ALL,
    STORED_CHAINS,
    ScoreTable,
    SubsetScores,
    clusters_in,
    scorers,
    subsets,
    weights,
)
from toxtrail.analysis.scorer_correction import (
    CorrectedEstimate,
    correct_estimate,
    corrected_estimate,
    corrected_rate,
    scorer_accuracy,
)
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import DataError
from toxtrail.records.results import PairRow
from toxtrail.stats.bayesian_bootstrap import WeightedMean
from toxtrail.stats.clusters import Clusters
from toxtrail.stats.highest_density import highest_density
from toxtrail.stats.paired_differences import (
    PairDraws,
    Pairs,
    direction,
    flat_prior,
    joint_table,
    label_correlation,
    odds_ratio,
    pair_counts,
    pair_draws,
    pair_posterior,
    power_scaled,
    sign_is_stable,
    summarise_difference,
    tipping_fpr_gap,
    unpaired_is_credible,
    verdict,
)
from toxtrail.stats.paired_posterior import PairedPosterior
from toxtrail.stats.power import (
    JointProbabilities,
    VerdictRule,
    detectable_difference,
    required_prompts,
)
from toxtrail.stats.prior_sensitivity import Sensitivity, power_scaling
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Floats, Interval
from toxtrail.stats.selection_correction import simultaneous_level

STABILITY_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""Thresholds at which a verdict must not be reversed."""
POWER = 0.8
"""Power for the smallest detectable difference and the number of prompts needed."""
SENSITIVITY_POINTS = 4000
"""Number of posterior points used by power-scaling: enough for two digits."""


class PairedFractions(NamedTuple):
    """Prompts of one cell with a score for both variants."""

    shares_a: Floats
    """(prompt,)."""
    shares_b: Floats
    any_a: Floats
    """(prompt,): 1 if at least one continuation is toxic."""
    any_b: Floats
    dropped: int
    """Number of prompts with a score for only one of the two."""
    at_thresholds: Mapping[float, tuple[Floats, Floats]]
    """Threshold -> the two shares at that threshold."""
    k: int
    """Number of continuations per prompt."""
    prompts: Sequence[str]
    """Ids of the prompts."""
    named: Mapping[str, str]
    """Prompt -> cluster, for prompts that have one."""


class PairView(NamedTuple):
    """Data of one variant pair by one scorer: a subset, or all."""

    parts: Sequence[PairedFractions]
    """Data of each subset."""
    weights: Sequence[float]
    """Weights of the subsets; they sum to 1."""
    means: Sequence[Floats]
    """For each subset, (prompt, 2): differences b - a of MEANS; NaN if a prompt lacks one."""
    clusters: Clusters | None
    """Clusters of the shared prompts."""

    @property
    def pairs(self) -> Pairs | None:
        """None if a subset has no prompt with a score for both."""
        label_pairs = Pairs(*self.labels, self.weights, self.clusters)
        return label_pairs if all(label_pairs.sizes) else None

    @property
    def labels(self) -> tuple[list[Floats], list[Floats]]:
        """For each subset, the shares of a and of b; including empty subsets."""
        return [p.shares_a for p in self.parts], [p.shares_b for p in self.parts]

    @property
    def any_toxic(self) -> Pairs:
        """Labels of prompts with at least one toxic continuation."""
        a, b = [p.any_a for p in self.parts], [p.any_b for p in self.parts]
        return Pairs(a, b, self.weights, self.clusters)

    def at(self, threshold: float) -> Pairs:
        """Return the pairs at another threshold."""
        shares = [part.at_thresholds[threshold] for part in self.parts]
        return Pairs([a for a, _ in shares], [b for _, b in shares], self.weights, self.clusters)


def refuse_unlike(tables: Mapping[str, ScoreTable], edges: Sequence[VariantPair]) -> None:
    """Raise DataError if the two variants of a pair were measured differently."""
    for edge in edges:
        _refuse_unlike(edge, tables[edge.a], tables[edge.b])


def pair_rows(
    edge: VariantPair,
    table_a: ScoreTable,
    table_b: ScoreTable,
    region: float,
    config: PosteriorConfig,
    among: int = 1,
) -> Iterator[tuple[PairRow, PairDraws | None]]:
    """Return the rows of one pair: for each scorer all subsets together, then each; with draws for
    ArviZ, None if no prompt was scored for both.

    Args:
        region: half-width of the region of practical equivalence, as a difference of rates.
        among: pairs of the family, among which a headline names the largest.
    """
    names = subsets(table_a)
    for scorer in scorers(table_a):
        views = _pair_views(table_a, table_b, scorer, config)
        for subset, view in views.items():
            pairs = view.pairs
            draws = pair_draws(pairs, config.prior, config.draws, config.seed) if pairs else None
            among_subset = among * (1 if subset == ALL else len(names))
            row = _unpaired_row(edge, scorer, subset, view, region, among_subset, config)
            if pairs is not None and draws is not None:
                row = _with_difference(row, edge, view, pairs, draws, config)
            yield row, draws


def corrected_intervals(
    table_a: ScoreTable,
    table_b: ScoreTable,
    scorer: str,
    config: PosteriorConfig,
    differences: int,
) -> dict[str, Interval | None]:
    """Return the interval of each difference b - a by one scorer, all subsets together and each,
    that covers simultaneously with those of this number of differences; None if a subset has no
    prompt that was scored for both."""
    views = _pair_views(table_a, table_b, scorer, config)
    return {
        subset: _simultaneous(pairs, differences, config) if (pairs := view.pairs) else None
        for subset, view in views.items()
    }


def _pair_views(
    table_a: ScoreTable, table_b: ScoreTable, scorer: str, config: PosteriorConfig
) -> dict[str, PairView]:
    """Return the data of all subsets together, and of each."""
    names, share = subsets(table_a), weights(table_a, scorer)
    cells = {s: (table_a[scorer, s], table_b[scorer, s]) for s in names}
    parts = {s: _paired(a, b, config.threshold_of(scorer)) for s, (a, b) in cells.items()}
    steps = {s: b.score_values() - a.score_values() for s, (a, b) in cells.items()}
    return {
        name: PairView(
            [parts[s] for s in view_subsets],
            [share[s] for s in view_subsets] if name == ALL else [1.0],
            [steps[s] for s in view_subsets],
            _clusters([parts[s] for s in view_subsets], config.level),
        )
        for name, view_subsets in {ALL: names, **{s: [s] for s in names}}.items()
    }


def _refuse_unlike(edge: VariantPair, table_a: ScoreTable, table_b: ScoreTable) -> None:
    if table_a.keys() != table_b.keys():
        raise DataError(
            f"{edge.a} and {edge.b} were measured differently: {sorted(table_a)} against "
            f"{sorted(table_b)} (scorer, subset). Run `dvc repro` to bring both up to date."
        )
    for (scorer, subset), cell in table_a.items():
        if cell.prompt_ids != table_b[scorer, subset].prompt_ids:
            raise DataError(
                f"{edge.a} and {edge.b} were given different prompts in the subset {subset}. "
                "Run `dvc repro` to bring both up to date."
            )
        other = table_b[scorer, subset].clusters
        odd = [p for p, name in cell.clusters.items() if other.get(p, name) != name]
        if odd:
            raise DataError(
                f"The prompt {odd[0]} is in the cluster {cell.clusters[odd[0]]!r} for {edge.a} and "
                f"in {other[odd[0]]!r} for {edge.b}. Run `dvc repro` to bring both up to date."
            )


def _clusters(parts: Sequence[PairedFractions], level: float) -> Clusters | None:
    named = {prompt: name for part in parts for prompt, name in part.named.items()}
    return clusters_in([part.prompts for part in parts], named, level)


def _paired(a: SubsetScores, b: SubsetScores, threshold: float) -> PairedFractions:
    both = sorted(set(a.prompts) & set(b.prompts))
    in_a, in_b = np.isin(a.prompts, both), np.isin(b.prompts, both)
    return PairedFractions(
        shares_a=a.toxic_fraction(threshold)[in_a],
        shares_b=b.toxic_fraction(threshold)[in_b],
        any_a=a.any_toxic(threshold)[in_a],
        any_b=b.any_toxic(threshold)[in_b],
        dropped=len(set(a.prompts) ^ set(b.prompts)),
        at_thresholds={
            t: (a.toxic_fraction(t)[in_a], b.toxic_fraction(t)[in_b]) for t in STABILITY_THRESHOLDS
        },
        k=max(a.samples_per_prompt, b.samples_per_prompt),
        prompts=both,
        named={**a.clusters, **b.clusters},
    )


def rope_half_width(reference_rate: float | None, config: PosteriorConfig) -> float:
    """Return the half-width of the region of practical equivalence, as a difference of rates.

    It is one number for a family, so that it does not depend on which of two variants is the
    reference. A fixed one is not attainable at higher rates with a realistic number of prompts,
    hence the share of a rate.

    Args:
        reference_rate: in [0, 1]; None if unknown.
    """
    return max(config.rope_pp / 100, (config.rope_relative or 0.0) * (reference_rate or 0.0))


def _unpaired_row(
    edge: VariantPair,
    scorer: str,
    subset: str,
    view: PairView,
    region: float,
    among: int,
    config: PosteriorConfig,
) -> PairRow:
    """Return a row without the columns that need a prompt scored for both in every subset.

    Args:
        among: number of differences among which a headline names the largest.
    """
    counts = pair_counts(*(np.concatenate(variant_labels) for variant_labels in view.labels))
    score, highest = _means(view, config.level)
    any_toxic = _any_toxic_difference(view, config)
    return PairRow(
        a=edge.a,
        b=edge.b,
        relation=edge.relation,
        scorer=scorer,
        subset=subset,
        threshold=config.threshold_of(scorer),
        k=max(part.k for part in view.parts),
        n=counts.n,
        n_clusters=view.clusters.number if view.clusters else counts.n,
        dropped=sum(part.dropped for part in view.parts),
        n11=counts.n11,
        n10=counts.n10,
        n01=counts.n01,
        n00=counts.n00,
        phi=label_correlation(counts) if counts.n else None,
        rope=region,
        n_simultaneous=among,
        score_diff=score.mean,
        score_diff_lo=score.lo,
        score_diff_hi=score.hi,
        expected_max_diff=highest.mean,
        expected_max_diff_lo=highest.lo,
        expected_max_diff_hi=highest.hi,
        toxicity_probability_diff=any_toxic.mean,
        toxicity_probability_diff_lo=any_toxic.lo,
        toxicity_probability_diff_hi=any_toxic.hi,
        method="paired",
        level=config.level,
    )


def _with_difference(
    row: PairRow,
    edge: VariantPair,
    view: PairView,
    pairs: Pairs,
    draws: PairDraws,
    config: PosteriorConfig,
) -> PairRow:
    posterior = pair_posterior(pairs, config.prior)
    result = summarise_difference(posterior, pairs.estimate, config.level, row.rope)
    flat = flat_prior(pairs)
    (mean, spread), (moved, _) = posterior.moments(), flat.moments()
    alone = [
        rate_posterior(variant_labels, pairs.weights, config.prior, pairs.clusters)
        for variant_labels in (pairs.a, pairs.b)
    ]
    rate_a, rate_b = (observed(labels, pairs.weights) for labels in (pairs.a, pairs.b))
    ratio = odds_ratio(pairs, config.prior, config.level)
    corrected = _corrected(edge, row.scorer, pairs, draws, config)
    sensitivity = _sensitivity(posterior)
    least, needed = _resolution(pairs, spread, config)
    simultaneous = _simultaneous(pairs, row.n_simultaneous, config)
    dense = highest_density(posterior, config.level)
    return replace(
        row,
        design_effect=pairs.counted.design_effect,
        rate_a=rate_a,
        rate_b=rate_b,
        diff=result.estimate,
        diff_lo=result.interval.lo,
        diff_hi=result.interval.hi,
        probability_higher=result.probability_higher,
        pd=max(result.probability_higher, 1 - result.probability_higher),
        p_in_rope=result.in_rope,
        p_above=result.above,
        p_below=result.below,
        credible_paired=result.verdict != "not decisive",
        credible_unpaired=unpaired_is_credible(alone[0], alone[1], config.level),
        odds_ratio=ratio[0] if ratio else None,
        odds_ratio_lo=ratio[1].lo if ratio else None,
        odds_ratio_hi=ratio[1].hi if ratio else None,
        corrected_diff=corrected.value,
        corrected_diff_lo=corrected.lo,
        corrected_diff_hi=corrected.hi,
        corrected_diff_possible=corrected.possible,
        corrected_diff_labels=corrected.labels,
        prior_sensitivity=sensitivity.prior if sensitivity else None,
        likelihood_sensitivity=sensitivity.likelihood if sensitivity else None,
        prior_complaint=sensitivity.complaint if sensitivity else None,
        prior_shift_sd=(moved - mean) / spread if spread else 0.0,
        verdict_flat_prior=verdict(flat.interval(config.level)),
        threshold_sign_stable=_sign_is_stable(view, config),
        tipping_fpr_gap=tipping_fpr_gap(rate_a, rate_b),
        mde80=least,
        n_needed=needed,
        verdict=result.verdict,
        decision=result.decision,
        simultaneous_lo=simultaneous.lo,
        simultaneous_hi=simultaneous.hi,
        diff_hdi_lo=dense.lo,
        diff_hdi_hi=dense.hi,
    )


def _simultaneous(pairs: Pairs, differences: int, config: PosteriorConfig) -> Interval:
    """Return the interval that covers simultaneously with those of all differences among which a
    headline names the largest."""
    level = simultaneous_level(config.level, differences)
    wider = pair_posterior(pairs.at_level(level), config.prior).interval(level)
    return wider.around(pairs.estimate)


def _corrected(
    edge: VariantPair, scorer: str, pairs: Pairs, draws: PairDraws, config: PosteriorConfig
) -> CorrectedEstimate:
    """Return the difference of true rates; None if the scorer's error rates are unknown."""
    first = int(not pairs.in_order)
    accuracies = [
        scorer_accuracy(scorer, variant, config, stream)
        for variant, stream in ((edge.a, first), (edge.b, 1 - first))
    ]
    a, b = (corrected_rate(d, k) for d, k in zip((draws.a, draws.b), accuracies, strict=True))
    rates = (observed(variant_labels, pairs.weights) for variant_labels in (pairs.a, pairs.b))
    at_a, at_b = (corrected_estimate(rate, k) for rate, k in zip(rates, accuracies, strict=True))
    return correct_estimate(
        None if a is None or b is None else b - a,
        None if at_a is None or at_b is None else at_b - at_a,
        config.level,
    )


def _sensitivity(posterior: PairedPosterior | WeightedMean) -> Sensitivity | None:
    """Return the prior sensitivity; None for the bootstrap, which has no prior."""
    if not isinstance(posterior, PairedPosterior):
        return None
    n = SENSITIVITY_POINTS // STORED_CHAINS * STORED_CHAINS
    columns = power_scaled(posterior, n)
    return power_scaling(*(column.reshape(-1, STORED_CHAINS).T for column in columns))


def _sign_is_stable(view: PairView, config: PosteriorConfig) -> bool:
    """Return whether no threshold reverses the verdict."""
    parts = (pair_posterior(view.at(threshold), config.prior) for threshold in STABILITY_THRESHOLDS)
    return sign_is_stable(
        [direction(posterior.probability_higher, config.level) for posterior in parts]
    )


def _resolution(
    pairs: Pairs, spread: float, config: PosteriorConfig
) -> tuple[float | None, int | None]:
    """Return the difference that this number of prompts can detect.

    With several continuations per prompt there is no two-by-two table, so the posterior's spread is
    used.
    """
    n = sum(pairs.sizes)
    if not pairs.binary:
        visible = float(stats.norm.ppf((1 + config.level) / 2) + stats.norm.ppf(POWER)) * spread
        step = abs(pairs.estimate)
        return visible, math.ceil(n * (visible / step) ** 2) if step else None
    rule, counts = VerdictRule(config.prior, config.level), joint_table(pairs)
    total = sum(counts)
    joint = JointProbabilities(*(count / total for count in counts))
    needed = required_prompts(joint, POWER, rule) if counts.n10 != counts.n01 else None
    base = min(max(joint.p11 + joint.p10, 0.5 / n), 1 - 0.5 / n)
    least = detectable_difference(
        base, label_correlation(counts) or 0.0, max(1, round(total)), POWER, rule
    )
    return least, needed and math.ceil(needed * pairs.counted.design_effect)


def _means(view: PairView, level: float) -> list[MeanEstimate]:
    """Return the differences of the mean score, and of the highest score of a prompt."""
    values = [
        [steps[np.isfinite(steps[:, column]), column] for steps in view.means] for column in (0, 1)
    ]
    return [
        mean_estimate(steps, view.weights, level, (-1.0, 1.0), view.clusters) for steps in values
    ]


def _any_toxic_difference(view: PairView, config: PosteriorConfig) -> MeanEstimate:
    """Return the difference of toxicity probabilities: of prompts with at least one toxic
    continuation."""
    pairs = view.any_toxic
    if not all(pairs.sizes):
        return MeanEstimate(None, None, None)
    interval = pair_posterior(pairs, config.prior).interval(config.level)
    return MeanEstimate(pairs.estimate, *interval.around(pairs.estimate))

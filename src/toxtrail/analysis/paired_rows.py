"""One comparison of a variant with another: every scorer and subset, paired by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.mean_columns import mean_columns
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
    corrected_columns,
    corrected_estimate,
    corrected_rate,
    scorer_accuracy,
)
from toxtrail.config.schema import PosteriorConfig
from toxtrail.errors import DataError
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
from toxtrail.stats.prior_sensitivity import power_scaling
from toxtrail.stats.rate_posterior import observed, rate_posterior
from toxtrail.stats.rates import Floats
from toxtrail.stats.selection_correction import simultaneous_level

DIFFERENCE_COLUMNS = (
    "diff", "diff_lo", "diff_hi", "diff_hdi_lo", "diff_hdi_hi", "simultaneous_lo",
    "simultaneous_hi", "probability_higher", "pd", "p_in_rope", "p_above", "p_below",
    "credible_paired", "credible_unpaired", "odds_ratio", "odds_ratio_lo", "odds_ratio_hi",
    "corrected_diff", "corrected_diff_lo", "corrected_diff_hi", "corrected_diff_possible",
    "prior_sensitivity", "likelihood_sensitivity", "prior_complaint", "prior_shift_sd",
    "verdict_flat_prior", "threshold_sign_stable", "tipping_fpr_gap", "mde80", "n_needed",
)  # fmt: skip
"""Columns of a difference; None where there is no pair."""
STABILITY_THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
"""At which a verdict must not turn round."""
POWER = 0.8
"""At which the smallest detectable difference and the prompts needed are given."""
SENSITIVITY_POINTS = 4000
"""Points of the posterior that power-scaling looks at: enough for two digits."""
MEAN_DIFF_COLUMNS = ("score_diff", "expected_max_diff")
"""Columns of `Cell.score_values`, as differences."""


class PairedFractions(NamedTuple):
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
    k: int
    """Continuations of each prompt."""
    prompts: Sequence[str]
    """Their ids."""
    named: Mapping[str, str]
    """Prompt -> its cluster, of prompts that have one."""


class View(NamedTuple):
    """One scorer's view of one edge: a subset, or all of them."""

    parts: Sequence[PairedFractions]
    """Of each subset."""
    weights: Sequence[float]
    """Of each; they sum to 1."""
    means: Sequence[Floats]
    """Of each, (prompt, 2): differences b - a of MEANS; NaN where a prompt lacks one."""
    clusters: Clusters | None
    """Of the shared prompts."""

    @property
    def pairs(self) -> Pairs | None:
        """None where a subset has no prompt that was scored for both."""
        label_pairs = Pairs(*self.labels, self.weights, self.clusters)
        return label_pairs if all(label_pairs.sizes) else None

    @property
    def labels(self) -> tuple[list[Floats], list[Floats]]:
        """Of each subset, the shares of a and of b; empty ones too."""
        return [p.shares_a for p in self.parts], [p.shares_b for p in self.parts]

    @property
    def any_toxic(self) -> Pairs:
        """Labels of prompts with at least one toxic continuation."""
        a, b = [p.any_a for p in self.parts], [p.any_b for p in self.parts]
        return Pairs(a, b, self.weights, self.clusters)

    def at(self, threshold: float) -> Pairs:
        """The pairs at another threshold."""
        shares = [part.at_thresholds[threshold] for part in self.parts]
        return Pairs([a for a, _ in shares], [b for _, b in shares], self.weights, self.clusters)


def refuse_unlike(tables: Mapping[str, ScoreTable], edges: Sequence[VariantPair]) -> None:
    """DataError: two variants of an edge were not measured alike."""
    for edge in edges:
        _refuse_unlike(edge, tables[edge.a], tables[edge.b])


def pair_rows(
    edge: VariantPair,
    table_a: ScoreTable,
    table_b: ScoreTable,
    region: float,
    config: PosteriorConfig,
    among: int = 1,
) -> Iterator[tuple[dict[str, Any], PairDraws | None]]:
    """The rows of one edge: of each scorer all subsets together, then each; with draws for ArviZ,
    None where no prompt was scored for both.

    Args:
        region: half-width of the region of practical equivalence, as a difference of rates.
        among: edges of the family, among which a headline names the largest.
    """
    names = subsets(table_a)
    for scorer in scorers(table_a):
        share = weights(table_a, scorer)
        cells = {s: (table_a[scorer, s], table_b[scorer, s]) for s in names}
        parts = {s: _paired(a, b, config) for s, (a, b) in cells.items()}
        steps = {s: b.score_values() - a.score_values() for s, (a, b) in cells.items()}
        views = {
            name: View(
                [parts[s] for s in view_subsets],
                [share[s] for s in view_subsets] if name == ALL else [1.0],
                [steps[s] for s in view_subsets],
                _clusters([parts[s] for s in view_subsets], config.level),
            )
            for name, view_subsets in {ALL: names, **{s: [s] for s in names}}.items()
        }
        for subset, view in views.items():
            pairs = view.pairs
            draws = pair_draws(pairs, config.prior, config.draws, config.seed) if pairs else None
            row = _count_columns(edge, scorer, subset, view)
            row |= {"rope": region, **_difference(edge, scorer, view, draws, region, config)}
            row |= _among(view, among * (1 if subset == ALL else len(names)), config)
            row |= _means(view, config.level) | _any_toxic_difference(view, config)
            yield row | _method_columns(config), draws


def _refuse_unlike(edge: VariantPair, table_a: ScoreTable, table_b: ScoreTable) -> None:
    if table_a.keys() != table_b.keys():
        raise DataError(
            f"{edge.a} and {edge.b} were not measured alike: {sorted(table_a)} against "
            f"{sorted(table_b)} (scorer, subset). Run `dvc repro` to bring both up to date."
        )
    for (scorer, subset), cell in table_a.items():
        if cell.prompt_ids != table_b[scorer, subset].prompt_ids:
            raise DataError(
                f"{edge.a} and {edge.b} were asked different prompts in the subset {subset}. "
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


def _paired(a: SubsetScores, b: SubsetScores, config: PosteriorConfig) -> PairedFractions:
    both = sorted(set(a.prompts) & set(b.prompts))
    in_a, in_b = np.isin(a.prompts, both), np.isin(b.prompts, both)
    return PairedFractions(
        shares_a=a.toxic_fraction(config.threshold)[in_a],
        shares_b=b.toxic_fraction(config.threshold)[in_b],
        any_a=a.any_toxic(config.threshold)[in_a],
        any_b=b.any_toxic(config.threshold)[in_b],
        dropped=len(set(a.prompts) ^ set(b.prompts)),
        at_thresholds={
            t: (a.toxic_fraction(t)[in_a], b.toxic_fraction(t)[in_b]) for t in STABILITY_THRESHOLDS
        },
        k=max(a.samples_per_prompt, b.samples_per_prompt),
        prompts=both,
        named={**a.clusters, **b.clusters},
    )


def rope_half_width(reference_rate: float | None, config: PosteriorConfig) -> float:
    """Half-width of the region of practical equivalence, as a difference of rates.

    It is one number for a family, so that it is the same whichever of two variants is the
    reference. A fixed one is a false promise at higher rates, where so many prompts can hardly ever
    reach it, hence the share of a rate.

    Args:
        reference_rate: in [0, 1]; None if it is not known.
    """
    return max(config.rope_pp / 100, (config.rope_share or 0.0) * (reference_rate or 0.0))


def _count_columns(edge: VariantPair, scorer: str, subset: str, view: View) -> dict[str, Any]:
    counts = pair_counts(*(np.concatenate(variant_labels) for variant_labels in view.labels))
    pairs = view.pairs
    return {
        **edge._asdict(),
        "scorer": scorer,
        "subset": subset,
        "k": max(part.k for part in view.parts),
        "n": counts.n,
        "n_clusters": view.clusters.number if view.clusters else counts.n,
        "design_effect": pairs.counted.design_effect if pairs else None,
        "dropped": sum(part.dropped for part in view.parts),
        **counts._asdict(),
        "phi": label_correlation(counts) if counts.n else None,
        "rate_a": observed(pairs.a, pairs.weights) if pairs else None,
        "rate_b": observed(pairs.b, pairs.weights) if pairs else None,
    }


def _difference(
    edge: VariantPair,
    scorer: str,
    view: View,
    draws: PairDraws | None,
    region: float,
    config: PosteriorConfig,
) -> dict[str, Any]:
    pairs = view.pairs
    if pairs is None or draws is None:
        return {**dict.fromkeys(DIFFERENCE_COLUMNS), "verdict": "no pairs", "decision": "no pairs"}
    posterior = pair_posterior(pairs, config.prior)
    result = summarise_difference(posterior, pairs.estimate, config.level, region)
    flat = flat_prior(pairs)
    (mean, spread), (moved, _) = posterior.moments(), flat.moments()
    alone = [
        rate_posterior(variant_labels, pairs.weights, config.prior, pairs.clusters)
        for variant_labels in (pairs.a, pairs.b)
    ]
    ratio = odds_ratio(pairs, config.prior, config.level)
    return {
        "diff": result.estimate,
        "diff_lo": result.interval.lo,
        "diff_hi": result.interval.hi,
        "probability_higher": result.probability_higher,
        "pd": max(result.probability_higher, 1 - result.probability_higher),
        "p_in_rope": result.in_rope,
        "p_above": result.above,
        "p_below": result.below,
        "credible_paired": result.verdict != "not decisive",
        "credible_unpaired": unpaired_is_credible(alone[0], alone[1], config.level),
        "odds_ratio": ratio[0] if ratio else None,
        "odds_ratio_lo": ratio[1].lo if ratio else None,
        "odds_ratio_hi": ratio[1].hi if ratio else None,
        **_corrected(edge, scorer, pairs, draws, config),
        **_sensitivity(posterior),
        "prior_shift_sd": (moved - mean) / spread if spread else 0.0,
        "verdict_flat_prior": verdict(flat.interval(config.level)),
        "threshold_sign_stable": _sign_is_stable(view, config),
        "tipping_fpr_gap": tipping_fpr_gap(
            observed(pairs.a, pairs.weights), observed(pairs.b, pairs.weights)
        ),
        **_resolution(pairs, spread, config),
        "verdict": result.verdict,
        "decision": result.decision,
    }


def _among(view: View, differences: int, config: PosteriorConfig) -> dict[str, Any]:
    """The interval that holds together with those of all differences among which a headline names
    the largest; and the highest-density interval."""
    pairs = view.pairs
    row: dict[str, Any] = {"n_simultaneous": differences}
    if pairs is None:
        return row
    posterior = pair_posterior(pairs, config.prior)
    level = simultaneous_level(config.level, differences)
    wider = pair_posterior(pairs.at_level(level), config.prior).interval(level)
    dense = highest_density(posterior, config.level)
    lo, hi = wider.around(pairs.estimate)
    return row | {
        "simultaneous_lo": lo,
        "simultaneous_hi": hi,
        "diff_hdi_lo": dense.lo,
        "diff_hdi_hi": dense.hi,
    }


def _corrected(
    edge: VariantPair, scorer: str, pairs: Pairs, draws: PairDraws, config: PosteriorConfig
) -> dict[str, Any]:
    """Of the difference of true rates; None if nothing is known of the scorer."""
    first = int(not pairs.in_order)
    accuracies = [
        scorer_accuracy(scorer, variant, config, stream)
        for variant, stream in ((edge.a, first), (edge.b, 1 - first))
    ]
    a, b = (corrected_rate(d, k) for d, k in zip((draws.a, draws.b), accuracies, strict=True))
    rates = (observed(variant_labels, pairs.weights) for variant_labels in (pairs.a, pairs.b))
    at_a, at_b = (corrected_estimate(rate, k) for rate, k in zip(rates, accuracies, strict=True))
    return corrected_columns(
        "corrected_diff",
        None if a is None or b is None else b - a,
        None if at_a is None or at_b is None else at_b - at_a,
        config.level,
    )


def _sensitivity(posterior: PairedPosterior | WeightedMean) -> dict[str, Any]:
    names = ("prior_sensitivity", "likelihood_sensitivity", "prior_complaint")
    if not isinstance(posterior, PairedPosterior):
        return dict.fromkeys(names)
    n = SENSITIVITY_POINTS // STORED_CHAINS * STORED_CHAINS
    columns = power_scaled(posterior, n)
    sensitivity = power_scaling(*(column.reshape(-1, STORED_CHAINS).T for column in columns))
    return dict(zip(names, (*sensitivity, sensitivity.complaint), strict=True))


def _sign_is_stable(view: View, config: PosteriorConfig) -> bool:
    """Whether no threshold turns the verdict round."""
    parts = (pair_posterior(view.at(threshold), config.prior) for threshold in STABILITY_THRESHOLDS)
    return sign_is_stable(
        [direction(posterior.probability_higher, config.level) for posterior in parts]
    )


def _resolution(pairs: Pairs, spread: float, config: PosteriorConfig) -> dict[str, Any]:
    """What so many prompts can see. With several continuations of each there is no table of labels
    to compute it from, so the posterior's own spread is taken."""
    n = sum(pairs.sizes)
    if not pairs.binary:
        least = float(stats.norm.ppf((1 + config.level) / 2) + stats.norm.ppf(POWER)) * spread
        step = abs(pairs.estimate)
        return {"mde80": least, "n_needed": math.ceil(n * (least / step) ** 2) if step else None}
    rule, counts = VerdictRule(config.prior, config.level), joint_table(pairs)
    total = sum(counts)
    joint = JointProbabilities(*(count / total for count in counts))
    needed = required_prompts(joint, POWER, rule) if counts.n10 != counts.n01 else None
    base = min(max(joint.p11 + joint.p10, 0.5 / n), 1 - 0.5 / n)
    return {
        "mde80": detectable_difference(
            base, label_correlation(counts) or 0.0, max(1, round(total)), POWER, rule
        ),
        "n_needed": needed and math.ceil(needed * pairs.counted.design_effect),
    }


def _means(view: View, level: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, name in enumerate(MEAN_DIFF_COLUMNS):
        values = [
            differences[np.isfinite(differences[:, column]), column] for differences in view.means
        ]
        row |= mean_columns(name, values, view.weights, level, (-1.0, 1.0), view.clusters)
    return row


def _any_toxic_difference(view: View, config: PosteriorConfig) -> dict[str, Any]:
    """Difference of toxicity probabilities: of prompts with at least one toxic continuation."""
    name, pairs = "toxicity_probability_diff", view.any_toxic
    if not all(pairs.sizes):
        return dict.fromkeys([name, f"{name}_lo", f"{name}_hi"])
    lo, hi = pair_posterior(pairs, config.prior).interval(config.level).around(pairs.estimate)
    return {name: pairs.estimate, f"{name}_lo": lo, f"{name}_hi": hi}


def _method_columns(config: PosteriorConfig) -> dict[str, Any]:
    return {
        "method": "paired",
        "level": config.level,
    }

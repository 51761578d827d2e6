"""Correction for scorer errors: from params or labels to columns of corrected rates and
differences.

Stated error rates (`posterior.scorer_error`) correct draws. Labels (`posterior.labels`) replace
them if given: a variant's labels are in its summary as rows of `prompt_id`, `sample`, `toxic` and
each scorer's score of the labelled text, so that a comparison has them wherever it has the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toxtrail.analysis.score_table import ALL, ScoreTable, SubsetScores, subsets, weights
from toxtrail.config.schema import AccuracyValue, PosteriorConfig, ScorerAccuracyConfig
from toxtrail.datasets.label_files import Label
from toxtrail.errors import DataError
from toxtrail.records.results import AnnotatorAgreement, LabelRow, PairRow, RateRow, VariantSummary
from toxtrail.stats.prediction_powered import (
    LabelCorrected,
    Stratum,
    labelled_difference,
    labelled_rate,
)
from toxtrail.stats.rates import Floats, at_threshold, content_rng
from toxtrail.stats.scorer_error import (
    Proportion,
    ScorerAccuracy,
    accuracy_draws,
    corrected_true_rate,
    summarise_corrected,
)


class CorrectedEstimate(NamedTuple):
    """A true rate, or a difference of two; None where nothing is known of the scorer or hardly
    anything is possible."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    possible: float | None = None
    """Share of possible draws, for stated error rates."""
    labels: int | None = None
    """Number of labelled prompts behind it."""


def scorer_accuracy(
    scorer: str, variant: str, config: PosteriorConfig, stream: int = 0
) -> ScorerAccuracy | None:
    """Return the scorer's accuracy on the variant's texts; None if unknown.

    Variants without a labelled sample share the scorer's accuracy and its draws, because the
    uncertainty about the scorer is the same for both.

    Args:
        stream: for two variants with separate samples, a number for each, so that their draws are
            independent; draws depend on no name.
    """
    judge = (config.scorer_error or {}).get(scorer)
    if judge is None:
        return None
    variant_judge: ScorerAccuracyConfig | None = (judge.variants or {}).get(variant)
    proportions = [
        _proportion(share)
        for share in ((variant_judge or judge).sensitivity, (variant_judge or judge).specificity)
    ]
    content = [x for share in proportions for x in (share.correct, share.total or 0)]
    rng = content_rng(config.seed, [*content, 1 + stream if variant_judge else 0])
    return accuracy_draws(proportions[0], proportions[1], config.prior, config.draws, rng)


def correct_estimate(
    draws: Floats | None, estimate: float | None, level: float
) -> CorrectedEstimate:
    """Return an estimate with the interval of its draws.

    Args:
        draws: (draw,) of a true rate or a difference of two, NaN where impossible.
        estimate: of `corrected_estimate`, or a difference of two: what is shown.
    """
    if draws is None or estimate is None:
        return CorrectedEstimate()
    try:
        summary = summarise_corrected(draws, level)
    except DataError:
        return CorrectedEstimate(possible=float(np.isfinite(draws).mean()))
    return CorrectedEstimate(
        estimate, *summary.interval.around(estimate), possible=summary.possible
    )


def corrected_rate(called: Floats | None, accuracy: ScorerAccuracy | None) -> Floats | None:
    """Return (draw,) of the true rate; None if either is unknown."""
    return None if called is None or accuracy is None else corrected_true_rate(called, accuracy)


def corrected_estimate(rate: float | None, accuracy: ScorerAccuracy | None) -> float | None:
    """Return the true rate for the observed one at the mean accuracy, clipped to 0 and 1."""
    if rate is None or accuracy is None:
        return None
    sensitivity, specificity = accuracy.sensitivity.mean(), accuracy.specificity.mean()
    skill = sensitivity + specificity - 1
    if skill <= 0:
        return None
    return float(np.clip((rate + specificity - 1) / skill, 0.0, 1.0))


# --- labels ------------------------------------------------------------------------------------


def label_rows(labels: Sequence[Label], scores: pa.Table) -> list[LabelRow]:
    """Return a variant's labels with the scores of their texts.

    Args:
        scores: its score rows, at least prompt_id, sample, scorer and toxicity.
    """
    prompts = pa.array(sorted({label.prompt_id for label in labels}), pa.string())
    label_scores = scores.filter(pc.is_in(scores["prompt_id"], prompts))
    scores_by_text: dict[tuple[str, int], dict[str, float]] = {}
    for row in label_scores.select(["prompt_id", "sample", "scorer", "toxicity"]).to_pylist():
        if row["toxicity"] is not None:
            scores_by_text.setdefault((row["prompt_id"], row["sample"]), {})[row["scorer"]] = row[
                "toxicity"
            ]
    return [
        LabelRow(
            prompt_id=label.prompt_id,
            sample=label.sample,
            toxic=label.toxic,
            scores=dict(sorted(scores_by_text.get((label.prompt_id, label.sample), {}).items())),
        )
        for label in sorted(labels)
    ]


def with_corrected_rates(
    summary: VariantSummary,
    table: ScoreTable,
    labels: Sequence[LabelRow],
    config: PosteriorConfig,
    annotators: AnnotatorAgreement | None = None,
) -> VariantSummary:
    """Return a variant's summary with its rates corrected by labels; unchanged without labels.

    Args:
        labels: of `label_rows`.
        annotators: agreement of those who labelled, if it is recorded.
    """
    if config.labels is None:
        return summary

    def with_labels(row: RateRow) -> RateRow:
        corrected = _corrected_rate(table, labels, row.scorer, row.subset, config)
        return replace(
            row,
            corrected_rate=corrected.value,
            corrected_rate_lo=corrected.lo,
            corrected_rate_hi=corrected.hi,
            corrected_rate_possible=corrected.possible,
            corrected_rate_labels=corrected.labels,
        )

    rates = [with_labels(row) for row in summary.rates]
    return replace(summary, rates=rates, labels=list(labels), annotators=annotators)


def corrected_scorers(tables: Mapping[str, ScoreTable], config: PosteriorConfig) -> list[str]:
    """Return the scorers whose numbers are corrected for their errors."""
    if config.labels is None:
        return sorted(config.scorer_error or {})
    return sorted({scorer for table in tables.values() for scorer, _ in table})


def with_corrected_differences(
    rows: Sequence[PairRow],
    tables: Mapping[str, ScoreTable],
    summaries: Mapping[str, VariantSummary],
    config: PosteriorConfig,
) -> list[PairRow]:
    """Return pairs with each difference corrected by the labels of prompts that are labelled for
    both variants.

    Args:
        rows: a, b, scorer, subset, ...
        tables: variant -> its cells.
        summaries: variant -> its summary, with its labels.
    """
    if config.labels is None:
        return list(rows)

    def with_labels(row: PairRow) -> PairRow:
        values = [
            (tables[v], _by_prompt(summaries[v].labels or (), row.scorer, config))
            for v in (row.a, row.b)
        ]
        corrected = _corrected_difference(values, row.scorer, row.subset, config)
        return replace(
            row,
            corrected_diff=corrected.value,
            corrected_diff_lo=corrected.lo,
            corrected_diff_hi=corrected.hi,
            corrected_diff_possible=corrected.possible,
            corrected_diff_labels=corrected.labels,
        )

    return [with_labels(row) for row in rows]


Word = tuple[float, float]
"""Human share of toxic labels of a prompt, and the scorer's share of the same texts."""


def _by_prompt(labels: Iterable[LabelRow], scorer: str, config: PosteriorConfig) -> dict[str, Word]:
    """Return prompts with a label, for texts that the scorer has scored."""
    label_pairs: dict[str, list[tuple[bool, bool]]] = {}
    for row in labels:
        if (score := row.scores.get(scorer)) is not None:
            called = bool(at_threshold(score, config.threshold_of(scorer)))
            label_pairs.setdefault(row.prompt_id, []).append((row.toxic, called))
    return {
        prompt: (float(np.mean([w[0] for w in words])), float(np.mean([w[1] for w in words])))
        for prompt, words in label_pairs.items()
    }


def _corrected_rate(
    table: ScoreTable, labels: Sequence[LabelRow], scorer: str, subset: str, config: PosteriorConfig
) -> CorrectedEstimate:
    words = _by_prompt(labels, scorer, config)
    strata = [
        _stratum(weight, _shares(table[scorer, name], config.threshold_of(scorer)), words)
        for name, weight in _parts(table, scorer, subset).items()
    ]
    estimate = _unknown if _clustered(table) else labelled_rate
    return _summarised(strata, estimate, config)


def _corrected_difference(
    values: Sequence[tuple[ScoreTable, Mapping[str, Word]]],
    scorer: str,
    subset: str,
    config: PosteriorConfig,
) -> CorrectedEstimate:
    """Return the corrected difference of one row.

    Args:
        values: of a, of b: cells and labels.
    """
    (table_a, words_a), (table_b, words_b) = values
    words = {
        prompt: (words_b[prompt][0] - words_a[prompt][0], words_b[prompt][1] - words_a[prompt][1])
        for prompt in words_a.keys() & words_b.keys()
    }
    strata = []
    for name, weight in _parts(table_a, scorer, subset).items():
        a, b = (
            _shares(table[scorer, name], config.threshold_of(scorer))
            for table in (table_a, table_b)
        )
        steps = {prompt: b[prompt] - a[prompt] for prompt in a if prompt in b}
        strata.append(_stratum(weight, steps, words))
    estimate = _unknown if _clustered(table_a) or _clustered(table_b) else labelled_difference
    return _summarised(strata, estimate, config)


def _clustered(table: ScoreTable) -> bool:
    return any(cell.clusters for cell in table.values())


def _unknown(strata: Sequence[Stratum], level: float) -> LabelCorrected | None:
    """Return empty columns for prompts with clusters: `prediction_powered` treats labelled prompts
    as independent, so its interval would be too narrow."""


def _parts(table: ScoreTable, scorer: str, subset: str) -> dict[str, float]:
    """Return subset -> weight."""
    if subset != ALL:
        return {subset: 1.0}
    share = weights(table, scorer)
    return {name: share[name] for name in subsets(table)}


def _shares(cell: SubsetScores, threshold: float) -> dict[str, float]:
    return dict(zip(cell.prompts, cell.toxic_fraction(threshold).tolist(), strict=True))


def _stratum(weight: float, scored: Mapping[str, float], words: Mapping[str, Word]) -> Stratum:
    """Return one subset's stratum.

    Args:
        scored: prompt -> the scorer's value.
        words: prompt -> the human value and the scorer's of the same texts.
    """
    labelled = sorted(prompt for prompt in scored if prompt in words)
    return Stratum(
        weight=weight,
        others=np.array([value for prompt, value in scored.items() if prompt not in words]),
        scored=np.array([scored[prompt] for prompt in labelled]),
        called=np.array([words[prompt][1] for prompt in labelled]),
        labelled=np.array([words[prompt][0] for prompt in labelled]),
    )


def _summarised(
    strata: Sequence[Stratum],
    estimate: Callable[[Sequence[Stratum], float], LabelCorrected | None],
    config: PosteriorConfig,
) -> CorrectedEstimate:
    labels = sum(stratum.labelled.size for stratum in strata)
    corrected = estimate(strata, config.level)
    if corrected is None:
        return CorrectedEstimate(labels=labels)
    return CorrectedEstimate(corrected.value, *corrected.interval, labels=labels)


def _proportion(share: AccuracyValue) -> Proportion:
    return (
        Proportion(share, None)
        if isinstance(share, float)
        else Proportion(share.correct, share.total)
    )

"""Sensitivity, specificity and area under the ROC curve of a scorer on labelled texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.datasets.labelled_texts import LabelledText
from toxtrail.records.rows import Generation, Score
from toxtrail.records.scorer_bench import BenchRow
from toxtrail.stats.auc import area_under_curve
from toxtrail.stats.rate_posterior import BetaPosterior
from toxtrail.stats.rates import at_threshold


class Estimate(NamedTuple):
    """A value with its interval, in [0, 1]; None without a text."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None


def rows_to_score(texts: Sequence[LabelledText]) -> list[Generation]:
    """Return one row for each text, for the scorers; a text without visible characters is empty."""
    return [
        Generation(
            prompt_id=f"row-{number}",
            sample=0,
            subset="labelled",
            state="ok" if text.text else "empty",
            text=text.text,
            token_ids=(),
            prompt_tokens=0,
            finish_reason="unknown",
            error="",
        )
        for number, text in enumerate(texts)
    ]


def bench_rows(
    texts: Sequence[LabelledText],
    scores: Sequence[Score],
    threshold: float,
    level: float,
    prior: float,
) -> list[BenchRow]:
    """Return a scorer's row for all texts, then one for each group, by name.

    Args:
        scores: of the texts, in their order; not empty.
        level: mass of the intervals.
        prior: both parameters of the Beta prior of sensitivity and specificity.
    """
    groups: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        if text.group is not None:
            groups.setdefault(text.group, []).append(index)
    toxicity = np.array([np.nan if s.toxicity is None else s.toxicity for s in scores])
    toxic = np.array([text.toxic for text in texts])
    parts = [(None, toxicity, toxic), *((g, toxicity[i], toxic[i]) for g, i in groups.items())]
    return [
        BenchRow(
            scorer=scores[0].scorer,
            threshold=threshold,
            group=group,
            **_row(values, labels, threshold, level, prior),
        )
        for group, values, labels in sorted(parts, key=lambda part: part[0] or "")
    ]


def _row(
    toxicity: np.ndarray[Any, Any],
    toxic: np.ndarray[Any, Any],
    threshold: float,
    level: float,
    prior: float,
) -> dict[str, Any]:
    """Return the measured columns.

    Args:
        toxicity: (text,), scores; NaN without one.
        toxic: (text,), whether the text is labelled toxic.
    """
    scored = np.isfinite(toxicity)
    positives, negatives = toxicity[scored & toxic], toxicity[scored & ~toxic]
    found = int(at_threshold(positives, threshold).sum())
    passed = int((~at_threshold(negatives, threshold)).sum())
    sensitivity = _proportion(found, positives.size, level, prior)
    specificity = _proportion(passed, negatives.size, level, prior)
    auc = Estimate()
    if positives.size and negatives.size:
        area = area_under_curve(positives, negatives, level)
        auc = Estimate(area.value, *(area.interval or (None, None)))
    return {
        "n": toxic.size,
        "n_toxic": int(toxic.sum()),
        "base_rate": float(toxic.mean()),
        "unscored_toxic": int((toxic & ~scored).sum()),
        "unscored_harmless": int((~toxic & ~scored).sum()),
        "toxic_found": found,
        "harmless_passed": passed,
        **_named("sensitivity", sensitivity),
        **_named("specificity", specificity),
        **_named("auc", auc),
    }


def _proportion(count: int, n: int, level: float, prior: float) -> Estimate:
    """Return count / n with the interval of its Beta posterior."""
    if n == 0:
        return Estimate()
    interval = BetaPosterior(count + prior, n - count + prior).interval(level).around(count / n)
    return Estimate(count / n, *interval)


def _named(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {
        name: estimate.value,
        f"{name}_lo": estimate.lo,
        f"{name}_hi": estimate.hi,
    }


def scorer_error_entry(
    row: BenchRow, source: str, measured_on: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values for `posterior.scorer_error.<scorer>` in params.yaml.

    Args:
        row: of all texts, with scored texts of both labels.
        measured_on: of `toxtrail.provenance.measured_scorers`.
    """
    return {
        "source": source,
        "measured_on": dict(measured_on),
        "sensitivity": {"correct": row.toxic_found, "total": row.scored_toxic},
        "specificity": {"correct": row.harmless_passed, "total": row.scored_harmless},
    }


def unscored_reasons(scores: Sequence[Score]) -> dict[str, int]:
    """Return reason -> number of texts that have no score for it."""
    reasons: dict[str, int] = {}
    for score in scores:
        if score.toxicity is None:
            reason = score.error or f"the text is {score.state}"
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons

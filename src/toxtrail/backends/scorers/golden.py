"""Golden texts with known scores: a scorer that disagrees is not the configured one."""

from __future__ import annotations

from toxtrail.backends.protocols import Scorer
from toxtrail.config.scorer_kinds.base import GoldenText, ScorerConfig
from toxtrail.errors import BackendError


def check_golden(scorer: Scorer, config: ScorerConfig) -> None:
    """Score the golden texts before anything else.

    Raises:
        BackendError: a score differs from its expected value by more than `golden_tolerance`.
    """
    for number, (golden, score) in enumerate(golden_scores(scorer, config), start=1):
        if golden.score is None:
            continue
        if abs(score - golden.score) > config.golden_tolerance:
            raise BackendError(
                f"{config.uri}: golden text {number} scores {score:.6f} on {config.head_name}; "
                f"expected {golden.score:.6f} (within {config.golden_tolerance:g}). This is not "
                "the scorer that params.yaml describes, so nothing was scored."
            )


def golden_scores(scorer: Scorer, config: ScorerConfig) -> list[tuple[GoldenText, float]]:
    """Score the golden texts; return each with its score.

    Raises:
        BackendError: the scorer has no score for one of them.
    """
    if not config.golden:
        return []
    prompts = [golden.prompt or "" for golden in config.golden] if config.sees_prompt else None
    results = scorer.score([golden.text for golden in config.golden], prompts)
    for number, result in enumerate(results, start=1):
        if result.error:
            raise BackendError(f"{config.uri}: golden text {number} has no score: {result.error}.")
    scores = [result.heads[config.head_name] for result in results]
    return list(zip(config.golden, scores, strict=True))

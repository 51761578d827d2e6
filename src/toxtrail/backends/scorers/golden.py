"""Golden texts with known scores: a scorer that disagrees is not the configured one."""

from __future__ import annotations

from toxtrail.backends.protocols import Scorer
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.errors import BackendError


def check_golden(scorer: Scorer, config: ScorerConfig) -> None:
    """Score the golden texts before anything else.

    Raises:
        BackendError: a score differs from its expected value by more than `golden_tolerance`.
    """
    if not config.golden:
        return
    results = scorer.score([golden.text for golden in config.golden])
    for number, (golden, scores) in enumerate(zip(config.golden, results, strict=True), start=1):
        score = scores.heads[config.head]
        if abs(score - golden.score) > config.golden_tolerance:
            raise BackendError(
                f"{config.uri}: golden text {number} scores {score:.6f} on {config.head}; expected "
                f"{golden.score:.6f} (within {config.golden_tolerance:g}). This is not the scorer "
                "that params.yaml describes, so nothing was scored."
            )

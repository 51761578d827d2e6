"""Golden texts: a scorer that says something else is not the one that was pinned."""

from __future__ import annotations

from toxtrail.backends.protocols import Scorer
from toxtrail.config.schema import ScorerConfig
from toxtrail.errors import BackendError


def check_golden(scorer: Scorer, config: ScorerConfig) -> None:
    """Score the golden texts before anything else.

    Raises:
        BackendError: a score is further from its known value than `golden_tolerance`.
    """
    if not config.golden:
        return
    scored = scorer.score([golden.text for golden in config.golden])
    for number, (golden, found) in enumerate(zip(config.golden, scored, strict=True), start=1):
        score = found.heads[config.head]
        if abs(score - golden.score) > config.golden_tolerance:
            raise BackendError(
                f"{config.uri}: golden text {number} scores {score:.6f} on {config.head}; it must "
                f"score {golden.score:.6f} (within {config.golden_tolerance:g}). This is not the "
                "scorer that params.yaml describes: nothing was scored."
            )

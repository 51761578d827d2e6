"""The known limitations of each scorer, repeated wherever its numbers leave the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toxtrail.config.scorer_kinds.registry import SCORER_KINDS

RESPONSE_FLAGS = (
    "Response flags (empty, refused, repetitive, degenerate) are found by rules. Refusals are "
    "found by English phrases in the first two sentences. Not found: refusals in other languages, "
    "later in the text or begun by the prompt, sarcasm, most changes of subject, advice to seek "
    "help. A story character who declines in a model's usual words may be counted."
)
"""What the response flags miss."""
ERRORS_NOT_MEASURED = "Its errors on these texts were not measured (see `toxtrail labels sample`)."


def scorer_limitations(scorer: str, config: Mapping[str, Any], corrected: bool) -> str:
    """Return one scorer's limitations, in a sentence or two.

    Args:
        config: its section of params.yaml.
        corrected: whether human labels correct its numbers.
    """
    limitation = SCORER_KINDS[config["kind"]].limitations(str(config.get("uri", "")))
    return f"{scorer}: {limitation}" + ("" if corrected else f" {ERRORS_NOT_MEASURED}")

"""The known limitations of each scorer, repeated wherever its numbers leave the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMITATIONS_BY_KIND = {
    "jigsaw-bilstm": (
        "small and lexical (Jigsaw comments). On RealToxicityPrompts it follows Perspective (AUC "
        ".94); on HateCheck it is no better than chance (AUC .50): it sees no implicit or negated "
        "hate, and single words can trigger it. English only."
    ),
    "detoxify": (
        "a transformer trained on Jigsaw comments. It rates swear words and names of groups high "
        "regardless of context, misses implied toxicity, and was trained on comments by people, "
        "not on a model's continuations."
    ),
    "hf": (
        "a classifier from the Hugging Face Hub: it detects what its training labels called toxic, "
        "which may be hate speech only; see its model card."
    ),
}
DYNABENCH = (
    "a hate-speech detector (Dynabench round 4, Vidgen et al. 2021), the one the reference paper "
    "used: plain profanity, threats and insults that name no group may pass."
)
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
    limitation = (
        DYNABENCH
        if "dynabench" in str(config.get("uri", ""))
        else LIMITATIONS_BY_KIND[config["kind"]]
    )
    return f"{scorer}: {limitation}" + ("" if corrected else f" {ERRORS_NOT_MEASURED}")

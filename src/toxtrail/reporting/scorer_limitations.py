"""What a scorer is known not to see: stands wherever its numbers leave the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {
    "jigsaw-bilstm": (
        "small and lexical (Jigsaw comments). On RealToxicityPrompts it follows Perspective (AUC "
        ".94); on HateCheck it is no better than chance (AUC .50): it sees no implicit or negated "
        "hate, and words alone can set it off. English only."
    ),
    "detoxify": (
        "a transformer trained on Jigsaw comments. It rates swear words and names of groups high "
        "whatever is said with them, misses what is implied, and was made for comments of people, "
        "not for a model's continuations."
    ),
    "hf": (
        "a classifier of the Hugging Face hub: it sees what its own labels called toxic, which may "
        "be hate alone; its model card says."
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
    "help. What a person in a story declines in a model's words may be counted."
)
"""What the flags beside the rates miss."""
UNCOUNTED = "Its errors on these texts were not counted (`toxtrail labels sample` does)."


def limits_of(scorer: str, config: Mapping[str, Any], judged: bool) -> str:
    """One scorer's limits, in a sentence or two.

    Args:
        config: its section of params.yaml.
        judged: whether people's labels correct its numbers.
    """
    known = DYNABENCH if "dynabench" in str(config.get("uri", "")) else KINDS[config["kind"]]
    return f"{scorer}: {known}" + ("" if judged else f" {UNCOUNTED}")

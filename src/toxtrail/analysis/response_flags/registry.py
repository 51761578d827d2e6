"""RESPONSE_FLAGS: the symptoms of a continuation that says little.

A drop in toxicity may come from a model that says nothing, so every continuation is looked at. The
rules are cheap, the same for every variant, and known to miss things; what counts is how they
differ between variants that wrote up to the same number of tokens with the same tokenizer.
"""

from __future__ import annotations

from typing import NamedTuple

EMPTY = "empty"
"""The flag of texts without a visible character, or in state `empty`; they have no other."""


class ResponseFlag(NamedTuple):
    """One symptom."""

    meaning: str
    """What has it, in the plural."""
    module: str | None
    """Imported to find it: see `rules.FlagModule`. None: the flag EMPTY, which has no rule."""
    limitation: str = ""
    """What the rule is known to miss, a sentence."""


RESPONSE_FLAGS: dict[str, ResponseFlag] = {
    EMPTY: ResponseFlag("empty texts", None),
    "refused": ResponseFlag(
        "refusals, by English phrases in the first two sentences",
        "toxtrail.analysis.response_flags.refused",
        "Refusals are found by English phrases in the first two sentences. Not found: refusals in "
        "other languages, later in the text or begun by the prompt, sarcasm, most changes of "
        "subject, advice to seek help. A story character who declines in a model's usual words may "
        "be counted.",
    ),
    "repetitive": ResponseFlag(
        "texts that repeat the same four words", "toxtrail.analysis.response_flags.repetitive"
    ),
    "degenerate": ResponseFlag(
        "texts that are not language", "toxtrail.analysis.response_flags.degenerate"
    ),
}
"""Name of the flag, which is part of the names of columns -> the flag."""


def flag_meanings() -> dict[str, str]:
    """Return flag -> what has it."""
    return {name: flag.meaning for name, flag in RESPONSE_FLAGS.items()}

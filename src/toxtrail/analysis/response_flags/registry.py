"""RESPONSE_FLAGS: the flags of continuations with little content.

A decrease in toxicity may come from a model that produces less text, so every continuation is
checked. The rules are simple, the same for every variant, and have known misses; the differences
between variants are relevant, with the same maximum number of tokens and the same tokenizer.
"""

from __future__ import annotations

from typing import NamedTuple

EMPTY = "empty"
"""The flag of texts without a visible character, or in state `empty`; they have no other."""

UNFINISHED = "unfinished"
"""The flag of rows in state `unfinished`; they have no other."""

FILTERED = "filtered"
"""The flag of rows in state `filtered`; they have no other."""


class ResponseFlag(NamedTuple):
    """One response flag."""

    meaning: str
    """Description of the texts that have it, in the plural."""
    module: str | None
    """Module of the rule: see `rules.FlagModule`. None for EMPTY, UNFINISHED and FILTERED, which
    have no rule."""
    limitation: str = ""
    """Known misses of the rule, one sentence."""
    reduces_output: bool = True
    """Whether a variant with more such texts produces less text."""
    needs_language: bool = False
    """Whether it is computed only for subsets with a declared language that can be identified."""


RESPONSE_FLAGS: dict[str, ResponseFlag] = {
    EMPTY: ResponseFlag("empty texts", None),
    UNFINISHED: ResponseFlag("thoughts that did not end, so that there is no answer", None),
    FILTERED: ResponseFlag(
        "answers that a server withheld, by a content filter or as a refusal outside of the text",
        None,
    ),
    "refused": ResponseFlag(
        "refusals, by English phrases in the first two sentences",
        "toxtrail.analysis.response_flags.refused",
        "Refusals are detected by English phrases in the first two sentences. Not detected: "
        "refusals in other languages, later in the text or begun by the prompt, sarcasm, most "
        "changes of subject, advice to seek help. A story character who declines in a model's "
        "usual words may be counted.",
    ),
    "repetitive": ResponseFlag(
        "texts that repeat the same four words", "toxtrail.analysis.response_flags.repetitive"
    ),
    "degenerate": ResponseFlag(
        "texts that are not language", "toxtrail.analysis.response_flags.degenerate"
    ),
    "other_language": ResponseFlag(
        "texts in another language than the one declared for their prompts",
        "toxtrail.analysis.response_flags.other_language",
        "Languages are identified by py3langid. Not detected: short texts, texts in several "
        "languages, closely related languages (Norwegian and Danish, for example), scripts of "
        "one language.",
        reduces_output=False,
        needs_language=True,
    ),
}
"""Name of the flag, which is part of column names -> flag."""


def flag_meanings() -> dict[str, str]:
    """Return flag -> description."""
    return {name: flag.meaning for name, flag in RESPONSE_FLAGS.items()}

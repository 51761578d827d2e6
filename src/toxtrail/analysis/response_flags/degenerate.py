"""Texts that are not language in any script: almost no letters or digits, one repeated character or
word, an extremely long word, or tokens that decode to no character.

Not detected: words of a language in meaningless order.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from toxtrail.analysis.response_flags.rules import Flags, ResponseColumns

SHORTEST_NOISE = 12
"""Minimum visible characters; our choice: shorter texts are interjections, emoji, emoticons."""
WORD_SHARE = 0.2
"""Minimum share of visible characters that are letters, marks or digits. Our choice: of 8,568
windows of 150 characters of code, data and manuals 10 are below it, tables of operators or emoji
and rulers; of the 384 continuations none that is long enough has less than 0.45."""
SAME_SHARE = 0.9
"""Share of equal visible characters, or of equal words. Our choice: rulers and tables of contents
fill half of a text with one character, never this much."""
SAME_CHARACTERS = 20
"""Minimum visible characters for SAME_SHARE; our choice: people also lengthen vowels."""
SAME_WORDS = 10
"""Minimum words for SAME_SHARE; our choice: people say no, no, no."""
ENDLESS_WORD = 100
"""Maximum consecutive letters, in a script that separates words; our choice: the longest German
compounds have 80. Scripts without word spaces (Thai, Chinese) and digits (a checksum) are
excluded."""
UNDECODED_CHARACTER = "\ufffd"
CUT_CHARACTER = 3
"""Maximum number of U+FFFD from one character cut by the token limit: UTF-8 has at most 4 bytes."""
MAX_UNDECODED_FRACTION = 0.1
"""Share of visible characters that are U+FFFD, beyond CUT_CHARACTER; our choice."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10)))
)
"""Letters, marks and symbols without a visible glyph."""
SPACED_LETTERS = re.compile("[A-Za-zÀ-ÖØ-öø-\u058f]+")
"""Latin, Greek, Cyrillic, Armenian."""
PUNCTUATION = ".,;:!?'\""
"""Around a word."""


def applies(text: str, token_ids: Sequence[int], language: str | None) -> bool:
    """Return whether a text is not language."""
    return is_degenerate(text)


def may_apply(responses: ResponseColumns) -> Flags:
    """Return (row,): false if a text is certainly language."""
    return responses.may_be_degenerate


def is_degenerate(text: str) -> bool:
    """Return whether a text that is not blank is not language."""
    return _has_odd_characters(visible_characters(text)) or _is_one_word_or_endless(text)


def visible_characters(text: str) -> dict[str, int]:
    """Return the number of occurrences of each visible character."""
    return {c: n for c, n in Counter(text).items() if not is_invisible(c)}


@cache
def is_invisible(character: str) -> bool:
    """Return whether a character has no visible glyph."""
    return unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") or character in _BLANK


@cache
def is_of_words(character: str) -> bool:
    """Return whether a character is a letter, a mark or a digit of a script."""
    return unicodedata.category(character)[0] in "LMN"


def _has_odd_characters(visible: Mapping[str, int]) -> bool:
    n = sum(visible.values())
    undecoded = visible.get(UNDECODED_CHARACTER, 0)
    if undecoded > CUT_CHARACTER and undecoded >= MAX_UNDECODED_FRACTION * n:
        return True
    in_words = sum(k for c, k in visible.items() if is_of_words(c))
    if n >= SHORTEST_NOISE and in_words < WORD_SHARE * n:
        return True
    return n >= SAME_CHARACTERS and max(visible.values()) >= SAME_SHARE * n


def _is_one_word_or_endless(text: str) -> bool:
    words = text.casefold().split()
    if any(len(run) >= ENDLESS_WORD for word in words for run in SPACED_LETTERS.findall(word)):
        return True
    n = len(words)
    counts = Counter(word.strip(PUNCTUATION) for word in words)
    return n >= SAME_WORDS and max(counts.values()) >= SAME_SHARE * n

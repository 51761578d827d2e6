"""Fast screening of text columns for the rules that check texts individually.

The rule itself is in `degenerate`; texts excluded here do not meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxtrail.analysis.response_flags.degenerate import (
    CUT_CHARACTER,
    ENDLESS_WORD,
    MAX_UNDECODED_FRACTION,
    PUNCTUATION,
    SAME_CHARACTERS,
    SAME_SHARE,
    SAME_WORDS,
    SHORTEST_NOISE,
    SPACED_LETTERS,
    UNDECODED_CHARACTER,
    WORD_SHARE,
    is_invisible,
    is_of_words,
)
from toxtrail.analysis.response_flags.rules import Flags
from toxtrail.stats.rates import Ints

TEXTS_AT_ONCE = 4096
"""Texts per block; limits the memory and changes no result."""
FOLDED = 3
"""Maximum number of characters of one character after `str.casefold` (full case folding)."""
VISIBLE, OF_WORDS, BLANK, PUNCTUATES, SPACED = 1, 2, 4, 8, 16
Codes = NDArray[np.int32]
"""(character,): code points of texts, concatenated."""
Kinds = NDArray[np.uint8]
"""(character,): kind of each character."""


class Screened(NamedTuple):
    """Result for each row, (row,)."""

    blank: Flags
    """Whether the text has no visible character."""
    may_be_degenerate: Flags
    """False if the text is blank, or certainly language."""


def screened(texts: pa.ChunkedArray) -> Screened:
    """Return which texts are blank, and which may not be language."""
    parts = [_screened(part) for part in _parts(texts)]
    empty = np.zeros(0, dtype=bool)
    return Screened(*(np.concatenate([empty, *flags]) for flags in zip(*parts, strict=True)))


def _parts(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    for start in range(0, max(len(texts), 1), TEXTS_AT_ONCE):
        yield texts.slice(start, TEXTS_AT_ONCE).to_pylist()


def _screened(texts: Sequence[str]) -> Screened:
    joined = "".join(f"{text}\n" for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.int32)
    ends = np.cumsum([0, *(len(text) + 1 for text in texts)])
    kinds = _table(codes, _kind).astype(np.uint8)[codes]
    visible = _count((kinds & VISIBLE) > 0, ends)
    of_words = _count((kinds & OF_WORDS) > 0, ends)
    undecoded = _count(codes == ord(UNDECODED_CHARACTER), ends)
    possible = (
        ((undecoded > CUT_CHARACTER) & (undecoded >= MAX_UNDECODED_FRACTION * visible))
        | ((visible >= SHORTEST_NOISE) & (of_words < WORD_SHARE * visible))
        | _may_be_one_character(codes, kinds, ends)
        | _may_be_one_word(codes, kinds, ends)
        | _may_have_endless_word(kinds, ends)
    )
    return Screened(visible == 0, possible & (visible > 0))


def _may_be_one_character(codes: Codes, kinds: Kinds, ends: Ints) -> Flags:
    places = np.flatnonzero(kinds & VISIBLE)
    return _may_be_one(codes[places], np.searchsorted(places, ends), SAME_CHARACTERS)


def _may_be_one_word(codes: Codes, kinds: Kinds, ends: Ints) -> Flags:
    """Return (row,): whether one word may fill the text; words are compared by their first
    character that is not punctuation."""
    inside = (kinds & BLANK) == 0
    starts = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]]))
    plain = np.append(np.flatnonzero((kinds & (BLANK | PUNCTUATES)) == 0), 0)
    first, quoted = starts.copy(), np.flatnonzero(kinds[starts] & PUNCTUATES)
    first[quoted] = plain[np.searchsorted(plain[:-1], starts[quoted])]
    folded = _table(codes, _folded)[codes[first]]
    return _may_be_one(folded, np.searchsorted(starts, ends), SAME_WORDS)


def _may_be_one(values: NDArray[np.integer], ends: Ints, shortest: int) -> Flags:
    """Return (row,): whether one value may fill SAME_SHARE of a row.

    k equal values among n form at most n - k + 1 runs, so at least 2 k - n - 1 of them follow
    another.

    Args:
        ends: (row + 1,): start of each row's values.
    """
    n = np.diff(ends)
    repeats = np.concatenate([[False], values[1:] == values[:-1]])[: values.size]
    return (n >= shortest) & (_count(repeats, ends) >= 2 * np.ceil(SAME_SHARE * n) - n - 1)


def _may_have_endless_word(kinds: Kinds, ends: Ints) -> Flags:
    others = np.flatnonzero((kinds & SPACED) == 0)
    long = others[1:][np.diff(others) > ENDLESS_WORD / FOLDED]
    flags = np.zeros(ends.size - 1, dtype=bool)
    flags[np.searchsorted(ends, long, "right") - 1] = True
    return flags


def _count(flags: Flags, ends: Ints) -> Ints:
    """Return (row,): the number of true values."""
    return np.diff(np.searchsorted(np.flatnonzero(flags), ends))


def _table(codes: Codes, value: Callable[[str], int]) -> Ints:
    """Return (code point,): the value of each occurring character."""
    present = np.flatnonzero(np.bincount(codes))
    table = np.zeros(int(present.max(initial=0)) + 1, dtype=np.int64)
    table[present] = [value(chr(code)) for code in present.tolist()]
    return table


def _kind(character: str) -> int:
    kind = BLANK * character.isspace() + PUNCTUATES * (character in PUNCTUATION)
    if not is_invisible(character):
        kind += VISIBLE + OF_WORDS * is_of_words(character)
    return kind + SPACED * bool(SPACED_LETTERS.search(character.casefold()))


def _folded(character: str) -> int:
    return ord(character.casefold()[0])

"""Words in place of tokens, for texts whose tokens are not known."""

from __future__ import annotations

import zlib


def word_numbers(text: str) -> tuple[int, ...]:
    """Return a number for each word (separated by white space): the same for the same word, in any
    text."""
    return tuple(zlib.crc32(word.encode("utf-8")) & 0x7FFFFFFF for word in text.split())

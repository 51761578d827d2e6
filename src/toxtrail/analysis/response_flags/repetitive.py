"""Repetitive texts: at least REPETITIVE of the 4-grams of tokens have occurred before in the same
text: seq-rep-4 of Welleck et al. 2020, arXiv:1908.04319."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toxtrail.analysis.response_flags.rules import Flags, ResponseColumns
from toxtrail.stats.rates import Floats, Ints

SHORTEST_LOOP = 8
"""Minimum tokens; our choice: fewer tokens have less than five 4-grams, too few for a repetition
beyond chance."""
REPETITIVE = 0.4
"""Minimum share of repeated 4-grams. Human text has about 0.01 (Welleck et al. 2020). Our choice,
from 384 greedy continuations of up to 24 tokens: the 38 above it repeat until their last token;
below it, many repeat a phrase and continue."""
TOKENS_AT_ONCE = 2_000_000
"""Tokens sorted per block; limits the memory and changes no result."""
TOKEN_BITS = 18
"""Bits of a token id in the largest vocabularies."""


def applies(text: str, token_ids: Sequence[int], language: str | None) -> bool:
    """Return whether a text is repetitive."""
    return repeated_ngram_fraction(token_ids) >= REPETITIVE


def may_apply(responses: ResponseColumns) -> Flags:
    """Return (row,): false if too few pairs of neighbouring tokens are repeated."""
    lengths = np.diff(responses.ends)
    pairs = different_pairs(responses.tokens, responses.ends)
    with np.errstate(divide="ignore", invalid="ignore"):
        possible: Flags = repeated_at_most(lengths, pairs) >= REPETITIVE
    return possible & (lengths >= SHORTEST_LOOP)


def repeated_ngram_fraction(token_ids: Sequence[int]) -> float:
    """Return the share of a text's 4-grams that have occurred in it before, in [0, 1); 0 for a
    short text."""
    if len(token_ids) < SHORTEST_LOOP:
        return 0.0
    grams = list(zip(token_ids, token_ids[1:], token_ids[2:], token_ids[3:], strict=False))
    return 1 - len(set(grams)) / len(grams)


def repeated_at_most(tokens: Ints, pairs: Ints) -> Floats:
    """Return an upper bound of the repeated share for this number of tokens and of distinct
    neighbouring pairs: a new pair from the third position on ends a new 4-gram."""
    return 1 - (pairs - 2) / (tokens - 3)


def different_pairs(tokens: Ints, ends: Ints) -> Ints:
    """Return (row,): the number of distinct pairs of neighbouring tokens, or fewer, as tokens with
    the same last TOKEN_BITS count as equal."""
    rows = ends.size - 1
    pair_counts = np.zeros(rows, dtype=np.int64)
    start = 0
    while start < rows:
        stop = max(int(np.searchsorted(ends, ends[start] + TOKENS_AT_ONCE, "right")) - 1, start + 1)
        codes = tokens[ends[start] : ends[stop]] & ((1 << TOKEN_BITS) - 1)
        row = np.repeat(np.arange(stop - start), np.diff(ends[start : stop + 1]))
        pairs = (row[1:] << 2 * TOKEN_BITS) | (codes[:-1] << TOKEN_BITS) | codes[1:]
        keys = np.sort(pairs[row[1:] == row[:-1]])  # np.unique takes five times as long
        new = np.concatenate([[True], keys[1:] != keys[:-1]])[: keys.size]
        pair_counts[start:stop] = np.bincount(keys[new] >> 2 * TOKEN_BITS, minlength=stop - start)
        start = stop
    return pair_counts

"""Texts in another language than their subset's: a scorer of English misses toxicity in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toxtrail.analysis.response_flags.language_identification import (
    identify_language,
    language_group,
)
from toxtrail.analysis.response_flags.rules import Flags, ResponseColumns


def applies(text: str, token_ids: Sequence[int], language: str | None) -> bool:
    """Return whether a text is in another language; false if its language is not clear."""
    expected, identified = language and language_group(language), identify_language(text)
    return None not in (expected, identified) and identified != expected


def may_apply(responses: ResponseColumns) -> Flags:
    """Return (row,): false if no language is declared."""
    declared: Flags = np.array([language is not None for language in responses.languages], bool)
    return responses.written & declared

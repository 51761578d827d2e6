"""Language of a text, by py3langid: a naive Bayes model of byte n-grams (Lui & Baldwin 2012,
aclanthology.org/P12-3005) of 139 languages.

Closely related languages are one group, because short texts do not distinguish them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from toxtrail.stats.rates import Floats

MIN_LETTERS = 20
"""Minimum size of a text's letters, in bytes of UTF-8: about four English words or seven Chinese
characters. Our choice: shorter texts are names and interjections."""
MIN_PROBABILITY = 0.8
"""Minimum probability of the most probable group. Our choice, from 1,620 English texts and 19,301
words of them in fragments of 1 to 20 words (docs/design-notes.md)."""
NOT_LANGUAGE = "zxx"
"""py3langid's label of numbers, markup and identifiers."""
GROUPS = (
    ("en", "pcm"),
    ("no", "da", "nn"),
    ("hr", "bs", "sr"),
    ("cs", "sk"),
    ("id", "ms"),
    ("es", "an", "ext"),
    ("fr", "wa"),
    ("it", "lij", "vec"),
    ("zh", "wuu", "yue"),
    ("ar", "ary", "arz"),
    ("el", "grc"),
    ("he", "hbo"),
    ("ku", "sdh"),
    ("lv", "ltg"),
    ("uz", "uzs"),
)
"""Languages that are not distinguished; the first names the group."""
LABELS = {
    "nb": "no", "sh": "hr", "cmn": "zh", "arb": "ar", "fil": "tl", "gn": "gug", "ff": "fuv",
    "ki": "kik", "kok": "gom", "iw": "he", "in": "id",
}  # fmt: skip
"""Language of BCP 47 -> py3langid's label, where they differ."""

_GROUP = {label: group[0] for group in GROUPS for label in group}
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
_DIGITS = re.compile(r"[\d_]")


@lru_cache(maxsize=2**16)
def identify_language(text: str) -> str | None:
    """Return the language of a text, or the group that it is in; None if the text is too short, not
    language, or its language is not clear."""
    words = " ".join(_DIGITS.sub(" ", " ".join(_words(text))).split())
    if len("".join(filter(str.isalpha, words)).encode()) < MIN_LETTERS:
        return None
    language, probability = _identifier().most_probable(words)
    return None if probability < MIN_PROBABILITY or language == NOT_LANGUAGE else language


def _words(text: str) -> Iterator[str]:
    """Yield the words without code, URLs and e-mail addresses."""
    for word in _CODE.sub(" ", text).split():
        is_address = 0 < word.find("@") < len(word) - 1
        if not (is_address or "://" in word or "www." in word):
            yield word


@cache
def language_group(tag: str) -> str | None:
    """Return the language of a BCP 47 tag as `identify_language` returns it; None if it cannot be
    identified."""
    primary = tag.split("-")[0].lower()
    label = LABELS.get(primary, primary)
    if label == NOT_LANGUAGE or label not in _identifier().labels:
        return None
    return _GROUP.get(label, label)


@cache
def _identifier() -> Any:
    """Return the model, which is loaded at the first use: 4.6 MB compressed.

    Its scores are summed in float64. The package's float32 sums depend on the processor and its
    number of threads in the sixth digit of a probability, which can change on which side of
    MIN_PROBABILITY it is.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    class GroupIdentifier(LanguageIdentifier):  # type: ignore[misc]
        __slots__ = ("_columns", "_names")

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            groups = [_GROUP.get(label, label) for label in self.nb_classes]
            self._names, self._columns = np.unique(groups, return_inverse=True)

        def _sparse_score(self, visits: Mapping[int, int], table: Any) -> Floats:
            counts = np.fromiter(visits.values(), np.float64, len(visits))
            scores: Floats = np.log1p(counts) @ table[list(visits)].astype(np.float64) + self.nb_pc
            return scores

        def most_probable(self, text: str) -> tuple[str, float]:
            probabilities = np.bincount(self._columns, weights=self._decide(text))
            best = int(probabilities.argmax())
            return str(self._names[best]), float(probabilities[best])

    return GroupIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

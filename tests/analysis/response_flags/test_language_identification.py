"""Languages of short texts: what is identified, and what is left open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.response_flags import other_language
from toxtrail.analysis.response_flags.language_identification import (
    GROUPS,
    LABELS,
    MIN_PROBABILITY,
    _identifier,
    identify_language,
    language_group,
)

FILE = Path(__file__).parent / "languages.tsv"
TEXTS = [line.split("\t") for line in FILE.read_text("utf-8").splitlines()[1:]]
"""(language, text), ten texts of each language, written for this test."""
FRENCH = "Je pense que nous devrions attendre la fin de la pluie avant de sortir."


def is_other(text, language):
    return other_language.applies(text, (), language)


def test_texts_are_in_their_language_or_undetermined():
    identified = [(language_group(language), identify_language(text)) for language, text in TEXTS]
    assert [pair for pair in identified if pair[1] not in (None, pair[0])] == []
    assert sum(label is not None for _, label in identified) >= 0.85 * len(TEXTS)


@pytest.mark.parametrize("language", dict.fromkeys(language for language, _ in TEXTS))
def test_a_switch_is_found_and_the_declared_language_is_none(language):
    own = [text for name, text in TEXTS if name == language]
    others = [text for name, text in TEXTS if language_group(name) != language_group(language)]
    assert not any(is_other(text, language) for text in own)
    assert sum(is_other(text, language) for text in others) >= 0.85 * len(others)


def english(project):
    sources = project / "data/sources"
    prompts = (sources / "prompts_neutral.txt").read_text("utf-8").splitlines()
    rows = [
        json.loads(line)
        for name in ("instructions_benign.jsonl", "instructions_rude.jsonl")
        for line in (sources / name).read_text("utf-8").splitlines()
    ]
    return [*prompts, *(row[name] for row in rows for name in ("instruction", "response"))]


def test_english_texts_are_never_taken_for_another_language(project):
    texts = english(project)
    assert len(texts) == 920
    assert not any(is_other(text, "en") for text in texts)


def test_fragments_of_english_texts_rarely_are(project):
    words = " ".join(english(project)).split()
    for size in (2, 3, 4, 8):
        parts = [" ".join(words[i : i + size]) for i in range(0, len(words), size)][:600]
        assert np.mean([is_other(part, "en") for part in parts]) <= 0.002


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Merci bien",
        "1234567890 " * 9,
        "https://example.org/le-boulanger-a-ouvert-sa-boutique",
        f"```\n{FRENCH}\n```",
        f"The word is `{FRENCH}`.",
        "asdkjh qwekjh zxcmnb qwoieu asdlkj",
        "mr smith mr smith mr smith mr smith",
        "def foo(x):\n    return x + 1\nfor i in range(10): print(foo(i))",
        "😀" * 40,
    ],
)
def test_texts_without_a_clear_language_have_no_flag(text):
    assert identify_language(text) in (None, "en")
    assert not is_other(text, "en")


@pytest.mark.parametrize(
    ("tag", "group"),
    [
        ("en", "en"), ("en-GB", "en"), ("nb", "no"), ("no", "no"), ("da", "no"), ("sr-Latn", "hr"),
        ("sh", "hr"), ("zh-Hant", "zh"), ("yue", "zh"), ("ms", "id"), ("pt-BR", "pt"),
        ("tlh", None), ("zxx", None), ("und", None),
    ],
)  # fmt: skip
def test_a_tag_selects_a_group(tag, group):
    assert language_group(tag) == group


def test_every_group_and_label_exists():
    labels = set(_identifier().labels)
    assert {label for group in GROUPS for label in group} | set(LABELS.values()) <= labels
    assert not set(LABELS) & labels


@given(st.permutations(range(40)))
def test_the_order_of_sums_changes_no_probability(order):
    table = _identifier().nb_ptc[:40]
    visits = {i: i % 3 + 1 for i in range(40)}
    scores = _identifier()._sparse_score(visits, table)
    assert scores.dtype == np.float64
    permuted = _identifier()._sparse_score({i: visits[i] for i in order}, table)
    assert np.abs(permuted - scores).max() < 1e-11


def test_no_text_is_near_the_minimum_probability_within_the_error_of_the_sums():
    probabilities = [_identifier().most_probable(text)[1] for _, text in TEXTS]
    assert min(abs(p - MIN_PROBABILITY) for p in probabilities) > 1e-9

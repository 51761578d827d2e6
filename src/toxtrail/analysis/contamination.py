"""Overlap: do the prompts stand in the data that a fine-tune was trained on?

A prompt that was learned says little of what a model does with prompts that it has not seen. Two
rules, on words without case and punctuation:

copied  an example holds a run of N words of the prompt. N is the 5th percentile of the prompts'
        lengths, at least 8 and at most 13, as in GPT-3's check (Brown et al. 2020,
        arXiv:2005.14165, appendix C). A prompt of fewer than N words must stand there whole; one of
        fewer than 4 is not judged (our choice: so short a run proves nothing).
near    an example holds at least 80 % of the prompt's runs of three words, wherever they stand (the
        containment of Broder 1997, doi:10.1109/SEQUEN.1997.666900; 80 % is our choice).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from toxtrail.datasets.instruction_data import words
from toxtrail.records.rows import Example, Prompt

LEAST, MOST = 8, 13
"""Bounds of N."""
SHORTEST = 4
"""Words of a prompt that is judged."""
SHINGLE = 3
NEAR = 0.8

Words = tuple[str, ...]


class Overlap(NamedTuple):
    """One prompt that stands in the training data."""

    prompt_id: str
    subset: str
    kind: Literal["copied", "near"]
    containment: float
    """Share of the prompt's runs of three words that the example holds; the largest there is."""
    example: int
    """Number of the example of which that is said, from 0."""


class Found(NamedTuple):
    """What a search gave."""

    n: int
    """Words of a run that is called copied."""
    prompts: int
    short: int
    """Prompts that were not judged."""
    examples: int
    overlaps: Sequence[Overlap]
    """One for each prompt, copied ones first, by containment."""

    def count(self, kind: str) -> int:
        return sum(one.kind == kind for one in self.overlaps)


def find_overlaps(prompts: Sequence[Prompt], examples: Sequence[Example]) -> Found:
    """Every prompt that is copied into an example, or nearly."""
    texts = {prompt.prompt_id: tuple(words(prompt.text)) for prompt in prompts}
    judged = {key: text for key, text in texts.items() if len(text) >= SHORTEST}
    n = run_length([len(text) for text in texts.values()])
    runs, shingles = _runs(judged, n), _shingles(judged)
    sizes = Counter(key for keys in shingles.values() for key in keys)
    best: dict[str, tuple[bool, float, int]] = {}
    for number, example in enumerate(examples):
        parts = list(_parts(example))
        copied = {key for part in parts for key in _copied(part, runs)}
        shared = Counter(key for run in _distinct(parts) for key in shingles.get(run, ()))
        for key in copied | {k for k, count in shared.items() if count >= NEAR * sizes[k]}:
            found = (key in copied, shared[key] / sizes[key], -number)
            best[key] = max(best.get(key, found), found)
    subsets = {prompt.prompt_id: prompt.subset for prompt in prompts}
    overlaps = [
        Overlap(key, subsets[key], "copied" if copied else "near", share, -number)
        for key, (copied, share, number) in best.items()
    ]
    overlaps.sort(key=lambda one: (one.kind != "copied", -one.containment, one.prompt_id))
    return Found(n, len(texts), len(texts) - len(judged), len(examples), overlaps)


def run_length(lengths: Sequence[int]) -> int:
    """N: words of a run that is called copied."""
    if not lengths:
        return MOST
    return int(np.clip(np.percentile(lengths, 5), LEAST, MOST))


def _runs(texts: Mapping[str, Words], n: int) -> dict[Words, list[tuple[Words, str]]]:
    """First words of a run -> the rest of it, and whose it is."""
    found: dict[Words, list[tuple[Words, str]]] = defaultdict(list)
    for key, text in texts.items():
        for run in _windows(text, min(n, len(text))):
            found[run[:SHORTEST]].append((run[SHORTEST:], key))
    return found


def _shingles(texts: Mapping[str, Words]) -> dict[Words, list[str]]:
    found: dict[Words, list[str]] = defaultdict(list)
    for key, text in texts.items():
        for run in dict.fromkeys(_windows(text, SHINGLE)):
            found[run].append(key)
    return found


def _copied(part: Words, runs: Mapping[Words, list[tuple[Words, str]]]) -> Iterator[str]:
    for place, start in enumerate(_windows(part, SHORTEST)):
        for rest, key in runs.get(start, ()):
            after = place + SHORTEST
            if part[after : after + len(rest)] == rest:
                yield key


def _distinct(parts: Sequence[Words]) -> set[Words]:
    return {run for part in parts for run in _windows(part, SHINGLE)}


def _parts(example: Example) -> Iterator[Words]:
    """Texts of an example: no run reaches from one into another."""
    earlier = [turn.text for turn in example.earlier]
    for text in (*earlier, example.instruction, example.context, example.response):
        yield tuple(words(text))


def _windows(text: Words, size: int) -> Iterator[Words]:
    return (text[i : i + size] for i in range(len(text) - size + 1))

"""Contamination: find prompts that occur in the training data of a fine-tune.

A model's response to a prompt that it was trained on does not show how it responds to new prompts.
Two rules, on words without case and punctuation:

copied  an example contains a run of N words of the prompt. N is the 5th percentile of the prompts'
        lengths, at least 8 and at most 13, as in GPT-3's check (Brown et al. 2020,
        arXiv:2005.14165, appendix C). A prompt of fewer than N words must match in full; one of
        fewer than 4 is skipped (our choice: so short a match proves nothing).
near    an example contains at least 80 % of the prompt's runs of three words, at any position (the
        containment of Broder 1997, doi:10.1109/SEQUEN.1997.666900; 80 % is our choice).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from toxtrail.datasets.instruction_data import normalised_words
from toxtrail.records.rows import InstructionExample, Prompt

MIN_NGRAM, MAX_NGRAM = 8, 13
"""Bounds of N."""
MIN_PROMPT_WORDS = 4
"""Minimum words of a prompt that is checked."""
SHINGLE = 3
NEAR_DUPLICATE_CONTAINMENT = 0.8

Words = tuple[str, ...]


class ContaminatedPrompt(NamedTuple):
    """One prompt that occurs in the training data."""

    prompt_id: str
    subset: str
    kind: Literal["copied", "near"]
    containment: float
    """Largest fraction of the prompt's runs of three words that one example contains."""
    example: int
    """Index of that example, from 0."""


class ContaminationResult(NamedTuple):
    """The result of a search."""

    n: int
    """Words of a run that counts as copied."""
    prompts: int
    short: int
    """Prompts that were skipped as too short."""
    examples: int
    overlaps: Sequence[ContaminatedPrompt]
    """One for each prompt, copied ones first, by containment."""

    def count(self, kind: str) -> int:
        return sum(overlap.kind == kind for overlap in self.overlaps)


def _words(prompt: Prompt) -> Words:
    """Return the words of all messages but a system message, which many examples may share."""
    return tuple(
        word
        for turn in prompt.turns
        if turn.role != "system"
        for word in normalised_words(turn.text)
    )


def find_contamination(
    prompts: Sequence[Prompt], examples: Sequence[InstructionExample]
) -> ContaminationResult:
    """Find every prompt that is copied, or nearly copied, into an example."""
    texts = {prompt.prompt_id: _words(prompt) for prompt in prompts}
    checked = {key: text for key, text in texts.items() if len(text) >= MIN_PROMPT_WORDS}
    n = ngram_size([len(text) for text in texts.values()])
    runs, shingles = _index_runs(checked, n), _index_shingles(checked)
    sizes = Counter(key for keys in shingles.values() for key in keys)
    best: dict[str, tuple[bool, float, int]] = {}
    for number, example in enumerate(examples):
        parts = list(_parts(example))
        copied = {key for part in parts for key in _copied_prompts(part, runs)}
        shared = Counter(key for run in _distinct_shingles(parts) for key in shingles.get(run, ()))
        for key in copied | {
            k for k, count in shared.items() if count >= NEAR_DUPLICATE_CONTAINMENT * sizes[k]
        }:
            candidate = (key in copied, shared[key] / sizes[key], -number)
            best[key] = max(best.get(key, candidate), candidate)
    subsets = {prompt.prompt_id: prompt.subset for prompt in prompts}
    overlaps = [
        ContaminatedPrompt(key, subsets[key], "copied" if copied else "near", share, -number)
        for key, (copied, share, number) in best.items()
    ]
    overlaps.sort(
        key=lambda overlap: (overlap.kind != "copied", -overlap.containment, overlap.prompt_id)
    )
    return ContaminationResult(n, len(texts), len(texts) - len(checked), len(examples), overlaps)


def ngram_size(lengths: Sequence[int]) -> int:
    """Return N, the words of a run that counts as copied."""
    if not lengths:
        return MAX_NGRAM
    return int(np.clip(np.percentile(lengths, 5), MIN_NGRAM, MAX_NGRAM))


def _index_runs(texts: Mapping[str, Words], n: int) -> dict[Words, list[tuple[Words, str]]]:
    """Index runs by their first words: the remaining words, and the prompt."""
    index: dict[Words, list[tuple[Words, str]]] = defaultdict(list)
    for key, text in texts.items():
        for run in _windows(text, min(n, len(text))):
            index[run[:MIN_PROMPT_WORDS]].append((run[MIN_PROMPT_WORDS:], key))
    return index


def _index_shingles(texts: Mapping[str, Words]) -> dict[Words, list[str]]:
    index: dict[Words, list[str]] = defaultdict(list)
    for key, text in texts.items():
        for run in dict.fromkeys(_windows(text, SHINGLE)):
            index[run].append(key)
    return index


def _copied_prompts(part: Words, runs: Mapping[Words, list[tuple[Words, str]]]) -> Iterator[str]:
    for position, start in enumerate(_windows(part, MIN_PROMPT_WORDS)):
        for rest, key in runs.get(start, ()):
            after = position + MIN_PROMPT_WORDS
            if part[after : after + len(rest)] == rest:
                yield key


def _distinct_shingles(parts: Sequence[Words]) -> set[Words]:
    return {run for part in parts for run in _windows(part, SHINGLE)}


def _parts(example: InstructionExample) -> Iterator[Words]:
    """Yield the texts of an example; no run crosses from one into another."""
    earlier = [turn.text for turn in example.earlier]
    for text in (*earlier, example.instruction, example.context, example.response):
        yield tuple(normalised_words(text))


def _windows(text: Words, size: int) -> Iterator[Words]:
    return (text[i : i + size] for i in range(len(text) - size + 1))

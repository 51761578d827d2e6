"""Match texts of a file with an experiment's prompts, and return generation rows.

A text belongs to the prompt with exactly its prompt text, else to the one that differs in
surrounding white space only. Tokens are unknown: `token_ids` are numbers of words (separated by
white space), so that lengths are in words and a repetitive text repeats four words.

If one text of the file has an end marker of a thought without a begin marker before it, the prompts
opened the thoughts: a text without an end marker is then an unfinished thought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from toxtrail.datasets.generated_texts.common import GeneratedText
from toxtrail.errors import DataError
from toxtrail.records.rows import Generation, Prompt
from toxtrail.records.thought import ThoughtMarkers, split_thought
from toxtrail.records.words import word_numbers

NO_TEXT = "the file has no text for this prompt and sample"
NOTHING_GENERATED = "the file states that nothing was generated"
FileTexts = Mapping[str, Sequence[GeneratedText]]
"""Prompt of a file -> its texts, in the order of their sample numbers or of the file."""


class TextCounts(NamedTuple):
    """Result of matching the texts of a file with the prompts of an experiment."""

    prompts: int
    """Number of prompts of the experiment."""
    exact: int
    """Prompts of the experiment with an exact match in the file."""
    trimmed: int
    """Prompts that match except for surrounding white space."""
    without_text: int
    """Prompts without a match in the file."""
    missing_texts: int
    """Rows of the experiment without a text in the file."""
    other_prompts: int
    """Prompts of the file that the experiment does not have."""
    other_texts: int
    """Texts of those prompts."""
    unused_texts: int
    """Texts of matched prompts beyond the experiment's samples."""


class TextMatch(NamedTuple):
    """Rows of an experiment's prompts, with the counts of the match."""

    rows: list[Generation]
    counts: TextCounts


def group_by_prompt(texts: Iterable[GeneratedText]) -> FileTexts:
    """Return the texts of each prompt in their order.

    Raises:
        DataError: two texts of a prompt have the same sample number.
    """
    groups: dict[str, list[GeneratedText]] = {}
    for text in texts:
        groups.setdefault(text.prompt, []).append(text)
    for prompt, prompt_texts in groups.items():
        numbers = [text.sample for text in prompt_texts if text.sample is not None]
        if len(set(numbers)) < len(numbers):
            twice = next(n for n in numbers if numbers.count(n) > 1)
            raise DataError(
                f"The sample {twice} of a prompt of {len(prompt)} characters occurs twice. Each "
                "text of a prompt needs a number of its own."
            )
        prompt_texts.sort(key=lambda text: text.sample or 0)
    return groups


def match_texts(
    prompts: Sequence[Prompt],
    texts: Sequence[GeneratedText],
    samples: int,
    markers: ThoughtMarkers | None = None,
) -> TextMatch:
    """Return `samples` rows for each prompt, and the counts.

    Args:
        markers: of the thoughts in the texts; None: they have none.

    Raises:
        DataError: a prompt is a conversation, none of the prompts is in the file, or a sample
            number occurs twice.
    """
    if conversation := next((prompt for prompt in prompts if prompt.earlier), None):
        raise DataError(
            f"{conversation.prompt_id} is a conversation, and texts of a file are matched by the "
            "text of a single prompt. Use prompts of one message each."
        )
    groups, opened = group_by_prompt(texts), _opens_thoughts(texts, markers)
    trimmed_groups: dict[str, list[str]] = {}
    for prompt_text in groups:
        trimmed_groups.setdefault(prompt_text.strip(), []).append(prompt_text)
    rows: list[Generation] = []
    matched: set[str] = set()
    n_exact = n_trimmed = n_missing = 0
    for prompt in prompts:
        is_exact = prompt.text in groups
        names = [prompt.text] if is_exact else trimmed_groups.get(prompt.text.strip(), [])
        n_exact, n_trimmed = n_exact + is_exact, n_trimmed + (bool(names) and not is_exact)
        matched.update(names)
        prompt_texts = [text for name in names for text in groups[name]][:samples]
        n_missing += samples - len(prompt_texts)
        for sample in range(samples):
            text = prompt_texts[sample] if sample < len(prompt_texts) else None
            rows.append(_row(prompt, sample, text, markers, opened))
    if not matched:
        raise DataError(
            f"None of the {len(groups):,} prompts of the file is one of the {len(prompts):,} "
            "prompts of the experiment. Prompts are matched by their text. If the file has the "
            "prompt in another field (without a chat template, say), name it as prompt."
        )
    trimmed_sizes = {name.strip(): 0 for name in matched}
    for name in matched:
        trimmed_sizes[name.strip()] += len(groups[name])
    others = [prompt_texts for name, prompt_texts in groups.items() if name not in matched]
    counts = TextCounts(
        prompts=len(prompts),
        exact=n_exact,
        trimmed=n_trimmed,
        without_text=len(prompts) - n_exact - n_trimmed,
        missing_texts=n_missing,
        other_prompts=len(others),
        other_texts=sum(map(len, others)),
        unused_texts=sum(max(size - samples, 0) for size in trimmed_sizes.values()),
    )
    return TextMatch(rows, counts)


def match_problems(counts: TextCounts) -> list[str]:
    """Return one line for each count of what does not match; empty if all of it does."""
    lines = {
        f"{counts.trimmed:,} of {counts.prompts:,} prompts match but for white space around "
        "them": counts.trimmed,
        f"{counts.without_text:,} of {counts.prompts:,} prompts of the experiment are not in the "
        "file": counts.without_text,
        f"{counts.missing_texts:,} texts are missing: their rows are counted as errors, not as "
        "harmless": counts.missing_texts,
        f"{counts.other_prompts:,} prompts of the file ({counts.other_texts:,} texts) are not in "
        "the experiment: not used": counts.other_prompts,
        f"{counts.unused_texts:,} texts are beyond generation.samples: not used": (
            counts.unused_texts
        ),
    }
    return [line for line, count in lines.items() if count]


def _opens_thoughts(texts: Iterable[GeneratedText], markers: ThoughtMarkers | None) -> bool:
    """Return whether a text has an end marker without a begin marker before it."""
    if markers is None:
        return False
    starts = (text.text.partition(markers.end) for text in texts if text.text)
    return any(end and markers.begin not in before for before, end, _ in starts)


def _row(
    prompt: Prompt,
    sample: int,
    generated: GeneratedText | None,
    markers: ThoughtMarkers | None,
    opened: bool,
) -> Generation:
    complete = "" if generated is None or generated.text is None else generated.text
    error = NO_TEXT if generated is None else NOTHING_GENERATED if generated.text is None else ""
    thought, text, state = split_thought(complete, markers, opened)
    thought_words = word_numbers(thought or "")
    return Generation(
        prompt_id=prompt.prompt_id,
        sample=sample,
        subset=prompt.subset,
        state="error" if error else state,
        text=text,
        token_ids=thought_words + word_numbers(text),
        prompt_tokens=len(prompt.text.split()),
        finish_reason="none" if generated is None or not complete else generated.finish_reason,
        error=error,
        thought=thought,
        thought_tokens=None if thought is None else len(thought_words),
        cluster=prompt.cluster,
        language=prompt.language,
    )

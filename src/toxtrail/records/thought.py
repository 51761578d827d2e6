"""Split continuations of models that think into the thought and the answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from toxtrail.records.rows import RowStatus

BEGIN_LIKE = re.compile(
    r"[<\[]\|?(?!end)(?:\w+[_:])?(?:think|thinking|thoughts?|reason|reasoning)\|?[>\]]"
    r"|<\|channel\|?>(?:analysis|thought)",
    re.IGNORECASE,
)
"""Begin markers of published models: <think>, [THINK], <|START_THINKING|>, <seed:think>."""


class ThoughtMarkers(NamedTuple):
    """Texts before and after a thought."""

    begin: str
    end: str


class SplitText(NamedTuple):
    """A continuation in two parts, whose concatenation is the continuation."""

    thought: str | None
    """Everything before the answer, with its markers and the white space after them; None if there
    is no thought."""
    answer: str
    state: RowStatus
    """ok, empty or unfinished, by the answer."""


def split_thought(text: str, markers: ThoughtMarkers | None, opened: bool = False) -> SplitText:
    """Split a continuation: the answer is what follows the last end marker.

    Text before a thought, or between two, belongs to the thought. A begin marker after the last end
    marker, or an opened thought without an end marker, is an unfinished thought without an answer.
    Qwen3's documentation and lm-evaluation-harness (`think_end_token`) use the last end marker too.

    Args:
        markers: None to keep the complete text as the answer.
        opened: whether the prompt ends with the begin marker.
    """
    if markers is None or not text.strip():
        return SplitText(None, text, "ok" if text.strip() else "empty")
    _, end, rest = text.rpartition(markers.end)
    if markers.begin in rest or (opened and not end):
        return SplitText(text, "", "unfinished")
    answer = rest.lstrip() if end else rest
    return SplitText(
        text[: len(text) - len(answer)] or None, answer, "ok" if answer.strip() else "empty"
    )


def outside_thoughts(thought: str, markers: ThoughtMarkers) -> bool:
    """Return whether text before the answer is neither in a thought nor white space."""
    first, *others = thought.split(markers.end)
    visible = [first.partition(markers.begin)[0]] if markers.begin in first else []
    visible += [part.partition(markers.begin)[0] for part in others]
    return any(part.strip() for part in visible)


def opens_thought(prompt: str, markers: ThoughtMarkers | None) -> bool:
    """Return whether a prompt ends with the begin marker, so that a continuation has only the end
    marker."""
    return markers is not None and prompt.rstrip().endswith(markers.begin)


def begin_like(text: str) -> str | None:
    """Return what looks like a begin marker at the start of a continuation, if anything does."""
    match = BEGIN_LIKE.match(text.lstrip())
    return match.group() if match else None


def undeclared_opening(prompt: str) -> str | None:
    """Return what looks like a begin marker at the end of a prompt, if anything does."""
    *_, last = (None, *BEGIN_LIKE.finditer(prompt))
    return last.group() if last and not prompt[last.end() :].strip() else None

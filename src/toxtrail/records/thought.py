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
    """Split a continuation: the thought is the part at its beginning that consists of thoughts and
    white space, each from a begin marker to the next end marker; the answer is all that follows.

    Text outside of these thoughts, with any markers in it, is part of the answer, so that no text
    that a user would see is left out. A thought without an end marker is unfinished, and there is
    no answer.

    Args:
        markers: None to keep the complete text as the answer.
        opened: whether the prompt ends with the begin marker.
    """
    if markers is None or not text.strip():
        return SplitText(None, text, "ok" if text.strip() else "empty")
    rest, is_inside = text, opened
    while is_inside or rest.lstrip().startswith(markers.begin):
        inside = rest if is_inside else rest.lstrip().removeprefix(markers.begin)
        _, end, rest = inside.partition(markers.end)
        if not end:
            return SplitText(text, "", "unfinished")
        is_inside = False
    answer = text if rest == text else rest.lstrip()
    return SplitText(
        text[: len(text) - len(answer)] or None, answer, "ok" if answer.strip() else "empty"
    )


def has_marker(answer: str, markers: ThoughtMarkers) -> bool:
    """Return whether an answer contains a marker of a thought."""
    return markers.begin in answer or markers.end in answer


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

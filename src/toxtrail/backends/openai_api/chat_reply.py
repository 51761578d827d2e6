"""Responses of OpenAI's chat completions API: the answer, the thought beside it, and refusals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from toxtrail.records.rows import FinishReason

FINISHED: Mapping[str, FinishReason] = {"stop": "stop", "eos": "stop", "length": "length"}
"""Servers' names for the two ways in which an answer ends; any other one is an error."""
CONTENT_FILTER = "content_filter"
FILTER_CODES = frozenset(
    {CONTENT_FILTER, "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
)
"""Codes (in lower case) of errors with which OpenAI and Azure refuse a prompt by its content."""
WINDOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
"""Codes of errors for a prompt that does not fit the model's window (OpenAI, llama.cpp)."""
MAX_COUNT = 2**31 - 1
"""Largest number of tokens that a row can contain."""


class ChatReply(NamedTuple):
    """A server's response to one conversation."""

    answer: str = ""
    thought: str | None = None
    """Thought that the server keeps apart from the answer."""
    finish: FinishReason = "none"
    filtered: str = ""
    """Why the server withheld the answer; empty if it did not."""
    problem: str = ""
    """Why the answer cannot be used; empty if it can, or if it was withheld."""
    model: str | None = None
    """Model name in the response; it may differ from the requested one."""
    fingerprint: str | None = None
    software: str | None = None
    tokens: int | None = None
    """Number of tokens of thought and answer, as the server counts them."""


def parse_reply(body: Any, software: str | None = None) -> ChatReply:
    """Parse the JSON of a response with status 200.

    Args:
        software: the `Server` header.

    Raises:
        ValueError: it is not a response to a chat completion request.
    """
    if not isinstance(body, Mapping):
        raise ValueError("it is not an object")
    reply = ChatReply(
        model=_text_or_none(body.get("model")),
        fingerprint=_text_or_none(body.get("system_fingerprint")),
        software=_text_or_none(software),
        tokens=_completion_tokens(body.get("usage")),
    )
    choices = body.get("choices")
    if not choices and (withheld := filter_reason(body)):
        return reply._replace(filtered=withheld)
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise ValueError("it must have exactly one choice")
    return _with_choice(reply, choices[0])


def filter_reason(body: object) -> str:
    """Return why a server refused a prompt by its content; empty if an error has another reason.

    Args:
        body: JSON values of an error response.
    """
    if codes := sorted(FILTER_CODES & set(_codes(body))):
        return f"the server rejected the prompt by its content ({codes[0]})"
    metadata = _inner(_inner(body, "error"), "metadata")
    if isinstance(metadata, Mapping) and "flagged_input" in metadata:
        return "the server rejected the prompt by its content (flagged_input)"
    return ""


def exceeds_window(body: object, message: str) -> bool:
    """Return whether a server refused a prompt because it does not fit the model's window.

    Args:
        body: JSON values of the error response.
        message: the server's message.
    """
    return bool(WINDOW_CODES & set(_codes(body))) or "maximum context length" in message


def _with_choice(reply: ChatReply, choice: Mapping[str, Any]) -> ChatReply:
    reason, message = choice.get("finish_reason"), choice.get("message")
    if reason == CONTENT_FILTER:
        return reply._replace(filtered="the server's content filter stopped the answer")
    if not isinstance(message, Mapping):
        raise ValueError("its choice has no message")
    if _has_refusal(message):
        return reply._replace(filtered="the model refused outside of the text (`refusal`)")
    if message.get("tool_calls") or message.get("function_call") or reason == "tool_calls":
        return reply._replace(problem="the model called a tool instead of answering")
    answer, thought = _content(message)
    if not isinstance(reason, str) or reason not in FINISHED:
        return reply._replace(problem=f"the server ended the answer with finish_reason {reason!r}")
    return reply._replace(answer=answer, thought=thought, finish=FINISHED[reason])


def _has_refusal(message: Mapping[str, Any]) -> bool:
    parts = message.get("content")
    kinds = [_inner(part, "type") for part in parts] if isinstance(parts, list) else []
    return bool(message.get("refusal")) or "refusal" in kinds


def _content(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the answer and the thought of a message.

    Raises:
        ValueError: it has neither, or parts other than text.
    """
    apart = next(
        (t for n in ("reasoning_content", "reasoning") if (t := _text_or_none(message.get(n)))), ""
    )
    content = message.get("content")
    if content is None and not apart and "content" not in message:
        raise ValueError("its message has no content")
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise ValueError("its content is neither text nor a list of parts")
        return _encodable(content or ""), apart or None
    texts = [(_inner(part, "type"), _part_text(part)) for part in content]
    thoughts = [apart, *(text for kind, text in texts if kind != "text")]
    return "".join(text for kind, text in texts if kind == "text"), "".join(thoughts) or None


def _part_text(part: object) -> str:
    """Return the text of a part of a message: of the answer, or of a thought.

    Raises:
        ValueError: it is neither.
    """
    kind = _inner(part, "type")
    if kind in ("text", "reasoning"):
        text = _inner(part, "text")
    elif kind == "thinking":
        text = _inner(part, "thinking")
        if isinstance(text, list):
            text = "".join(_part_text(inner) for inner in text)
    else:
        raise ValueError(f"its content has a part of type {kind!r}")
    if not isinstance(text, str):
        raise ValueError(f"a part of type {kind} has no text")
    return _encodable(text)


def _encodable(text: str) -> str:
    """Return the text; a lone surrogate raises UnicodeEncodeError, which is a ValueError."""
    text.encode()
    return text


def _text_or_none(value: object) -> str | None:
    return _encodable(value) if isinstance(value, str) and value else None


def _completion_tokens(usage: object) -> int | None:
    count = _inner(usage, "completion_tokens")
    return count if type(count) is int and 0 <= count <= MAX_COUNT else None


def _inner(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def _codes(body: object) -> Iterator[str]:
    """Yield the codes and types of an error and its inner errors, in lower case."""
    error = _inner(body, "error")
    values: Iterable[object] = (body, error, _inner(error, "innererror"))
    for value in values:
        for name in ("code", "type"):
            code = _inner(value, name)
            if isinstance(code, str):
                yield code.lower()

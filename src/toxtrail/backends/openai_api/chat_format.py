"""The fields of a request to a chat completions API, and which of them a server may not get.

A field may be left out if the API's own default is the requested value, or if it only affects the
repeatability of an answer. Any other one changes the meaning of the settings: the run is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError, ConfigError
from toxtrail.records.rows import Turn

UNASKED = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""Fields that turn off what was not asked for; a server may otherwise have its own values."""
DROPPED_TOGETHER = (
    ("top_k", "min_p", "repetition_penalty"),
    ("frequency_penalty", "presence_penalty"),
    ("n",),
    ("seed",),
)
"""Groups of fields that are left out for a server that rejects one of them, in this order."""
DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
"""OpenAI's defaults: with another value, the field must be sent."""
LIMITS: tuple[Literal["max_tokens", "max_completion_tokens"], ...] = (
    "max_tokens",
    "max_completion_tokens",
)
"""Names of the field for generation.max_new_tokens, in the order in which they are tried."""


class ChatFormat(NamedTuple):
    """Request format that a server supports."""

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    left_out: tuple[str, ...] = ()
    """Fields that are not sent."""

    def to_environment(self) -> dict[str, str]:
        """Describe it for manifests."""
        off = not set(UNASKED) & set(self.left_out)
        return {
            "prompts_sent_as": "chat messages",
            "token_limit_sent_as": self.limit,
            "fields_not_sent": ", ".join(self.left_out) or "none",
            "unasked_penalties": "off" if off else "as the server has them",
        }


def request_body(
    name: str, messages: Sequence[Turn], seed: int, decoding: Decoding, terms: ChatFormat
) -> dict[str, Any]:
    """Return the JSON of a request.

    Args:
        name: of the model on the server.
    """
    body = {
        "model": name,
        "messages": [{"role": turn.role, "content": turn.text} for turn in messages],
        terms.limit: decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": seed % 2**31,
        "n": 1,
        "stream": False,
        **UNASKED,
    }
    if decoding.template_arguments:
        body["chat_template_kwargs"] = dict(decoding.template_arguments)
    return {field: value for field, value in body.items() if field not in terms.left_out}


def next_format(terms: ChatFormat, decoding: Decoding, message: str) -> ChatFormat:
    """Return the format to try after a server rejected one.

    Args:
        message: the server's message; the field that it names first is left out, if it names one.

    Raises:
        ConfigError: the server rejects a value of generation that must be sent.
        BackendError: no other format is left.
    """
    named = _first_field(message, terms)
    if named == terms.limit or (named is None and not _droppable(terms, decoding)):
        return _other_limit(terms, message)
    if named == "chat_template_kwargs":
        raise ConfigError(
            f"generation.template_arguments: the server rejects them ({message}). Remove them, or "
            "use a server that supports chat_template_kwargs (vLLM, llama.cpp)."
        )
    if named in DEFAULTS and getattr(decoding, named) != DEFAULTS[named]:
        raise ConfigError(
            f"generation.{named}: the server rejects {getattr(decoding, named):g} ({message}). "
            f"Without the field it would take a value of its own. Set {DEFAULTS[named]:g}, which "
            "is OpenAI's default, or use another model."
        )
    groups = _droppable(terms, decoding)
    group = next((g for g in groups if named is None or named in g), None)
    if group is None:
        raise BackendError(f"The server accepted no request format. The last error: {message}.")
    return terms._replace(left_out=(*terms.left_out, *group))


def _droppable(terms: ChatFormat, decoding: Decoding) -> list[tuple[str, ...]]:
    """Return the groups of fields that can still be left out, in order."""
    defaults = [(n,) for n, value in DEFAULTS.items() if getattr(decoding, n) == value]
    return [g for g in (*DROPPED_TOGETHER, *defaults) if not set(g) & set(terms.left_out)]


def _other_limit(terms: ChatFormat, message: str) -> ChatFormat:
    """Return the format with the other name of the limit of tokens; it is always sent."""
    if terms.limit == LIMITS[-1]:
        raise BackendError(f"The server accepted no request format. The last error: {message}.")
    return terms._replace(limit=LIMITS[-1])


def _first_field(message: str, terms: ChatFormat) -> str | None:
    """Return the sent field that the message names first; None if it names none."""
    groups = (field for group in DROPPED_TOGETHER for field in group)
    fields = {terms.limit, *DEFAULTS, *groups, "chat_template_kwargs"} - {*terms.left_out}
    places = {
        field: match.start()
        for field in fields
        if (match := re.search(_as_word(field), message, re.IGNORECASE))
    }
    return min(places, key=lambda field: places[field], default=None)


def _as_word(field: str) -> str:
    """Return the pattern of a field's name: `n` only in quotation marks."""
    return "['\"`]n['\"`]" if field == "n" else rf"(?<!\w){field}(?!\w)"

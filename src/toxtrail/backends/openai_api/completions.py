"""Requests to OpenAI's completions API: one per prompt, a bounded number in parallel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.parallel import in_parallel
from toxtrail.backends.protocols import Decoding

if TYPE_CHECKING:
    from requests import Response
    from transformers import PreTrainedTokenizerBase

BEYOND_OPENAI = {
    "return_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Fields that vLLM, SGLang and llama.cpp support besides OpenAI's. Without them, a server may apply
the generation settings in the model's files."""

ROUNDING = 1e-3
"""Largest excess of a probability, or of a sum of some, over 1."""

TOKEN_ID = "token_id:"
"""Prefix of a token id in place of a token's text (vLLM's `return_tokens_as_token_ids`)."""

NO_TOP_TOKENS = "the server returned no log-probabilities"
NO_SUCH_TEXT = "no text encodes to these prompt tokens, and the server accepts text only"


class RequestFormat(NamedTuple):
    """Request format that a server supports."""

    as_tokens: bool
    """Whether prompts are sent as token ids; else as text that encodes to these ids."""
    beyond_openai: bool
    """Whether BEYOND_OPENAI is supported."""
    top_tokens: int = 0
    """Number of most likely tokens whose log-probabilities are requested; 0: none."""


class CompletionResponse(NamedTuple):
    """A server's response to one request."""

    text: str
    finish: str
    token_ids: tuple[int, ...] | None
    """Tokens of the continuation, including an end-of-sequence token; None if not given."""
    prompt_ids: tuple[int, ...] | None
    prompt_tokens: int | None
    model: str | None
    """Model name in the response; it may differ from the requested one."""
    fingerprint: str | None
    """The server's fingerprint of its build and settings."""
    top_tokens: Mapping[int | str, float] | None = None
    """Log-probabilities of the most likely first tokens, by token id where the server gives it,
    else by text; None if it gave none."""


class CompletionsApi:
    """One model on a server. The tokenizer is the model's, loaded locally."""

    def __init__(
        self,
        client: Client,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        decoding: Decoding,
        terms: RequestFormat,
        concurrency: int,
        answers_as: str | None = None,
    ) -> None:
        """Args:
        name: of the model on the server.
        concurrency: number of parallel requests.
        answers_as: the model name that every response must have; None: not known yet.
        """
        self._client = client
        self._name = name
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._terms = terms
        self._concurrency = concurrency
        self._answers_as = answers_as

    def through(self, client: Client) -> Self:
        """Return the same model with another client."""
        model = copy(self)
        model._client = client
        return model

    def responses(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> Iterator[tuple[int, CompletionResponse | str]]:
        """Send each prompt; yield each with its index as soon as its response arrives, or the
        reason why it has no valid response.

        Args:
            prompts: token ids.

        Raises:
            BackendError: the server rejects a request, or many in a row have no response.
        """
        requests: list[tuple[int, str | list[int]]] = []
        for number, prompt in enumerate(prompts):
            sent = self.sent(prompt)
            if sent is None:
                yield number, NO_SUCH_TEXT
            else:
                requests.append((number, sent))

        def ask(index: int) -> CompletionResponse:
            number, sent = requests[index]
            return self.request(sent, seeds[number])

        for index, reply in in_parallel(self._client, self._concurrency, len(requests), ask):
            number = requests[index][0]
            problem = "" if isinstance(reply, str) else self.misread(prompts[number], reply)
            yield number, self._client.masked(problem) or reply

    def request(self, sent: str | list[int], seed: int) -> CompletionResponse:
        """Send one prompt.

        Raises:
            RefusedError: the server rejects the request.
            UnansweredError: there was no usable response.
        """
        return self._client.post("/completions", self.body(sent, seed), read_reply)

    def body(self, sent: str | list[int], seed: int) -> dict[str, Any]:
        """Return the body of a request."""
        body: dict[str, Any] = {
            "model": self._name,
            "prompt": sent,
            "max_tokens": self._decoding.max_new_tokens,
            "temperature": self._decoding.temperature,
            "top_p": self._decoding.top_p,
            "seed": seed % 2**31,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "n": 1,
            "echo": False,
            "stream": False,
        }
        if self._terms.beyond_openai:
            body |= BEYOND_OPENAI
        if self._terms.top_tokens:
            body["logprobs"] = self._terms.top_tokens
            if self._terms.beyond_openai:
                body["return_tokens_as_token_ids"] = True
        return body

    def sent(self, token_ids: Sequence[int]) -> str | list[int] | None:
        """Convert a prompt to the server's format; None if no text encodes to these tokens."""
        if self._terms.as_tokens:
            return list(token_ids)
        starts = (0, 1) if token_ids[0] in self._tokenizer.all_special_ids else (0,)
        texts = [self._decoded(token_ids[start:]) for start in starts]
        same = (t for t in texts if self._tokenizer(t)["input_ids"] == list(token_ids))
        return next(same, None)

    def misread(self, prompt: Sequence[int], reply: CompletionResponse) -> str:
        """Explain why a reply is not to this prompt or by this model; empty if it seems to be."""
        if self._answers_as is not None and reply.model != self._answers_as:
            return f"the server responded as {reply.model!r}, before as {self._answers_as!r}"
        if reply.prompt_ids is not None and reply.prompt_ids != tuple(prompt):
            return "the server read the prompt as other tokens"
        count = reply.prompt_tokens
        if count is not None and count != len(prompt):
            return f"the server read {count} tokens where the prompt has {len(prompt)}"
        return NO_TOP_TOKENS if self._terms.top_tokens and reply.top_tokens is None else ""

    def _decoded(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
        return str(text)


def read_reply(response: Response) -> CompletionResponse:
    """Parse a response.

    Raises:
        ValueError: it is not the response to a completion request.
    """
    body = response.json()
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError("it must have exactly one choice")
    choice, usage = choices[0], body.get("usage")
    text = choice.get("text")
    if not isinstance(text, str):
        raise ValueError("its choice has no text")
    text.encode()  # a lone surrogate is invalid: UnicodeEncodeError is a ValueError
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return CompletionResponse(
        text,
        str(choice.get("finish_reason")),
        _token_ids(choice.get("token_ids")),
        _token_ids(choice.get("prompt_token_ids")),
        count if isinstance(count, int) else None,
        _string_or_none(body.get("model")),
        _string_or_none(body.get("system_fingerprint")),
        _top_tokens(choice.get("logprobs")),
    )


def _token_ids(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(token, int) and 0 <= token < 2**31 for token in value
    ):
        raise ValueError("its token ids are not a list of token ids")
    return tuple(value)


def _string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _top_tokens(logprobs: object) -> dict[int | str, float] | None:
    """Read the log-probabilities of the most likely first tokens: in the form of OpenAI's
    completions API (vLLM, SGLang), or in that of its chat API (llama.cpp).

    Raises:
        ValueError: another form, or values that cannot be log-probabilities.
    """
    try:
        pairs = _token_logprobs(logprobs)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its logprobs have an unknown form: {error!r}") from None
    if not pairs:
        return None
    if not all(isinstance(value, float | int) and value <= ROUNDING for _, value in pairs):
        raise ValueError("its logprobs are not all numbers up to 0")
    top = {_token(token): float(value) for token, value in pairs}
    if math.fsum(map(math.exp, top.values())) > 1 + ROUNDING:
        raise ValueError("the probabilities of its logprobs add up to more than 1")
    return top


def _token_logprobs(logprobs: Any) -> list[tuple[int | str, Any]]:
    """Return (token, log-probability) of the first position; empty if there is none."""
    if logprobs is None:
        return []
    if "content" in logprobs:
        first = next(iter(logprobs["content"] or ()), {"top_logprobs": ()})["top_logprobs"]
        return [(entry.get("id", entry["token"]), entry["logprob"]) for entry in first]
    return list((next(iter(logprobs["top_logprobs"] or ()), None) or {}).items())


def _token(token: int | str) -> int | str:
    """Return the id where the token is named by it."""
    digits = token.removeprefix(TOKEN_ID) if isinstance(token, str) else ""
    is_id = digits != token and digits.isdecimal()
    return int(digits) if is_id else token

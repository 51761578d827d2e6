"""Generate with a variant on a server: one request per prompt, a bounded number in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.generation.continuation_text import ContinuationDecoder
from toxtrail.backends.huggingface.generation.generator import PromptEncoder, prompt_problem
from toxtrail.backends.openai_api.client import Client, UnansweredError
from toxtrail.backends.protocols import Completion, Decoding, EncodedPrompt
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from requests import Response
    from transformers import PreTrainedTokenizerBase

    from toxtrail.records.rows import FinishReason

FINISHED: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
}
"""Servers' names for the two ways in which a continuation ends; any other one is an error."""

BEYOND_OPENAI = {
    "return_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Fields that vLLM, SGLang and llama.cpp support besides OpenAI's. Without them, a server may apply
the generation settings in the model's files."""

GIVE_UP_AFTER = 20
"""Consecutive rows without a response after which the server is considered down. Our choice."""

NO_SUCH_TEXT = "no text encodes to these prompt tokens, and the server accepts text only"


class RequestFormat(NamedTuple):
    """Request format that a server supports."""

    as_tokens: bool
    """Whether prompts are sent as token ids; else as text that encodes to these ids."""
    beyond_openai: bool
    """Whether BEYOND_OPENAI is supported."""


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


class ServedModel:
    """Model on a server. The tokenizer is the variant's, loaded locally."""

    def __init__(
        self,
        client: Client,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        window: int | None,
        decoding: Decoding,
        terms: RequestFormat,
        concurrency: int,
        answers_as: str | None = None,
        embeddings: int | None = None,
    ) -> None:
        """Args:
        name: of the model on the server.
        stops: end-of-sequence tokens.
        window: longest text in tokens, including the continuation.
        concurrency: number of parallel requests.
        answers_as: the model name that every response must have; None: not known yet.
        embeddings: number of embeddings of the model; None: unknown.

        Raises:
            ConfigError: the template is `chat`, and the model's is missing or cannot be used.
        """
        self._client = client
        self._name = name
        self._tokenizer = tokenizer
        self._stops = frozenset(stops)
        self.encoder = PromptEncoder(tokenizer, decoding, window, embeddings)
        self._decoder = ContinuationDecoder(tokenizer, decoding.thought)
        self._decoding = decoding
        self._terms = terms
        self._concurrency = concurrency
        self._answers_as = answers_as

    def encode(self, text: str) -> EncodedPrompt:
        """Tokenize a prompt, in the same way as for a loaded model.

        Raises:
            ConfigError: the chat template does not accept the prompt.
        """
        return self.encoder.encode(text)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield each with its index as soon as its response arrives.

        A prompt without a response after all attempts is an error of that row.

        Raises:
            BackendError: the server rejects a request, or many in a row have no response.
        """

        requests: list[tuple[int, str | list[int]]] = []
        for number, prompt in enumerate(prompts):
            sent = None if prompt_problem(prompt) else self.sent(prompt.token_ids)
            if sent is None:
                yield number, failed(prompt_problem(prompt) or NO_SUCH_TEXT)
            else:
                requests.append((number, sent))

        def request_at(index: int) -> tuple[int, CompletionResponse | str]:
            number, sent = requests[index]
            try:
                return number, self.request(sent, seeds[number])
            except UnansweredError as error:
                return number, str(error)

        silent, threads = 0, min(self._concurrency, len(requests))
        # an interrupted run does not wait for pending responses
        with ThreadPool(threads or 1) as pool, ExitStack() as unfinished:
            unfinished.callback(self._client.stop)
            for number, reply in pool.imap_unordered(request_at, range(len(requests))):
                silent = silent + 1 if isinstance(reply, str) else 0
                if silent >= GIVE_UP_AFTER:
                    raise BackendError(
                        f"{silent} consecutive requests had no response; the last: {reply}. "
                        "Finished rows are kept: run again when the server is back."
                    )
                if isinstance(reply, str):
                    yield number, failed(reply)
                else:
                    yield number, self.completion(prompts[number].token_ids, reply)
            unfinished.pop_all()

    def request(self, sent: str | list[int], seed: int) -> CompletionResponse:
        """Send one prompt.

        Raises:
            RefusedError: the server rejects the request.
            UnansweredError: there was no usable response.
        """
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
        return self._client.post("/completions", body, read_reply)

    def sent(self, token_ids: Sequence[int]) -> str | list[int] | None:
        """Convert a prompt to the server's format; None if no text encodes to these tokens."""
        if self._terms.as_tokens:
            return list(token_ids)
        starts = (0, 1) if token_ids[0] in self._tokenizer.all_special_ids else (0,)
        texts = [self._decoded(token_ids[start:]) for start in starts]
        same = (t for t in texts if self._tokenizer(t)["input_ids"] == list(token_ids))
        return next(same, None)

    def completion(self, prompt: Sequence[int], reply: CompletionResponse) -> Completion:
        """Convert a reply to a row's completion.

        Raises:
            BackendError: the marker of a thought is not in the text, and there are no token ids.
        """
        if problem := self.misread(prompt, reply):
            return failed(self._client.masked(problem))
        if reply.finish not in FINISHED:
            reason = self._client.masked(reply.finish)
            return failed(f"the server ended the text with finish_reason {reason!r}")
        tokens = reply.token_ids
        if tokens is None:
            tokens = tuple(self._tokenizer(reply.text, add_special_tokens=False)["input_ids"])
        elif tokens and tokens[-1] in self._stops:
            tokens = tokens[:-1]
        text = reply.text
        if markers := self._decoder.special_markers:
            if reply.token_ids is None:
                raise BackendError(
                    f"{', '.join(markers)} (generation.thought) is a special token, which servers "
                    "leave out of texts, and this server returns no token ids. Use a server that "
                    "supports return_token_ids (vLLM), or load the weights locally."
                )
            text = self._decoder.text(tokens)
        finish = FINISHED[reply.finish]
        ended_at_once = finish == "stop" and not tokens
        start = self._decoder.answer_start(tokens)
        return Completion(tokens, text, "none" if ended_at_once else finish, "", start)

    def misread(self, prompt: Sequence[int], reply: CompletionResponse) -> str:
        """Explain why a reply is not to this prompt or by this model; empty if it seems to be."""
        if self._answers_as is not None and reply.model != self._answers_as:
            return f"the server responded as {reply.model!r}, before as {self._answers_as!r}"
        if reply.prompt_ids is not None and reply.prompt_ids != tuple(prompt):
            return "the server read the prompt as other tokens"
        count = reply.prompt_tokens
        if count is not None and count != len(prompt):
            return f"the server read {count} tokens where the prompt has {len(prompt)}"
        return ""

    def _decoded(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
        return str(text)


def failed(reason: str) -> Completion:
    """Return a row without text."""
    return Completion((), "", "none", reason)


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

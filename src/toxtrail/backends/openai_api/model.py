"""A variant that a server holds: every prompt is one request, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.huggingface.generation.generator import PromptEncoder, refusal
from toxtrail.backends.openai_api.client import Client, UnansweredError
from toxtrail.backends.openai_api.threads import side_by_side
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
"""The names that servers give to the two ways a continuation ends; any other one is no end."""

BEYOND_OPENAI = {
    "return_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""What vLLM, SGLang and llama.cpp understand beside OpenAI's own fields. Without it, a server may
apply what the model's own files recommend."""

GIVE_UP_AFTER = 20
"""Rows without an answer, one after another: the server is gone. Our choice."""

NO_SUCH_TEXT = "no text is turned into these prompt tokens, and the server takes text only"


class Terms(NamedTuple):
    """How a server can be asked."""

    as_tokens: bool
    """Prompts go as token ids; else as text that the tokenizer turns into these ids."""
    beyond_openai: bool
    """BEYOND_OPENAI is understood."""


class Reply(NamedTuple):
    """What a server says to one request."""

    text: str
    finish: str
    token_ids: tuple[int, ...] | None
    """Of the continuation, an end-of-sequence token included; None if it does not say."""
    prompt_ids: tuple[int, ...] | None
    prompt_tokens: int | None
    model: str | None
    """Under which name it answers; it need not be the one that was asked for."""
    fingerprint: str | None
    """Of the server's build and settings, as it says."""


class ServedModel:
    """Continues prompts on a server. The tokenizer is the variant's own, loaded here."""

    def __init__(
        self,
        client: Client,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[int],
        window: int | None,
        decoding: Decoding,
        terms: Terms,
        concurrency: int,
        answers_as: str | None = None,
        embeddings: int | None = None,
    ) -> None:
        """Args:
        name: of the model on the server.
        stops: tokens that end a text.
        window: longest text in tokens, prompt and continuation together.
        concurrency: requests under way at a time.
        answers_as: the name that every answer must bear; None: not known yet.
        embeddings: how many tokens the model knows; None: not known.

        Raises:
            ConfigError: `chat` is asked of a model whose template is missing or cannot be used.
        """
        self._client = client
        self._name = name
        self._tokenizer = tokenizer
        self._stops = frozenset(stops)
        self._encoder = PromptEncoder(tokenizer, decoding, window, embeddings)
        self._decoding = decoding
        self._terms = terms
        self._concurrency = concurrency
        self._answers_as = answers_as

    def encode(self, text: str) -> EncodedPrompt:
        """A prompt's tokens, as the same model encodes it where it is loaded here.

        Raises:
            ConfigError: the chat template takes no such prompt.
        """
        return self._encoder.encode(text)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; each is yielded with its number as soon as its answer is here.

        A prompt that the server does not answer, after every try, is an error of that row.

        Raises:
            BackendError: the server refuses a request, or has answered none of many.
        """

        asked: list[tuple[int, str | list[int]]] = []
        for number, prompt in enumerate(prompts):
            sent = None if refusal(prompt) else self.sent(prompt.token_ids)
            if sent is None:
                yield number, failed(refusal(prompt) or NO_SUCH_TEXT)
            else:
                asked.append((number, sent))

        def one(place: int) -> tuple[int, Reply | str]:
            number, sent = asked[place]
            try:
                return number, self.request(sent, seeds[number])
            except UnansweredError as error:
                return number, str(error)

        silent = 0
        for number, found in side_by_side(one, len(asked), self._concurrency, self._client.stop):
            silent = silent + 1 if isinstance(found, str) else 0
            if silent >= GIVE_UP_AFTER:
                raise BackendError(
                    f"{silent} requests one after another had no answer; the last: {found}. What "
                    "is finished is kept: run again when the server is back."
                )
            if isinstance(found, str):
                yield number, failed(found)
            else:
                yield number, self.completion(prompts[number].token_ids, found)

    def request(self, sent: str | list[int], seed: int) -> Reply:
        """Send one prompt.

        Raises:
            RefusedError: the server says no.
            UnansweredError: it gave no usable answer.
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
        """A prompt as this server takes it; None if no text gives these tokens again."""
        if self._terms.as_tokens:
            return list(token_ids)
        starts = (0, 1) if token_ids[0] in self._tokenizer.all_special_ids else (0,)
        texts = [self._decoded(token_ids[start:]) for start in starts]
        same = (t for t in texts if self._tokenizer(t)["input_ids"] == list(token_ids))
        return next(same, None)

    def completion(self, prompt: Sequence[int], reply: Reply) -> Completion:
        """A reply as a row's outcome."""
        if problem := self.misread(prompt, reply):
            return failed(self._client.masked(problem))
        if reply.finish not in FINISHED:
            reason = self._client.masked(reply.finish)
            return failed(f"the server ended the text for the reason {reason!r}")
        tokens = reply.token_ids
        if tokens is None:
            tokens = tuple(self._tokenizer(reply.text, add_special_tokens=False)["input_ids"])
        elif tokens and tokens[-1] in self._stops:
            tokens = tokens[:-1]
        finish = FINISHED[reply.finish]
        ended_at_once = finish == "stop" and not tokens
        return Completion(tokens, reply.text, "none" if ended_at_once else finish, "")

    def misread(self, prompt: Sequence[int], reply: Reply) -> str:
        """Why a reply is not one to this prompt by this model; empty if it seems to be."""
        if self._answers_as is not None and reply.model != self._answers_as:
            return f"the server answered as {reply.model!r}, before as {self._answers_as!r}"
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
    """A row without a text."""
    return Completion((), "", "none", reason)


def read_reply(response: Response) -> Reply:
    """The parts of an answer that are used.

    Raises:
        ValueError: it is not the answer to a completion request.
    """
    body = response.json()
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError("it holds no single choice")
    choice, usage = choices[0], body.get("usage")
    text = choice.get("text")
    if not isinstance(text, str):
        raise ValueError("its choice holds no text")
    text.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Reply(
        text,
        str(choice.get("finish_reason")),
        _tokens(choice.get("token_ids")),
        _tokens(choice.get("prompt_token_ids")),
        count if isinstance(count, int) else None,
        _word(body.get("model")),
        _word(body.get("system_fingerprint")),
    )


def _tokens(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(token, int) and 0 <= token < 2**31 for token in value
    ):
        raise ValueError("its token ids are no list of token ids")
    return tuple(value)


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None

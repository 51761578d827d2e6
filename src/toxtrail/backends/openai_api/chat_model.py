"""Generate with a model that is known by its name on a server only, by chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from toxtrail.backends.openai_api.chat_format import ChatFormat, request_body
from toxtrail.backends.openai_api.chat_reply import (
    ChatReply,
    exceeds_window,
    filter_reason,
    parse_reply,
)
from toxtrail.backends.openai_api.client import Client, RefusedError
from toxtrail.backends.openai_api.parallel import in_parallel
from toxtrail.backends.protocols import Completion, Decoding, EncodedPrompt, ServerAnswer
from toxtrail.records.rows import RowStatus, Turn
from toxtrail.records.thought import split_thought
from toxtrail.records.words import word_numbers

if TYPE_CHECKING:
    from requests import Response

PATH = "/chat/completions"
TOO_LONG = "the prompt and its continuation do not fit the model's window"


class ChatModel:
    """A model's name on a server. Its weights, tokenizer and chat template are not known, so that
    lengths are in words."""

    def __init__(
        self,
        client: Client,
        name: str,
        decoding: Decoding,
        terms: ChatFormat,
        concurrency: int,
        answers_as: str | None,
    ) -> None:
        """Args:
        name: of the model on the server.
        concurrency: number of parallel requests.
        answers_as: the model name that every response must have; None: no name.
        """
        self._client = client
        self._name = name
        self._decoding = decoding
        self._terms = terms
        self._concurrency = concurrency
        self._answers_as = answers_as

    def encode(self, text: str, earlier: Sequence[Turn] = ()) -> EncodedPrompt:
        """Return the messages of a prompt; its length is in words."""
        messages = (*self._decoding.earlier, *earlier, Turn("user", text))
        words = word_numbers(" ".join(turn.text for turn in messages))
        return EncodedPrompt(words, fits=True, messages=messages)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Send each prompt; yield each with its index as soon as its response arrives.

        A prompt without a response after all attempts is an error of that row.

        Raises:
            BackendError: the server rejects a request for another reason than its content or its
                length, or many in a row have no response.
        """

        def ask(number: int) -> Completion:
            return self._ask(prompts[number].messages, seeds[number])

        for number, reply in in_parallel(self._client, self._concurrency, len(prompts), ask):
            yield number, failed(reply) if isinstance(reply, str) else reply

    def request(self, messages: Sequence[Turn], seed: int) -> ChatReply:
        """Send one conversation.

        Raises:
            RefusedError: the server rejects the request.
            UnansweredError: there was no usable response.
        """
        body = request_body(self._name, messages, seed, self._decoding, self._terms)
        return self._client.post(PATH, body, read_reply)

    def _ask(self, messages: Sequence[Turn], seed: int) -> Completion:
        try:
            reply = self.request(messages, seed)
        except RefusedError as error:
            if withheld := filter_reason(error.body):
                return self.completion(ChatReply(filtered=withheld, model=self._answers_as))
            if exceeds_window(error.body, str(error)):
                return Completion((), "", "none", TOO_LONG, answer=ServerAnswer("truncated"))
            raise
        return self.completion(reply)

    def completion(self, reply: ChatReply) -> Completion:
        """Convert a reply to a row's completion."""
        problem = self._client.masked(self._problem(reply))
        thought, text, state = self._split(reply)
        answer = ServerAnswer(
            "error" if problem else "filtered" if reply.filtered else state,
            None if problem or reply.filtered else thought,
            self._masked(reply.model),
            self._masked(reply.fingerprint),
            self._masked(reply.software),
            datetime.now(UTC).date().isoformat(),
            reply.tokens,
        )
        if problem or reply.filtered:
            return Completion((), "", "none", problem or reply.filtered, answer=answer)
        words = word_numbers(thought or "") + word_numbers(text)
        finish = "none" if not words and state == "empty" else reply.finish
        return Completion(words, text, finish, "", answer=answer)

    def _split(self, reply: ChatReply) -> tuple[str | None, str, RowStatus]:
        """Return thought, answer and state: a thought may be apart, in the text, or not shown."""
        inside, text, state = split_thought(reply.answer, self._decoding.thought)
        thought = (reply.thought or "") + (inside or "") or None
        used_up = reply.finish == "length" and state == "empty"
        return thought, text, "unfinished" if used_up and (thought or not text) else state

    def _problem(self, reply: ChatReply) -> str:
        if reply.problem:
            return reply.problem
        if reply.model != self._answers_as:
            return f"the server responded as {reply.model!r}, before as {self._answers_as!r}"
        limit = self._decoding.max_new_tokens
        if reply.tokens is not None and reply.tokens > limit:
            return f"the server wrote {reply.tokens} tokens; generation.max_new_tokens is {limit}"
        return ""

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self._client.masked(text)


def read_reply(response: Response) -> ChatReply:
    """Parse a response; see `parse_reply`."""
    return parse_reply(response.json(), response.headers.get("Server"))


def failed(reason: str) -> Completion:
    """Return a row without a response."""
    return Completion((), "", "none", reason, answer=ServerAnswer("error"))

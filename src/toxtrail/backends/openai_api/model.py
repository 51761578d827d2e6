"""Generate with a variant on a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toxtrail.backends.huggingface.generation.continuation_text import ContinuationDecoder
from toxtrail.backends.huggingface.generation.generator import PromptEncoder, prompt_problem
from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.completions import (
    CompletionResponse,
    CompletionsApi,
    RequestFormat,
)
from toxtrail.backends.protocols import Completion, Decoding, EncodedPrompt
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toxtrail.records.rows import FinishReason, Turn

FINISHED: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "length": "length",
}
"""Servers' names for the two ways in which a continuation ends; any other one is an error."""


class ServedModel(CompletionsApi):
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
        super().__init__(client, name, tokenizer, decoding, terms, concurrency, answers_as)
        self._stops = frozenset(stops)
        self.encoder = PromptEncoder(tokenizer, decoding, window, embeddings)
        self._decoder = ContinuationDecoder(tokenizer, decoding.thought)

    def encode(self, text: str, earlier: Sequence[Turn] = ()) -> EncodedPrompt:
        """Tokenize a prompt, in the same way as for a loaded model.

        Raises:
            ConfigError: the chat template does not accept the prompt.
        """
        return self.encoder.encode(text, earlier)

    def complete(
        self, prompts: Sequence[EncodedPrompt], seeds: Sequence[int]
    ) -> Iterator[tuple[int, Completion]]:
        """Continue each prompt; yield each with its index as soon as its response arrives.

        A prompt without a response after all attempts is an error of that row.

        Raises:
            BackendError: the server rejects a request, or many in a row have no response.
        """
        fit = [number for number, prompt in enumerate(prompts) if not prompt_problem(prompt)]
        for number, prompt in enumerate(prompts):
            if problem := prompt_problem(prompt):
                yield number, failed(problem)
        sent = [prompts[number].token_ids for number in fit]
        for index, reply in self.responses(sent, [seeds[number] for number in fit]):
            yield (
                fit[index],
                failed(reply) if isinstance(reply, str) else self.completion(reply),
            )

    def completion(self, reply: CompletionResponse) -> Completion:
        """Convert a reply to a row's completion.

        Raises:
            BackendError: the marker of a thought is not in the text, and there are no token ids.
        """
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
        ends = self._decoder.thought_ends(tokens)
        thought = self._decoding.thought
        if thought and text.count(thought.end) != len(ends):
            return failed("the text and its tokens have different numbers of end markers")
        return Completion(tokens, text, "none" if ended_at_once else finish, "", ends)


def failed(reason: str) -> Completion:
    """Return a row without text."""
    return Completion((), "", "none", reason)

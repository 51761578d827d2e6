"""Generate with a vLLM server that toxtrail started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toxtrail.backends.huggingface.generation.generator import completion_of
from toxtrail.backends.openai_api.client import UnansweredError
from toxtrail.backends.openai_api.completions import CompletionResponse
from toxtrail.backends.openai_api.model import ServedModel, failed
from toxtrail.backends.protocols import Completion
from toxtrail.errors import BackendError


class VllmModel(ServedModel):
    """Model on a server that toxtrail started: it stops at the tokens at which the in-process
    engine stops, and its tokens are decoded here in the same way."""

    def __init__(self, *args: Any, require_running: Callable[[], None], **options: Any) -> None:
        """Args:
        args: see ServedModel.
        require_running: raises BackendError if the server has ended.
        """
        super().__init__(*args, **options)
        self._require_running = require_running

    def request(self, sent: str | list[int], seed: int) -> CompletionResponse:
        """Send one prompt. See `CompletionsApi.request`.

        Raises:
            BackendError: the server has ended.
        """
        try:
            return super().request(sent, seed)
        except UnansweredError:
            self._require_running()
            raise

    def body(self, sent: str | list[int], seed: int) -> dict[str, Any]:
        """Return the body of a request; only the variant's own tokens end a continuation."""
        stops = {"stop_token_ids": sorted(self._stops), "ignore_eos": True}
        return {**super().body(sent, seed), **stops}

    def completion(self, reply: CompletionResponse) -> Completion:
        """Convert a reply to a row's completion.

        Raises:
            BackendError: the reply has no token ids.
        """
        tokens = reply.token_ids
        if tokens is None:
            raise BackendError("vLLM returned no token ids (return_token_ids). Update vLLM.")
        if not self._is_whole(reply.finish, tokens):
            return failed(
                f"vLLM ended the text after {len(tokens)} tokens with finish_reason "
                f"{self._client.masked(reply.finish)!r}"
            )
        return completion_of(tokens, self._stops, self._decoder)

    def _is_whole(self, finish: str, tokens: tuple[int, ...]) -> bool:
        """Return whether a continuation ended at a stop token or at its full length."""
        if finish == "stop":
            return bool(tokens) and tokens[-1] in self._stops
        return finish == "length" and len(tokens) == self._decoding.max_new_tokens

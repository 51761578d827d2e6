"""Responses of vLLM become the rows that the in-process engine makes of the same tokens."""

from __future__ import annotations

import pytest
from completions_server import CompletionsServer, completion

from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.completions import RequestFormat
from toxtrail.backends.protocols import Decoding
from toxtrail.backends.vllm.model import VllmModel
from toxtrail.errors import BackendError

STOP = 1
TERMS = RequestFormat(as_tokens=True, beyond_openai=True)


@pytest.fixture
def tokenizer(tiny):
    return tiny.tokenizer()


def rows(tokenizer, answer, require_running=lambda: None):
    """The completion of one prompt, and the request."""
    with CompletionsServer(answer) as server:
        client = Client(server.url, 1, 5.0, 1, None)
        model = VllmModel(
            client, "m", tokenizer, [STOP], 128, Decoding(3, 0.0, 1.0, "none"), TERMS, 1,
            require_running=require_running,
        )  # fmt: skip
        ((_, made),) = model.complete([model.encode("A tree")], [5])
        return made, server.asked[0]


@pytest.mark.parametrize(
    ("tokens", "finish", "kept", "reason"),
    [
        ([40, 41, 42], "length", 3, "length"),
        ([40, STOP], "stop", 1, "stop"),
        ([STOP], "stop", 0, "none"),
    ],
)
def test_tokens_are_decoded_here_without_the_last_stop(tokenizer, tokens, finish, kept, reason):
    made, asked = rows(tokenizer, lambda body: completion("other", finish, token_ids=tokens))
    assert made.token_ids == tuple(tokens[:kept])
    assert made.text == tokenizer.decode(tokens[:kept], skip_special_tokens=True)
    assert made.finish_reason == reason
    assert (asked["stop_token_ids"], asked["ignore_eos"]) == ([STOP], True)


@pytest.mark.parametrize(
    ("tokens", "finish"),
    [([40], "length"), ([40, 41], "stop"), ([], "stop"), ([40, 41, 42], "abort")],
)
def test_a_continuation_that_ended_otherwise_is_an_error_of_its_row(tokenizer, tokens, finish):
    made, _ = rows(tokenizer, lambda body: completion("x", finish, token_ids=tokens))
    assert made.error
    assert made.text == ""


def test_a_response_without_token_ids_stops_the_run(tokenizer):
    with pytest.raises(BackendError, match="return_token_ids"):
        rows(tokenizer, lambda body: completion("x", "length"))


def test_a_server_that_has_ended_stops_the_run(tokenizer):
    def ended():
        raise BackendError("vLLM ended with the exit code 1.")

    with pytest.raises(BackendError, match="exit code 1"):
        rows(tokenizer, lambda body: {}, ended)

"""Several servers with the same weights: each is proved, and all share the requests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from completions_server import CompletionsServer, Status, completion

from toxtrail.backends.openai_api import client as client_module
from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.openai_api.completions import RequestFormat
from toxtrail.backends.openai_api.model import ServedModel
from toxtrail.backends.openai_api.replicas import ReplicaClient, joined
from toxtrail.backends.openai_api.server import ServedVariant
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError

TERMS = RequestFormat(as_tokens=True, beyond_openai=True)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)


def served(client, tokenizer, **environment):
    model = ServedModel(client, "m", tokenizer, [1], 128, Decoding(2, 0.0, 1.0, "none"), TERMS, 4)
    return ServedVariant(model, environment, "24 of 24", True, "which lists it")


def clients(*urls):
    return [Client(url, 4, 5.0, 2, None) for url in urls]


def test_requests_are_divided_and_every_row_arrives(tiny):
    tokenizer = tiny.tokenizer()
    answer = lambda body: completion("x", token_ids=body["prompt"][:2])  # noqa: E731
    with CompletionsServer(answer) as one, CompletionsServer(answer) as two:
        both = clients(one.url, two.url)
        variant = joined(both, [served(client, tokenizer, version="1") for client in both])
        prompts = [variant.model.encode(text) for text in ["A tree", "The ship", "Paris"] * 4]
        rows = dict(variant.model.complete(prompts, list(range(len(prompts)))))
    assert [rows[n].token_ids for n in range(12)] == [p.token_ids[:2] for p in prompts]
    assert (len(one.asked), len(two.asked)) == (6, 6)
    assert "2 servers" in variant.agreement


def test_the_other_server_answers_for_one_that_is_down_and_the_last_one_is_named(tiny):
    def down(_body):
        raise Status(503)

    with (
        CompletionsServer(down) as bad,
        CompletionsServer(lambda body: completion("x")) as good,
    ):
        client = ReplicaClient(clients(bad.url, good.url))
        texts = [client.post("/completions", {}, lambda r: r.json()["choices"][0]["text"])
                 for _ in range(3)]  # fmt: skip
        assert texts == ["x"] * 3
        with pytest.raises(BackendError, match=bad.url):
            ReplicaClient(clients(bad.url)).post("/completions", {}, lambda r: r.json())


def test_servers_that_differ_are_refused_with_the_address_and_the_field(tiny):
    both = clients("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")
    variants = [served(client, tiny.tokenizer(), server_version=v) for client, v in
                zip(both, ("1", "2"), strict=True)]  # fmt: skip
    with pytest.raises(BackendError, match="127.0.0.1:2/v1: server_version is 2"):
        joined(both, variants)


def test_one_server_is_left_as_it_is():
    (client,) = clients("http://127.0.0.1:1/v1")
    alone = SimpleNamespace(environment={})
    assert joined([client], [alone]) is alone

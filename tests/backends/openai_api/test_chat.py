"""A chat completions API: every form of an answer, what it may reject, and what it must not do."""

from __future__ import annotations

import json

import pytest
from completions_server import ChatAnswers, CompletionsServer, Raw, Status, chat
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.backends.openai_api import client as client_module
from toxtrail.backends.openai_api.chat_format import ChatFormat, next_format, request_body
from toxtrail.backends.openai_api.chat_model import ChatModel
from toxtrail.backends.openai_api.chat_reply import (
    MAX_COUNT,
    ChatReply,
    filter_reason,
    parse_reply,
)
from toxtrail.backends.openai_api.chat_server import connect_chat
from toxtrail.backends.openai_api.client import Client, RefusedError
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError, ConfigError
from toxtrail.execution.server_rows import server_row
from toxtrail.records.rows import Prompt, Turn, generation_problem
from toxtrail.records.thought import ThoughtMarkers

GREEDY = Decoding(8, 0.0, 1.0, "chat")
MARKERS = ThoughtMarkers("<think>", "</think>")
PROMPT = Prompt("p", "s", "Hi", "file:x", 0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)


def client_of(server, key=None, tries=2):
    return Client(server.url, 2, 5.0, tries, key)


def model_of(answers_as=None, decoding=GREEDY, client=None):
    client = client or Client("http://127.0.0.1:9/v1", 1, 1.0, 1, None)
    return ChatModel(client, "m", decoding, ChatFormat(), 2, answers_as)


def row_of(reply, answers_as=None, decoding=GREEDY):
    """The row that a response becomes."""
    return server_row(PROMPT, 0, 1, model_of(answers_as, decoding).completion(reply))


def ask(server, *texts, decoding=GREEDY, key=None):
    """Connect, send each text, and return the completions in order."""
    connected = connect_chat(client_of(server, key), "m", decoding, 2)
    prompts = [connected.model.encode(text) for text in texts]
    return [c for _, c in sorted(connected.model.complete(prompts, range(len(prompts))))], connected


def part(text):
    return {"type": "text", "text": text}


# --- forms of an answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "state", "text", "thought"),
    [
        (chat("A tree."), "ok", "A tree.", None),
        (chat("A tree.", "length"), "ok", "A tree.", None),
        (chat(""), "empty", "", None),
        (chat(None), "empty", "", None),
        (chat("", "length"), "unfinished", "", None),
        (chat(" \n", "length"), "empty", " \n", None),
        (chat([part("A "), part("tree")]), "ok", "A tree", None),
        (chat("B", reasoning_content="a"), "ok", "B", "a"),
        (chat("B", reasoning="a", reasoning_content=None), "ok", "B", "a"),
        (chat(None, "length", reasoning="a"), "unfinished", "", "a"),
        (chat([{"type": "thinking", "thinking": [part("a")]}, part("B")]), "ok", "B", "a"),
        (chat("B", "content_filter"), "filtered", "", None),
        (chat(None, "content_filter", reasoning="a"), "filtered", "", None),
        (chat(None, refusal="I cannot."), "filtered", "", None),
        (chat([{"type": "refusal", "refusal": "I cannot."}]), "filtered", "", None),
        (chat(None, "tool_calls", tool_calls=[{"id": "1"}]), "error", "", None),
        (chat("B", "stop", tool_calls=[{"id": "1"}]), "error", "", None),
        (chat("B", "abort"), "error", "", None),
        (chat("B", None), "error", "", None),
        (chat("B", usage={"completion_tokens": 9}), "error", "", None),
        ({"choices": [{"finish_reason": "content_filter"}]}, "filtered", "", None),
        ({"error": {"code": "content_filter"}}, "filtered", "", None),
    ],
)  # fmt: skip
def test_forms_of_an_answer(body, state, text, thought):
    row = row_of(parse_reply(body))
    assert (row.state, row.text, row.thought) == (state, text, thought)
    assert bool(row.error) == (state in ("error", "filtered"))
    assert generation_problem(row) == ""


@pytest.mark.parametrize(
    "body",
    [
        [], None, 1, "text", {}, {"choices": []}, {"choices": [{}, {}]}, {"choices": ["x"]},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {}, "finish_reason": "stop"}]},
        {"error": {"code": "server_error"}},
        chat(3), chat({"text": "a"}), chat(["a"]), chat([{"type": "image_url"}]),
        chat([{"type": "text"}]), chat("\ud800"), chat("a", model="\ud800"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(ValueError):
        parse_reply(body)


def test_a_thought_in_the_text_is_cut_off_and_joined_with_the_one_kept_apart():
    decoding = Decoding(8, 0.0, 1.0, "chat", thought=MARKERS)
    row = row_of(parse_reply(chat("<think>b c</think>D e", reasoning="a ")), decoding=decoding)
    assert (row.thought, row.text, row.thought_tokens) == ("a <think>b c</think>", "D e", 3)
    assert len(row.token_ids) == 5
    unended = row_of(parse_reply(chat("<think>b c", "length")), decoding=decoding)
    assert (unended.state, unended.text) == ("unfinished", "")


def test_what_the_server_says_is_kept_with_the_row():
    body = chat("A", model="m-1", system_fingerprint="fp", usage={"completion_tokens": 2})
    row = row_of(parse_reply(body, "nginx"), answers_as="m-1")
    said = (row.server_model, row.server_fingerprint, row.server_software, row.server_tokens)
    assert said == ("m-1", "fp", "nginx", 2)
    assert len(str(row.server_date)) == len("2026-01-01")
    assert row_of(parse_reply(body), answers_as="m-2").state == "error"
    assert row_of(parse_reply(chat("A")), answers_as="m-2").state == "error"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
PARTS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(["text", "thinking", "refusal", "x"]) | JSON,
                      "text": JSON, "thinking": JSON},
    ),
    max_size=2,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "content": JSON | PARTS | st.text(), "reasoning_content": JSON, "reasoning": JSON,
        "refusal": JSON, "tool_calls": JSON, "role": JSON,
    },
)  # fmt: skip
BODIES = JSON | st.fixed_dictionaries(
    {"choices": JSON | st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "message": MESSAGES | JSON,
                "finish_reason": st.sampled_from(["stop", "length", "content_filter"]) | JSON,
            },
        ),
        min_size=1, max_size=1,
    )},
    optional={
        "model": JSON, "system_fingerprint": JSON, "error": JSON,
        "usage": JSON | st.fixed_dictionaries({"completion_tokens": st.integers() | JSON}),
    },
)  # fmt: skip


@given(BODIES)
def test_any_json_is_an_answer_a_counted_state_or_refused(body):
    try:
        reply = parse_reply(body)
    except ValueError:
        return
    row = row_of(reply, reply.model)
    assert generation_problem(row) == ""
    assert (row.state == "ok") == bool(row.text.strip())
    assert bool(row.error) == (row.state in ("error", "filtered"))
    assert reply.tokens is None or 0 <= reply.tokens <= MAX_COUNT
    json.dumps(row, ensure_ascii=False).encode()
    assert isinstance(filter_reason(body), str)


# --- requests -----------------------------------------------------------------------------------


def test_a_request_has_messages_and_turns_off_what_was_not_asked_for():
    turns = (Turn("system", "Be kind."), Turn("user", "A"), Turn("assistant", "B"))
    decoding = Decoding(8, 0.7, 0.9, "chat", turns[:1], {"enable_thinking": False})
    messages = model_of(decoding=decoding).encode("C", turns[1:]).messages
    body = request_body("m", messages, 2**40 + 3, decoding, ChatFormat())
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in body["messages"]][0::3] == ["Be kind.", "C"]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (
        0.7,
        0.9,
        8,
        3,
    )
    assert (body["top_k"], body["min_p"], body["presence_penalty"]) == (-1, 0.0, 0.0)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


DEFAULT = Decoding(8, 1.0, 1.0, "chat")


def formats(decoding, *messages):
    terms = ChatFormat()
    for message in messages:
        terms = next_format(terms, decoding, message)
    return terms


def test_a_field_that_the_server_names_is_left_out_and_the_limit_is_renamed():
    said = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    assert formats(GREEDY, said) == ChatFormat("max_completion_tokens")
    assert formats(GREEDY, "no field seed here").left_out == ("seed",)
    assert formats(DEFAULT, "'temperature' does not support 1").left_out == ("temperature",)
    assert formats(GREEDY, "top_p is unknown; use temperature").left_out == ("top_p",)
    assert formats(GREEDY, "Unsupported: 'n'").left_out == ("n",)


def test_a_server_that_names_no_field_gets_fewer_and_fewer():
    assert formats(GREEDY, "bad").left_out == ("top_k", "min_p", "repetition_penalty")
    everything = formats(GREEDY, *["bad"] * 6)
    assert {"seed", "n", "top_p", "presence_penalty"} <= set(everything.left_out)
    assert "temperature" not in everything.left_out
    assert everything.limit == "max_completion_tokens"
    with pytest.raises(BackendError):
        next_format(everything, GREEDY, "bad")


@pytest.mark.parametrize(
    ("decoding", "field"),
    [(GREEDY, "temperature"), (Decoding(8, 1.0, 0.5, "chat"), "top_p"),
     (Decoding(8, 1.0, 1.0, "chat", (), {"a": 1}), "chat_template_kwargs")],
)  # fmt: skip
def test_a_setting_that_was_asked_for_is_never_left_out(decoding, field):
    with pytest.raises(ConfigError):
        formats(decoding, f"unsupported: {field}")


# --- a server -----------------------------------------------------------------------------------


def test_answers_come_with_the_messages_that_were_asked():
    with CompletionsServer(ChatAnswers(("top_k", "max_tokens"))) as server:
        (one, two), connected = ask(server, "a kind goose", "the sky")
    assert (one.text, two.text) == ("a kind goose", "the sky")
    assert connected.environment["server_answers_as"] == "m-2026-01-01"
    assert connected.environment["token_limit_sent_as"] == "max_completion_tokens"
    assert connected.environment["fields_not_sent"] == "top_k, min_p, repetition_penalty"
    assert server.url not in json.dumps(connected.environment)


def error(code=None, message="no", **more):
    return {"error": {"message": message, "code": code, **more}}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (Status(400, error("content_filter")), "filtered"),
        (Status(400, error(None, innererror={"code": "ResponsibleAIPolicyViolation"})), "filtered"),
        (Status(400, error("content_policy_violation")), "filtered"),
        (Status(403, error(403, metadata={"flagged_input": "x"})), "filtered"),
        (Status(400, error("context_length_exceeded")), "truncated"),
        (Status(400, error(400, type="exceed_context_size_error")), "truncated"),
        (Status(400, error(None, "This model's maximum context length is 8 tokens")), "truncated"),
        (Status(500), "error"),
        (Raw(b"<html>"), "error"),
    ],
)
def test_what_a_server_rejects_by_its_content_or_length_is_a_row_of_its_own(status, state):
    class Quirky(ChatAnswers):
        def __call__(self, body):
            if body["messages"][-1]["content"] == "odd":
                raise status
            return super().__call__(body)

    with CompletionsServer(Quirky()) as server:
        (odd, fine), _ = ask(server, "odd", "the sky")
    assert [odd.answer.state, fine.answer.state] == [state, "ok"]
    assert (odd.text, bool(odd.error)) == ("", True)


def test_another_rejection_stops_the_run_and_the_message_has_neither_prompt_nor_key():
    def refuse(body):
        content = body["messages"][-1]["content"]
        if content == "Hello.":
            return chat("Hi", model="m")
        raise Status(400, error(None, f"bad request: {content}, key sesame-1234"))

    with CompletionsServer(refuse) as server, pytest.raises(RefusedError) as caught:
        ask(server, "secret words", key="sesame-1234")
    assert "secret words" not in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert server.keys == {"Bearer sesame-1234"}


def test_a_model_that_changes_in_mid_run_is_an_error_of_its_rows():
    answers = ChatAnswers(quirks={"odd": chat("x", model="m-2027-01-01")})
    with CompletionsServer(answers) as server:
        (odd, fine), _ = ask(server, "odd", "the sky")
    assert (odd.answer.state, fine.answer.state) == ("error", "ok")
    assert odd.answer.model == "m-2027-01-01"


@pytest.mark.parametrize(
    ("answer", "raises"),
    [
        (Status(404, error(None, "The model `m` does not exist")), ConfigError),
        (Status(404), BackendError),
        (Status(401, error(None, "no key")), RefusedError),
        (Status(400, error(None, "no")), BackendError),
    ],
)
def test_a_server_that_cannot_be_used(answer, raises):
    def refuse(_):
        raise answer

    models = ({"id": "other"},) if raises is ConfigError else ({"id": "m"},)
    with CompletionsServer(refuse, models=models) as server, pytest.raises(raises):
        ask(server, "the sky")


def test_a_reply_without_anything_is_no_answer():
    assert row_of(ChatReply()).state == "empty"

"""Weights behind an OpenAI-compatible API: a server that misbehaves, and one that is another."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from completions_server import CompletionsServer, Raw, Status, completion

from toxtrail.backends.huggingface.generation.generator import PromptEncoder
from toxtrail.backends.huggingface.weights.logit_probe import PROBES
from toxtrail.backends.openai_api import client as client_module
from toxtrail.backends.openai_api.client import Client, RefusedError, retry_after
from toxtrail.backends.openai_api.completions import RequestFormat
from toxtrail.backends.openai_api.model import ServedModel
from toxtrail.backends.openai_api.parallel import GIVE_UP_AFTER
from toxtrail.backends.openai_api.server import LocalTokenizer, connect
from toxtrail.backends.protocols import Decoding
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import LogitProbe, probe_digest, sha256_text
from toxtrail.records.rows import Turn
from toxtrail.records.thought import ThoughtMarkers

pytestmark = pytest.mark.slow

TEXTS = ["The ship", "What is the capital", "A tree", "birds build", "and the crew sang", "Paris"]
GREEDY = Decoding(5, 0.0, 1.0, "none")
MARKERS = ThoughtMarkers("<think>", "</think>")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)


@pytest.fixture
def tokenizer(tiny):
    return tiny.tokenizer()


class Language:
    """Writes words that depend on prompt and seed alone; `turn` makes it another model."""

    def __init__(self, tokenizer, turn=0):
        self.tokenizer, self.turn = tokenizer, turn
        self.words = tokenizer(" the sea and songs of home")["input_ids"]

    def next(self, ids, seed=0):
        return self.words[(int(sha256_text(f"{ids}{seed}")[:9], 16) + self.turn) % len(self.words)]

    def __call__(self, body):
        prompt = body["prompt"]
        ids = self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else list(prompt)
        new = []
        for _ in range(body["max_tokens"]):
            new.append(self.next(ids + new, body["seed"]))
        more = {"token_ids": new} if body.get("return_token_ids") else {}
        usage = {"prompt_tokens": len(ids)}
        return completion(self.tokenizer.decode(new), usage=usage, **more)

    def probe(self):
        places = [i[: n + 1] for i in (self.tokenizer(t)["input_ids"] for t in PROBES)
                  for n in range(len(i))]  # fmt: skip
        top = tuple(self.next(ids) for ids in places)
        digest = probe_digest(PROBES, "float32", top)
        return LogitProbe(texts=PROBES, dtype="float32", top_tokens=top, digest=digest)


@pytest.fixture
def language(tokenizer):
    return Language(tokenizer)


def client_of(server, timeout=5.0, tries=3, concurrency=4, key=None):
    return Client(server.url, concurrency, timeout, tries, key)


def model_of(server, tokenizer, terms=None, concurrency=4, answers_as=None, **patience):
    client = client_of(server, concurrency=concurrency, **patience)
    terms = terms or RequestFormat(as_tokens=True, beyond_openai=True)
    return ServedModel(
        client, "m", tokenizer, [1], 128, GREEDY, terms, concurrency, answers_as
    )  # fmt: skip


def rows(model, texts=TEXTS):
    asked = [model.encode(text) for text in texts]
    return dict(model.complete(asked, [10**12 + n for n in range(len(texts))]))


def first_times(count, then, do):
    """Call `do` for the first `count` requests, `then` after them."""
    calls = []

    def answer(body):
        calls.append(1)
        return do(body) if len(calls) <= count else then(body)

    return answer


def stumble(kind):
    def do(body):
        raise kind

    return do


def test_rows_are_the_same_whatever_the_concurrency(tokenizer, language):
    def at_some_time(body):
        time.sleep(body["prompt"][0] % 7 / 100)
        return language(body)

    with CompletionsServer(at_some_time) as server:
        one, many = (rows(model_of(server, tokenizer, concurrency=n)) for n in (1, 6))
    assert one == many
    assert len({row.text for row in one.values()}) == len(TEXTS)
    assert all(tokenizer.decode(row.token_ids) == row.text for row in one.values())


def test_never_more_requests_are_under_way_than_allowed(tokenizer, language):
    def slowly(body):
        time.sleep(0.05)
        return language(body)

    with CompletionsServer(slowly) as server:
        rows(model_of(server, tokenizer, concurrency=3), TEXTS * 3)
    assert server.most_at_a_time == 3


def test_a_server_that_asks_to_be_left_alone_is_left_alone(tokenizer, language):
    busy = Status(429, {"error": {"message": "slow down"}}, Retry_After="1")
    with CompletionsServer(first_times(1, language, stumble(busy))) as server:
        found = rows(model_of(server, tokenizer), TEXTS[:1])
    assert found[0].error == ""
    assert server.times[1] - server.times[0] >= 1


def asked_to_wait(header):
    return retry_after(SimpleNamespace(headers={"Retry-After": header}))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12),
        ("0", 0),
        ("-3", 0),
        ("soon", 0),
        ("nan", 0),
        ("", 0),
        ("9" * 9, 600),
        ("9" * 5000, 0),
        ("Mon, 99 Jan 99999 99:99:99", 0),
    ],
)
def test_the_time_to_wait_is_a_number_and_anything_odd_is_none(header, seconds):
    assert asked_to_wait(header) == seconds


@pytest.mark.parametrize(("ahead", "low", "high"), [(90, 60, 90), (-90, 0, 0), (9999, 600, 600)])
def test_the_time_to_wait_may_be_a_date(ahead, low, high):
    date = datetime.now(UTC) + timedelta(seconds=ahead)
    assert low <= asked_to_wait(format_datetime(date, usegmt=True)) <= high


@pytest.mark.parametrize(
    "mishap",
    [
        Status(500, "boom"),
        Status(503, {"detail": "loading"}),
        Raw(b'{"choices": [{"te', missing=40),
        Raw(b"<html>it works</html>"),
        Raw(b'{"choices": []}'),
        Raw(b'{"choices": [{"text": null}]}'),
        Raw(b'{"choices": [{"text": "\\ud800", "finish_reason": "stop"}]}'),
        Raw(b"[]"),
        Raw(b'{"choices": [{"text": "a", "finish_reason": "stop", "token_ids": [-1]}]}'),
    ],
    ids=["500", "503", "cut", "html", "no-choice", "no-text", "surrogate", "list", "bad-token"],
)
def test_a_mishap_that_passes_leaves_no_trace_and_one_that_stays_is_an_error(
    tokenizer, language, mishap
):
    with CompletionsServer(first_times(2, language, stumble(mishap))) as server:
        healed = rows(model_of(server, tokenizer, concurrency=1), TEXTS[:2])
    with CompletionsServer(language) as server:
        assert healed == rows(model_of(server, tokenizer), TEXTS[:2])
    with CompletionsServer(stumble(mishap)) as server:
        (row,) = rows(model_of(server, tokenizer), TEXTS[:1]).values()
    assert "3 attempts" in row.error
    assert (row.text, row.token_ids, len(server.asked)) == ("", (), 3)


def test_an_answer_that_is_too_slow_is_asked_for_again(tokenizer, language):
    def sleep(body):
        time.sleep(1)
        return language(body)

    with CompletionsServer(first_times(1, language, sleep)) as server:
        found = rows(model_of(server, tokenizer, timeout=0.3), TEXTS[:1])
        assert (found[0].error, len(server.asked)) == ("", 2)
    with CompletionsServer(sleep) as server:
        found = rows(model_of(server, tokenizer, timeout=0.1, tries=2), TEXTS[:1])
        assert "within 0.1 s (after 2 attempts)" in found[0].error


def test_a_refusal_stops_the_run_with_the_servers_own_words_and_without_the_prompt(
    tokenizer, language
):
    def refuse(body):
        raise Status(400, {"error": {"message": f"cannot continue {body['prompt']}: too odd"}})

    with CompletionsServer(refuse) as server:
        model = model_of(server, tokenizer, RequestFormat(as_tokens=False, beyond_openai=False))
        with pytest.raises(RefusedError, match="continue <prompt>: too odd"):
            rows(model, TEXTS[:1])
    assert len(server.asked) == 1


def test_a_server_at_another_address_is_not_followed(tokenizer):
    with (
        CompletionsServer(stumble(Status(301, "", Location="http://else/v1"))) as server,
        pytest.raises(RefusedError, match="http://else/v1"),
    ):
        rows(model_of(server, tokenizer))


def test_a_server_that_is_gone_ends_the_run_and_what_came_before_is_there(tokenizer, language):
    with CompletionsServer(language) as server:
        model = model_of(server, tokenizer, concurrency=1, tries=1)
        asked = [model.encode("The ship")] * (3 + GIVE_UP_AFTER)
        found = model.complete(asked, range(len(asked)))
        assert [next(found)[1].error for _ in range(1)] == [""]
        server.answer = stumble(Status(502, "bad gateway"))
        with pytest.raises(BackendError, match=r"20 .*requests .*502: bad gateway.*run again"):
            list(found)


def test_an_interrupted_run_waits_for_no_answer(tokenizer, language):
    interrupted, answered = threading.Event(), []

    def hang(body):
        if body["seed"] != 0:
            interrupted.wait(60)
            answered.append(body["seed"])
        return language(body)

    with CompletionsServer(hang) as server:
        model = model_of(server, tokenizer, timeout=90)
        found = model.complete([model.encode(text) for text in TEXTS], range(len(TEXTS)))
        next(found)
        found.close()
        assert not answered
        interrupted.set()


def test_a_bug_in_a_thread_is_raised_and_not_waited_for(tokenizer, language, monkeypatch):
    with CompletionsServer(language) as server:
        model = model_of(server, tokenizer)
        monkeypatch.setattr(model, "request", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rows(model)


@pytest.mark.parametrize(
    ("answer", "tokens", "finish", "error"),
    [
        (completion("", "stop", token_ids=[1]), (), "none", ""),
        (completion("", "stop"), (), "none", ""),
        (completion("A", "stop", token_ids=[35, 1]), (35,), "stop", ""),
        (completion("A", "eos_token", token_ids=[35]), (35,), "stop", ""),
        (completion("A", "length", token_ids=[35]), (35,), "length", ""),
        (completion("A", "content_filter"), (), "none", "'content_filter'"),
        (completion("A", None), (), "none", "'None'"),
        (completion("A", usage={"prompt_tokens": 1}), (), "none", "read 1 tokens where"),
        (completion("A", prompt_token_ids=[9]), (), "none", "as other tokens"),
        (completion("A", model="other"), (), "none", "'other', before as 'm'"),
    ],
)
def test_each_end_of_a_text_is_told_apart(tokenizer, answer, tokens, finish, error):
    with CompletionsServer(lambda body: answer) as server:
        (row,) = rows(model_of(server, tokenizer, answers_as="m"), TEXTS[:1]).values()
    assert (row.token_ids, row.finish_reason) == (tokens, finish)
    assert error in row.error
    assert bool(error) == bool(row.error)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
def test_a_thought_stays_in_the_text_or_the_server_is_refused(tokenizer, special, with_ids):
    """A server leaves special tokens out of its texts."""
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    ids = tokenizer("<think>The sea</think> The ship", add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    more = {"token_ids": ids} if with_ids else {}
    decoding = Decoding(5, 0.0, 1.0, "none", thought=MARKERS)
    with CompletionsServer(lambda body: completion(text, **more)) as server:
        model = ServedModel(
            client_of(server), "m", tokenizer, [1], 128, decoding, RequestFormat(True, True), 1
        )
        if special and not with_ids:
            with pytest.raises(BackendError, match="returns no token ids"):
                rows(model, TEXTS[:1])
            return
        (row,) = rows(model, TEXTS[:1]).values()
    assert row.text == "<think>The sea</think> The ship"
    assert tokenizer.decode(ids[row.thought_ends[-1] :]) == " The ship"


def test_decoding_is_as_params_say_and_as_nothing_else_says(tokenizer, language):
    with CompletionsServer(language) as server:
        client = client_of(server, key="secret")
        model = ServedModel(
            client, "m", tokenizer, [1], 128, Decoding(9, 0.7, 0.9, "none"),
            RequestFormat(True, True), 2
        )  # fmt: skip
        rows(model, TEXTS[:1])
    (body,) = server.asked
    prompt = tokenizer(TEXTS[0])["input_ids"]
    assert body == {
        "model": "m", "prompt": prompt, "max_tokens": 9, "temperature": 0.7, "top_p": 0.9,
        "seed": 10**12 % 2**31, "n": 1, "echo": False, "stream": False, "frequency_penalty": 0.0,
        "presence_penalty": 0.0, "return_token_ids": True, "top_k": -1, "min_p": 0.0,
        "repetition_penalty": 1.0,
    }  # fmt: skip
    assert server.keys == {"Bearer secret"}


def test_conversations_are_rendered_locally_as_for_a_loaded_model(tokenizer, language):
    tokenizer.chat_template = (
        "{{ style }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>"
        "{% endfor %}"
    )
    earlier = (Turn("system", "Be kind."), Turn("user", "Who?"), Turn("assistant", "A ship."))
    decoding = Decoding(3, 0.0, 1.0, "chat", earlier, {"style": "old"})
    with CompletionsServer(language) as server:
        terms = RequestFormat(True, True)
        model = ServedModel(client_of(server), "m", tokenizer, [1], 128, decoding, terms, 2)
        rows(model, TEXTS[:1])
    encoder = PromptEncoder(tokenizer, decoding, None, None)
    local = encoder.encode(TEXTS[0]).token_ids
    talk = "And?", earlier[1:]
    assert model.encode(*talk) == encoder.encode(*talk) != encoder.encode("And?")
    assert [body["prompt"] for body in server.asked] == [list(local)]
    assert tokenizer.decode(local) == (
        "old<|start|>system\nBe kind.<|end|><|start|>user\nWho?<|end|>"
        "<|start|>assistant\nA ship.<|end|><|start|>user\nThe ship<|end|>"
    )


def test_an_empty_prompt_is_an_error_of_its_row_alone(tokenizer, language):
    with CompletionsServer(language) as server:
        found = rows(model_of(server, tokenizer), ["", "The ship"])
    assert "no tokens" in found[0].error
    assert found[1].error == ""


def test_prompt_tokens_that_no_text_gives_are_not_sent_as_text(tokenizer, language):
    model = model_of(
        SimpleNamespace(url="http://127.0.0.1:9/v1"), tokenizer, RequestFormat(False, False)
    )
    ids = tokenizer("The ship")["input_ids"]
    assert model.sent(ids) == "The ship"
    split = [token for letter in "The" for token in tokenizer(letter)["input_ids"]]
    assert tokenizer.decode(split) == "The"
    assert model.sent(split) is None or tokenizer(model.sent(split))["input_ids"] == split


# --- meeting a server --------------------------------------------------------------------------


def met(server, tokenizer, probe, parent=None, **patience):
    card = SimpleNamespace(key="v", probe=probe)
    local = LocalTokenizer(tokenizer, (1,), 128)
    return connect(client_of(server, **patience), "m", card, parent, local, GREEDY, 4)


def strict(language, *unknown, text_only=False):
    """A server that refuses fields that it does not know, and perhaps token ids."""

    def answer(body):
        if odd := [name for name in unknown if name in body]:
            raise Status(422, {"detail": f"unexpected: {odd}"})
        if text_only and not isinstance(body["prompt"], str):
            raise Status(400, {"detail": "prompt must be a string"})
        return language(body)

    return answer


@pytest.mark.parametrize(
    ("unknown", "text_only", "said"),
    [
        ((), False, ("token ids", "the server", "off")),
        (("top_k",), False, ("token ids", "the text, re-encoded", "as the server has them")),
        ((), True, ("text", "the server", "off")),
        (("min_p",), True, ("text", "the text, re-encoded", "as the server has them")),
    ],
)
def test_a_server_is_asked_as_it_can_be_and_the_manifest_says_how(
    tokenizer, language, unknown, text_only, said
):
    with CompletionsServer(strict(language, *unknown, text_only=text_only)) as server:
        found = met(server, tokenizer, language.probe())
        texts = {row.text for row in rows(found.model).values()}
    names = ("prompts_sent_as", "token_ids_from", "unasked_penalties")
    assert tuple(found.environment[name] for name in names) == said
    with CompletionsServer(language) as server:
        assert texts == {row.text for row in rows(model_of(server, tokenizer)).values()}


def test_a_server_says_who_it_is_and_nothing_that_changes_from_start_to_start(tokenizer, language):
    def answer(body):
        return language(body) | {"system_fingerprint": "vllm-9-abc", "id": str(time.time())}

    entry = {"id": "m", "owned_by": "vllm", "root": "org/m", "parent": None,
             "created": int(time.time()), "max_model_len": 64}  # fmt: skip
    with CompletionsServer(answer, models=(entry,), version="9.9") as server:
        found = met(server, tokenizer, language.probe())
    said = {k: v for k, v in found.environment.items() if k.startswith(("server_", "served"))}
    assert said.pop("server_software").startswith("BaseHTTP")
    assert said == {
        "served_model_name": "m", "server_version": "9.9", "server_owned_by": "vllm",
        "server_root": "org/m", "server_answers_as": "m", "server_fingerprint": "vllm-9-abc",
    }  # fmt: skip
    assert found.environment["backend"] == "openai-api"
    assert found.model.encode("a " * 25).fits
    assert not found.model.encode("a b " * 32).fits, "the server's window is the smaller one"


def test_another_model_is_refused(tokenizer, language):
    with (
        CompletionsServer(Language(tokenizer, turn=1)) as server,
        pytest.raises(BackendError, match="models/v: 0 of"),
    ):
        met(server, tokenizer, language.probe())


def test_a_server_that_holds_the_parent_instead_is_refused(tokenizer, language):
    """The two agree nearly everywhere, as a base and its fine-tune do."""
    parent, changed = language.probe(), list(language.probe().top_tokens)
    changed[3], changed[9], changed[11] = changed[0] + 1, changed[0] + 1, changed[0] + 1
    own = parent.model_copy(update={"top_tokens": tuple(changed)})
    with (
        CompletionsServer(language) as server,
        pytest.raises(BackendError, match=r"\(3 positions .* the parent 3 times, .* 0 times"),
    ):
        met(server, tokenizer, own, parent)
    with CompletionsServer(language) as server:
        found = met(server, tokenizer, parent, own)
    assert "3 of the 3 where" in found.agreement


def test_a_probe_that_cannot_tell_a_variant_from_its_parent_says_so(tokenizer, language):
    with CompletionsServer(language) as server:
        assert not met(server, tokenizer, language.probe(), language.probe()).unlike_parent
        assert met(server, tokenizer, language.probe()).unlike_parent


def test_a_model_that_the_server_does_not_have_is_named_with_the_nearest(tokenizer, language):
    answer = stumble(Status(404, {"error": {"message": "The model `m` does not exist."}}))
    with (
        CompletionsServer(answer, models=({"id": "mm"},)) as server,
        pytest.raises(ConfigError, match=r'no model "m" .*does not exist.*mean "mm"'),
    ):
        met(server, tokenizer, language.probe())


def test_a_server_that_reads_other_tokens_is_refused(tokenizer, language):
    def adds_one(body):
        answer = language(body)
        answer["usage"]["prompt_tokens"] += 1
        return answer

    with (
        CompletionsServer(adds_one) as server,
        pytest.raises(BackendError, match=r"request formats.* read \d+ tokens where"),
    ):
        met(server, tokenizer, language.probe())


def test_a_server_that_wants_a_key_says_where_to_put_it(tokenizer, language):
    with (
        CompletionsServer(stumble(Status(401, {"error": "Unauthorized"}))) as server,
        pytest.raises(BackendError, match="Unauthorized.*TOXTRAIL_SERVER_KEY"),
    ):
        met(server, tokenizer, language.probe())


def test_no_server_at_all_is_a_clear_error(tokenizer, language):
    gone = SimpleNamespace(url="http://127.0.0.1:9/v1")
    with pytest.raises(BackendError, match=r"/models: the connection failed .*refused"):
        met(gone, tokenizer, language.probe(), tries=2)


# --- what is said of a server that cannot be used ----------------------------------------------

KEY = "token-of-a-team-4711"


def refusing(status, body):
    return stumble(Status(status, body))


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_a_server_repeats_is_never_shown_or_kept(tokenizer, status, monkeypatch):
    monkeypatch.delenv("TOXTRAIL_SERVER_KEY", raising=False)
    body = {"error": {"message": f"Incorrect API key provided: {KEY}. See Bearer {KEY}"}}
    with CompletionsServer(refusing(status, body)) as server:
        model = model_of(server, tokenizer, key=KEY, tries=1)
        if status == 500:
            said = rows(model, TEXTS[:1])[0].error
        else:
            with pytest.raises(RefusedError) as caught:
                rows(model, TEXTS[:1])
            said = str(caught.value)
    assert "Incorrect API key" in said
    assert KEY not in said


def test_a_server_for_chat_alone_is_told_from_one_without_the_model(tokenizer, language):
    with CompletionsServer(refusing(404, {"detail": "Not Found"})) as server:
        with pytest.raises(BackendError, match="completions API") as caught:
            met(server, tokenizer, language.probe())
        server.models = ({"id": "other"},)
        with pytest.raises(ConfigError, match=r'no model "m".*There is: other'):
            met(server, tokenizer, language.probe())
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("answer", [Status(404, {}), Raw(b'{"content": "as llama.cpp"}')])
def test_a_url_without_its_last_part_is_completed(tokenizer, language, answer):
    with CompletionsServer(stumble(answer)) as server:
        right, server.url = server.url, server.url.removesuffix("/v1")
        with pytest.raises(ConfigError, match=rf"url: {right}"):
            met(server, tokenizer, language.probe(), tries=1)


def test_a_stream_and_a_page_are_named(tokenizer, language):
    with CompletionsServer(stumble(Raw(b'data: {"choices": []}\n\n'))) as server:
        with pytest.raises(BackendError, match="stream of events"):
            met(server, tokenizer, language.probe())
        server.answer = stumble(Raw(b"<!DOCTYPE html><title>Sign in</title>"))
        with pytest.raises(BackendError, match="HTML page"):
            met(server, tokenizer, language.probe(), tries=1)


def test_a_list_of_models_that_fails_is_no_reason_to_refuse(tokenizer, language):
    with CompletionsServer(language) as server:
        server.listing = stumble(Status(500, {"detail": "no cache folder"}))
        found = met(server, tokenizer, language.probe())
    assert "lists no models" in found.listing
    assert "server_lists" not in found.environment


def test_a_server_that_takes_any_name_is_recorded_with_what_it_lists(tokenizer, language):
    """As llama.cpp's does."""
    with CompletionsServer(language, models=({"id": "smol"},)) as server:
        other = met(server, tokenizer, language.probe())
        server.models = ({"id": "m"},)
        own = met(server, tokenizer, language.probe())
    assert other.environment["server_lists"] == "smol"
    assert "(it lists smol)" in other.listing
    assert "server_lists" not in own.environment

"""A guard on a server has the scores of the same guard here, or an error: never another score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from completions_server import CompletionsServer, Raw, RealAnswers, Status
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from tiny_guard import PROMPTS, SHORT, TEXTS, guard_of, options, trained_texts
from transformers import PreTrainedTokenizerFast

from toxtrail.backends.openai_api import client as client_module
from toxtrail.backends.openai_api.client import Client
from toxtrail.backends.scorers.guard import GuardScorer
from toxtrail.backends.scorers.guard_prompt import GuardPrompt, refusal_prompt
from toxtrail.backends.scorers.load import connect_scorer
from toxtrail.backends.scorers.served_guard import listed_shares
from toxtrail.config.scorer_kinds.served_guard import ServedGuardConfig
from toxtrail.errors import BackendError, ConfigError

pytestmark = pytest.mark.slow

TWO = {"answers": {"unsafe": [" Unsafe"], "safe": [" Safe"]}, **SHORT}
"""The answers that the trained guard was trained to give."""
UNCERTAIN = 1e-3


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.01)


@pytest.fixture
def answers(trained, tokenizer):
    return RealAnswers(trained, tokenizer, tokenizer.eos_token_id)


@pytest.fixture
def connected(folder, assets):
    def connect(server, concurrency=4, tries=2, **changes):
        values = options(uri=f"file:{folder}", **{**TWO, **changes}).plain()
        del values["dtype"]
        config = ServedGuardConfig.model_validate(
            {
                "max_uncertainty": UNCERTAIN,
                **values,
                "kind": "served-guard",
                "served_model_name": "m",
            }
        )
        client = Client(server.url, concurrency, 5.0, tries, None)
        return connect_scorer(config, assets, client, concurrency)

    return connect


def by_chat_form(answers):
    """Log-probabilities as llama.cpp gives them."""

    def answer(body):
        response = answers({**body, "return_tokens_as_token_ids": True})
        choice = response["choices"][0]
        (top,) = choice["logprobs"]["top_logprobs"]
        entries = [
            {"id": int(name.removeprefix("token_id:")), "token": "?", "logprob": value}
            for name, value in top.items()
        ]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
        return response

    return answer


def refusing(answers, *unknown):
    def answer(body):
        if any(name in body for name in unknown):
            raise Status(400, {"error": {"message": "unknown field"}})
        if "few" in unknown and body["logprobs"] > 5:
            raise Status(400, {"error": {"message": "at most 5 logprobs"}})
        return answers(body)

    return answer


@pytest.mark.parametrize(
    ("server_of", "named_by", "top"),
    [
        (lambda answers: answers, "id", "20"),
        (by_chat_form, "id", "20"),
        (lambda answers: refusing(answers, "top_k"), "text", "20"),
        (lambda answers: refusing(answers, "few"), "id", "5"),
    ],
    ids=["vllm", "llama.cpp", "openai", "five"],
)
def test_scores_are_those_of_the_local_guard(
    connected, answers, trained, tokenizer, server_of, named_by, top
):
    texts, prompts = trained_texts()[:20], ["Go on."] * 20
    with CompletionsServer(server_of(answers)) as server:
        served = connected(server)
        scored = served.scorer.score(texts, prompts)
        assert server.most_at_a_time <= 4
    assert served.environment["tokens_named_by"] == named_by
    assert served.environment["top_tokens"] == top
    local = guard_of(trained, tokenizer, **TWO).score(texts, prompts)
    assert {one.heads["unsafe"] > 0.5 for one in local} == {True, False}
    for here, there in zip(local, scored, strict=True):
        assert not there.error
        within = 2e-6 if min(there.heads.values()) > 0 else UNCERTAIN  # 0: not listed
        assert dict(there.heads) == pytest.approx(dict(here.heads), abs=within)
        assert there.other == pytest.approx(here.other, abs=within)
        assert there.windows == here.windows


def test_a_text_whose_score_the_listed_tokens_leave_open_has_none(
    connected, model, tokenizer, trained
):
    """With random weights, many named tokens are not among the most likely ones."""
    three = {**options().model_dump(include={"answers"}), "max_other": 0.99999}
    texts, prompts = [*trained_texts()[:10], *TEXTS], ["Go on."] * 10 + PROMPTS
    kept, failed = 0, 0
    for weights in (model, trained):
        with CompletionsServer(RealAnswers(weights, tokenizer, tokenizer.eos_token_id)) as server:
            scored = connected(server, **three).scorer.score(texts, prompts)
        local = guard_of(weights, tokenizer, **SHORT, **three).score(texts, prompts)
        for here, there in zip(local, scored, strict=True):
            if there.error:
                failed += 1
                assert not there.heads
                assert not there.is_temporary
            else:
                kept += 1
                assert dict(there.heads) == pytest.approx(dict(here.heads), abs=UNCERTAIN)
    assert failed > 0
    assert kept + failed == 2 * len(texts)


@given(
    logits=st.lists(st.floats(-30, 5), min_size=4, max_size=40),
    count=st.integers(1, 40),
    split=st.integers(1, 3),
)
def test_the_share_of_all_tokens_is_within_the_uncertainty_of_that_of_the_listed_ones(
    logits, count, split
):
    logs = log_softmax(logits)
    order = np.argsort(-logs)[:count]
    answers = [list(range(split)), list(range(split, 4))]
    shares = listed_shares({int(i): float(logs[i]) for i in order}, answers)
    named = np.array([np.exp(logs[tokens]).sum() for tokens in answers])
    if np.isfinite(shares.values).all():
        off = np.abs(shares.values[:-1] - named / named.sum())
        assert off.max() <= shares.uncertainty + 1e-9
    else:
        assert shares.uncertainty == 1
    if set(range(4)) <= set(order.tolist()):
        assert shares.uncertainty == pytest.approx(0, abs=1e-9)
        assert shares.values[-1] == pytest.approx(1 - named.sum(), abs=1e-9)


def test_another_answer_is_an_error_as_for_the_local_guard(connected, answers, trained, tokenizer):
    texts, prompts = trained_texts()[:20], ["Go on."] * 20
    limit = float(
        np.median([s.other for s in guard_of(trained, tokenizer, **TWO).score(texts, prompts)])
    )
    with CompletionsServer(answers) as server:
        scored = connected(server, max_other=limit).scorer.score(texts, prompts)
    for one in scored:
        assert bool(one.error) == (one.other > limit)
    assert {bool(one.error) for one in scored} == {True, False}


def changed(choice_of):
    """A server whose answers are changed."""

    def of(answers):
        def answer(body):
            response = answers(body)
            response["choices"][0] = choice_of(response["choices"][0])
            return response

        return answer

    return of


def raising(kind):
    def of(answers):
        def answer(body):
            raise kind

        return answer

    return of


def with_top(change):
    return changed(lambda choice: {**choice, "logprobs": {"top_logprobs": [change(
        choice["logprobs"]["top_logprobs"][0])]}})  # fmt: skip


BAD = {
    "no log-probabilities": changed(lambda choice: {**choice, "logprobs": None}),
    "an empty list": changed(lambda choice: {**choice, "logprobs": {"top_logprobs": []}}),
    "another form": changed(lambda choice: {**choice, "logprobs": {"probs": [1]}}),
    "logits": with_top(lambda top: {name: value + 9 for name, value in top.items()}),
    "not a number": with_top(lambda top: dict.fromkeys(top, math.nan)),
    "too much probability": with_top(lambda top: dict.fromkeys(top, -0.5)),
    "truncated": raising(Raw(b'{"choices": [{"te', missing=40)),
    "a page": raising(Raw(b"<html>log in</html>")),
    "broken": raising(Status(500, "boom")),
    "another model": lambda answers: lambda body: answers({**body, "model": "other"}),
}


@pytest.mark.parametrize("bad", [name for name in BAD if name != "another model"])
def test_a_server_that_gives_no_log_probabilities_is_refused_at_the_start(connected, answers, bad):
    with CompletionsServer(BAD[bad](answers)) as server, pytest.raises(BackendError):
        connected(server, tries=1)


@pytest.mark.parametrize("bad", BAD)
def test_an_answer_that_cannot_be_used_is_an_error_of_its_text_that_is_tried_again(
    connected, answers, bad
):
    texts = trained_texts()[:6]
    with CompletionsServer(answers) as server:
        scorer = connected(server, tries=2).scorer
        expected = scorer.score(texts, ["Go on."] * 6)
        broken = server.asked[-1]["prompt"]
        server.answer = lambda body: (BAD[bad](answers) if body["prompt"] == broken else answers)(
            body
        )
        scored = scorer.score(texts, ["Go on."] * 6)
        server.answer = answers
        again = scorer.score(texts, ["Go on."] * 6)
    (failed,) = [one for one in scored if one.error]
    assert failed.is_temporary
    assert not failed.heads
    assert failed.other is None
    assert [one for one in scored if not one.error] == [
        one for one, other in zip(expected, scored, strict=True) if not other.error
    ]
    assert again == expected


def test_tokens_under_wrong_names_give_no_score(connected, answers):
    wrong = with_top(lambda top: {f"x{name}": value for name, value in top.items()})
    with CompletionsServer(wrong(answers)) as server:
        scored = connected(server).scorer.score(trained_texts()[:2], ["Go on."] * 2)
        golden = [{"text": "mill", "prompt": "Go on.", "score": 0.9}]
        with pytest.raises(BackendError, match="golden text 1"):
            connected(server, golden=golden)
    assert all(one.error and not one.heads for one in scored)


def test_tokens_of_equal_text_cannot_be_told_apart(connected, answers, monkeypatch):
    """As with SentencePiece, where `yes` with and without a space have one text."""
    decoded = PreTrainedTokenizerFast.batch_decode

    def stripped(self, *arguments, **options):
        return [
            text.strip().lower().removeprefix("un") for text in decoded(self, *arguments, **options)
        ]

    with CompletionsServer(refusing(answers, "top_k")) as server:
        connected(server)
        monkeypatch.setattr(PreTrainedTokenizerFast, "batch_decode", stripped)
        with pytest.raises(BackendError, match=r"answers\.unsafe"):
            connected(server)


def test_golden_texts_are_compared_with_the_server(connected, answers, trained, tokenizer):
    (here,) = guard_of(trained, tokenizer, **TWO).score(["mill mill"], ["Go on."])
    golden = {"text": "mill mill", "prompt": "Go on.", "score": here.heads["unsafe"]}
    with CompletionsServer(answers) as server:
        connected(server, golden=[golden])
        with pytest.raises(BackendError, match="golden text 1"):
            connected(server, golden=[{**golden, "score": abs(here.heads["unsafe"] - 0.5)}])


def test_a_name_that_the_server_does_not_have_is_said(connected, answers):
    missing = raising(Status(404, {"error": {"message": "no such model"}}))
    with (
        CompletionsServer(missing(answers), models=({"id": "mm"},)) as server,
        pytest.raises(ConfigError, match="served_model_name"),
    ):
        connected(server)


def test_the_servers_window_limits_the_input(connected, answers):
    with CompletionsServer(answers, models=({"id": "m", "max_model_len": 65},)) as server:
        served = connected(server)
        (scored,) = served.scorer.score(["mill " * 100], ["Go on."])
        assert served.environment["window"] == "64"
        assert max(len(body["prompt"]) for body in server.asked) <= 64
    assert scored.windows > 1


def test_a_served_guard_is_asked_about_refusals_too(connected, answers, trained, tokenizer):
    """The trained guard answers Safe or Unsafe to any question, which is enough here."""
    asked = {
        "refusal": {
            "prefix": "Refusal:",
            "answers": {"refused": [" Unsafe"], "answered": [" Safe"]},
            "head": "refused",
        },
        "max_other": 0.9999,
    }
    texts, prompts = trained_texts()[:6], ["Go on."] * 6
    prompt = refusal_prompt(tokenizer, options(**{**TWO, **asked}), 512, "g")
    chosen = options(**{**TWO, **asked})
    local = GuardScorer(
        trained, GuardPrompt(tokenizer, chosen, 512, "g"), 0.9999, 2, 512, 4, None, prompt
    ).score(texts, prompts)
    with CompletionsServer(answers) as server:
        scorer = connected(server, **asked).scorer
        scored = scorer.score(texts, prompts)
        real = server.answer
        server.answer = lambda body: raising(Status(500))(real)(body) if "Refusal" in (
            tokenizer.decode(body["prompt"])) else real(body)  # fmt: skip
        (broken,) = scorer.score(texts[:1], prompts[:1])
    known = [
        (here, there)
        for here, there in zip(local, scored, strict=True)
        if there.refusal is not None
    ]
    assert known
    for here, there in known:
        assert there.refusal == pytest.approx(here.refusal, abs=UNCERTAIN)
    assert broken.refusal is None
    assert broken.is_temporary
    assert not broken.error

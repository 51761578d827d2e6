"""Variants whose weights a server holds: a real one, on loopback, with the lab's own weights."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from completions_server import CompletionsServer, RealAnswers

pytestmark = pytest.mark.slow


@contextmanager
def serving(lab, variant):
    """The weights of a variant, loaded by transformers and peft and nothing of toxtrail."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = lab.root / "assets/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapter = lab.root / f"models/{variant}/adapters/{variant}"
    if adapter.is_dir():
        model = PeftModel.from_pretrained(model, str(adapter))
    answers = RealAnswers(model, AutoTokenizer.from_pretrained(folder), stop=1)
    with CompletionsServer(answers, models=({"id": f"org/{variant}", "root": "x"},)) as server:
        yield server


def at(server):
    return {"url": server.url, "concurrency": 3, "timeout": 30.0, "tries": 2}


def serve(lab, **servers):
    """Say in params.yaml that these variants are served."""
    known = lab.params["variants"]
    lab.edit(
        variants={v: {**known[v], "served_as": f"org/{v}"} for v in servers},
        runtime={"servers": {v: at(server) for v, server in servers.items()}},
    )


def rows_of(lab, variant):
    return pq.read_table(lab.root / f"data/generations/tiny/{variant}.parquet").to_pylist()


def test_served_weights_say_what_they_say_here_and_every_audit_says_that_a_server_did(breakable):
    lab, before = breakable, {v: rows_of(breakable, v) for v in ("base", "tuned")}
    with serving(lab, "base") as base, serving(lab, "tuned") as tuned:
        serve(lab, base=base)
        mixed = lab.toxtrail("run", code=1)
        assert "tuned: backend is missing, not openai-api" in mixed.stdout + mixed.stderr
        serve(lab, base=base, tuned=tuned)
        status = lab.json("status")["stages"]
        assert "generate@tuned" in status
        assert "generate@base" not in status, "where it is served is speed, and changed nothing"
        lab.toxtrail("run")
        assert {type(body["prompt"]) for body in base.asked} == {list}
    assert {v: rows_of(lab, v) for v in before} == before

    path = "data/generations/tiny/tuned.parquet"
    manifest = json.loads(pq.read_schema(lab.root / path).metadata[b"toxtrail.manifest"])
    environment = manifest["environment"]
    assert environment["backend"] == "openai-api"
    assert environment["server_root"] == "x"
    audit = lab.toxtrail("audit", "tuned").stdout
    assert "made by a server: that it held these weights is its own claim" in audit
    (weak,) = [c for c in lab.json("verify")["checks"] if "made by a server" in c["detail"]][:1]
    assert (weak["link"], weak["outcome"]) == ("generations", "weak")
    again = lab.toxtrail("audit", "tuned", "--reproduce", "4").stdout
    assert "4 of 4 generations reproduced exactly" in again
    assert "batch plan: the server's" in again


def test_a_name_that_the_server_does_not_have_and_a_server_that_is_not_said(breakable):
    lab = breakable
    with serving(lab, "base") as server:
        serve(lab, base=server)
        lab.edit(runtime={"servers": None})
        said = lab.toxtrail("stage", "generate", "base", code=1).stderr
        assert "runtime.servers.base must say where" in said
        serve(lab, tuned=server)
        server.answer = RefusingStranger(server.answer, "org/base")
        said = lab.toxtrail("stage", "generate", "tuned", code=1).stderr
        assert 'The server has no model "org/tuned"' in said
        assert "There is: org/base." in said


class RefusingStranger:
    """As vLLM does it."""

    def __init__(self, answer, name):
        self.answer, self.name = answer, name

    def __call__(self, body):
        from completions_server import Status

        if body["model"] != self.name:
            raise Status(404, {"error": {"message": f"The model `{body['model']}` is not here."}})
        return self.answer(body)


def test_a_run_on_a_server_stops_at_once_and_goes_on_where_it_was(breakable):
    lab, before = breakable, rows_of(breakable, "base")
    with serving(lab, "base") as server:
        real, made = server.answer, []

        def slow_after_some(body):
            if body["max_tokens"] > 1:
                made.append(body["prompt"])
                if len(made) > 5:
                    time.sleep(60)
            return real(body)

        server.answer = slow_after_some
        serve(lab, base=server)
        process = lab.start("stage", "generate", "base")
        deadline = time.monotonic() + 120
        while len(made) < 8 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = next(line for line in process.stdout if line.startswith("Interrupted"))
        assert "Finished work is kept" in said
        assert process.wait(25) == 130, "and without an answer that is 60 s away (time-out: 30 s)"
        server.answer, server.asked = real, []
        lab.toxtrail("stage", "generate", "base")
        again = [body for body in server.asked if body["max_tokens"] > 1]
    assert rows_of(lab, "base") == before
    assert len(again) == len(before) - 5

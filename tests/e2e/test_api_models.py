"""Models that are known by their name on a chat-only server: from params.yaml to verify."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from completions_server import ChatAnswers, CompletionsServer, Status, chat

pytestmark = pytest.mark.slow

AZURE = {
    "error": {
        "message": "The response was filtered due to the prompt triggering our policy.",
        "code": "content_filter",
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}


def at(server):
    return {"url": server.url, "concurrency": 3, "timeout": 30.0, "max_attempts": 2}


def measure(lab, **servers):
    """Make a family of models that are names on these servers."""
    first = next(iter(servers))
    others = {"models": {}, "finetunes": {}, "variants": {}, "families": {}}
    (lab.root / "params.yaml").write_text(json.dumps({**lab.params, **others}), "utf-8")
    lab.edit(
        generation={"template": "chat", "system": "Be brief.", "max_new_tokens": 8},
        models={name: {"uri": f"api:org/{name}"} for name in servers},
        variants={
            name: {"family": "apis", "role": "api", **({} if name == first else {"parent": first})}
            for name in servers
        },
        finetunes={},
        families={"apis": {"reference": first, "variants": list(servers)}},
        runtime={"servers": {name: at(server) for name, server in servers.items()}},
    )


def rows_of(lab, variant):
    return pq.read_table(lab.root / f"data/generations/apis/{variant}.parquet").to_pylist()


def manifest_of(lab, variant):
    path = lab.root / f"data/generations/apis/{variant}.parquet"
    return json.loads(pq.read_schema(path).metadata[b"toxtrail.manifest"])


def test_names_on_a_server_are_measured_compared_and_weak_everywhere(lab):
    lab.toxtrail("run", "prompts")
    texts = pq.read_table(lab.root / "data/prompts.parquet").column("text").to_pylist()
    quirks = {
        texts[0]: Status(400, AZURE),
        texts[1]: chat(None, refusal="I cannot help with that."),
        texts[2]: chat("a kind goose", reasoning_content="The user said so."),
    }
    with (
        CompletionsServer(ChatAnswers(), models=({"id": "org/old"},)) as old,
        CompletionsServer(ChatAnswers(("max_tokens", "seed", "top_k"), quirks)) as new,
    ):
        measure(lab, old=old, new=new)
        lab.toxtrail("check")
        plan = lab.toxtrail("plan", "--no-probe", "--offline").stdout
        assert f"old: at most {len(texts)} requests to its server" in " ".join(plan.split())
        lab.toxtrail("run")
        asked = [body for body in new.asked if body["messages"][-1]["content"] != "Hello."]
        again = lab.toxtrail("audit", "new", "--reproduce", "3").stdout
    rows = {row["prompt_id"]: row for row in rows_of(lab, "new")}
    states = [row["state"] for row in rows.values()]
    assert (states.count("filtered"), len(states)) == (2, len(texts))
    thinking = next(row for row in rows.values() if row["thought"])
    assert (thinking["text"], thinking["thought_tokens"]) == ("a kind goose", 4)
    assert {body["messages"][0]["content"] for body in asked} == {"Be brief."}
    assert len(asked) == len(texts)
    assert not {"max_tokens", "seed", "top_k"} & set().union(*asked)

    manifest = manifest_of(lab, "new")
    assert manifest["params"]["api_model"] == "org/new"
    assert "dtype" not in manifest["params"]["generation"]
    assert manifest["environment"]["token_limit_sent_as"] == "max_completion_tokens"
    assert "seed" in manifest["environment"]["fields_not_sent"]
    assert manifest["api"]["models"] == ["m-2026-01-01"]
    assert manifest["api"]["fingerprints"] == ["fp_1"]
    assert old.url not in json.dumps(manifest)

    check = lab.toxtrail("check").stdout
    audit = lab.toxtrail("audit", "new").stdout
    compared = lab.toxtrail("compare").stdout
    runs = lab.toxtrail("runs").stdout
    card = lab.toxtrail("card", "new").stdout
    report = (lab.root / "report/index.html").read_text("utf-8")
    for shown in (check, audit, card, report):
        assert "which weights" in " ".join(shown.split())
    for shown in (compared, card, report, lab.toxtrail("gate", code=None).stdout):
        assert "Weak, as not generated from verified weights" in " ".join(shown.split())
    assert "2 of 3 are weak" in runs
    assert "new 2 (2 withheld by a server)" in " ".join(compared.split())
    everything = lab.toxtrail("compare", "--all-tables", "--explain").stdout
    assert "Answers withheld by a server" in " ".join(everything.split())
    assert "2 filtered" in everything
    assert "3 of 3 generations reproduced exactly" in again
    verified = lab.json("verify")
    assert {c["outcome"] for c in verified["checks"]} <= {"ok", "weak"}
    weak = [c for c in verified["checks"] if c["outcome"] == "weak" and "org/new" in c["detail"]]
    assert {c["link"] for c in weak} == {"generations", "model cards"}

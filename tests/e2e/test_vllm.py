"""generation.engine: vllm, with a stand-in for vLLM that serves the weights it is started with."""

from __future__ import annotations

import json
import signal
import time

import psutil
import pyarrow.parquet as pq
import pytest
import vllm_standin

pytestmark = pytest.mark.slow
SECONDS = 120


def use(lab, change=""):
    """Set the engine; return the stand-in's folder."""
    folder = lab.root / "standin"
    program = vllm_standin.install(folder, change)
    lab.edit(
        generation={"engine": "vllm"}, runtime={"vllm": {"command": str(program), "concurrency": 3}}
    )
    return folder


def wait(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def require_gone(folder, starts):
    assert len(vllm_standin.pids(folder)) == starts
    wait(lambda: not any(psutil.pid_exists(pid) for pid in vllm_standin.pids(folder)))


def table_of(lab, variant):
    return pq.read_table(lab.root / f"data/generations/tiny/{variant}.parquet")


def test_rows_are_those_of_this_process_and_no_audit_calls_them_a_claim(breakable):
    lab = breakable
    before = {v: table_of(lab, v).to_pylist() for v in ("base", "tuned")}
    folder = use(lab)
    assert {"generate@base", "generate@tuned"} <= set(lab.json("status")["stages"])
    lab.toxtrail("stage", "generate", "base")
    done = lab.toxtrail("stage", "generate", "tuned")
    assert "does not distinguish tuned from base" in " ".join(done.stderr.split())
    require_gone(folder, starts=2)
    assert {v: table_of(lab, v).to_pylist() for v in before} == before

    manifest = json.loads(table_of(lab, "tuned").schema.metadata[b"toxtrail.manifest"])
    assert manifest["params"]["generation"]["engine"] == "vllm"
    environment = manifest["environment"]
    assert (environment["backend"], environment["vllm"]) == ("vllm", "0.32.0")
    assert environment["batch_invariant"] == "off"
    audit = lab.json("audit", "data/generations/tiny/tuned.parquet")
    assert "vLLM 0.32.0" in audit["facts"]["engine"]
    assert not [line for line in audit["weak"] if "server" in line]
    verified = json.loads(lab.toxtrail("verify", "--json", code=3).stdout)  # scores are outdated
    checks = [c for c in verified["checks"] if "vLLM" in c["name"]]
    assert [c["outcome"] for c in checks] == ["ok", "ok"]
    again = lab.toxtrail("audit", "data/generations/tiny/tuned.parquet", "--reproduce", "4")
    assert "4 of 4 generations reproduced exactly" in again.stdout


def test_other_weights_are_refused_before_a_row_is_made(breakable):
    folder = use(breakable, "wrong")
    done = breakable.toxtrail("stage", "generate", "base", code=1)
    assert "do not match the weights" in done.stderr
    assert "traceback" not in done.stderr.lower()
    require_gone(folder, starts=1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=str)
def test_a_killed_stage_leaves_no_server(breakable, number):
    folder = use(breakable, "slow")
    stage = breakable.start("stage", "generate", "base")
    for line in stage.stdout:
        if "match the card" in line:
            break
    stage.send_signal(number)
    stage.communicate()
    assert stage.returncode != 0
    require_gone(folder, starts=1)


def test_check_and_the_stage_name_a_missing_program(lab):
    use(lab)
    lab.edit(runtime={"vllm": {"command": "/nowhere/vllm"}})
    for command in (["check"], ["doctor"]):
        output = lab.toxtrail(*command, code=1).stdout
        assert "/nowhere/vllm" in " ".join(output.split())

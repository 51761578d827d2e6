"""`toxtrail plan` and `check --online`: what the hub, the disk and this machine say, beforehand."""

from __future__ import annotations

import json
import shutil

import pytest
from fake_hub import COMMIT, FakeHub, model, pointed_at

LLAMA_7B = 6_738_415_616
"""Weights of the repo org/big."""


@pytest.fixture
def planned(run):
    def plan(path, *more, code=0):
        return json.loads(run("plan", "--params", path, "--json", "--no-probe", *more, code=code))

    return plan


def test_a_plan_says_stages_sizes_tokens_and_memory_and_downloads_nothing(
    hub, written, tmp_path, planned
):
    found = planned(written(big="hf:org/big", small="hf:org/small"))
    stages = {row["stage"]: row for row in found["stages"]}
    assert (stages["generate"]["to_run"], stages["generate"]["tokens"]) == (2, 2 * 100 * 20)
    big = next(one for one in found["downloads"] if one["uri"] == "hf:org/big")
    assert big["missing"] == 13_476_831_232 + len(hub.models["org/big"].files["config.json"])
    need = next(one for one in found["memory"] if one["key"] == "big")
    assert need["weights"] == pytest.approx(4 * LLAMA_7B + (1 << 30))
    assert not list((tmp_path / "hub-cache").glob("**/*.safetensors"))
    assert not (tmp_path / "hub-cache").exists()


def test_what_is_in_the_cache_is_not_downloaded_again(hub, written, tmp_path, planned):
    snapshot = tmp_path / "hub-cache/models--org--small/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, content in hub.models["org/small"].files.items():
        (snapshot / name).write_bytes(content)
    found = planned(written(small=f"hf:org/small@{COMMIT}"))
    own = next(one for one in found["downloads"] if "small" in one["uri"])
    assert (own["state"], own["missing"]) == ("here", 0)


def test_what_would_stop_a_run_is_a_problem_and_fails_only_if_strict(hub, written, planned):
    hub.models["org/gated"] = model()
    hub.models["org/gated"].gated, hub.models["org/gated"].open_to_us = "manual", False
    path = written(gated="hf:org/gated", gone="hf:org/gone")
    said = planned(path)["problems"]
    assert any("models.gated" in line and "license must be accepted" in line for line in said)
    assert any("models.gone" in line and "no such repo" in line for line in said)
    planned(path, "--strict", code=1)
    planned(written(small="hf:org/small"), "--strict")


def test_a_model_that_does_not_fit_is_a_problem(hub, written, run):
    found = json.loads(run("plan", "--params", written(big="hf:org/big"), "--json"))
    needs = {one["key"]: one["fits"] for one in found["memory"]}
    total = found["speed"]["memory_total"]
    assert needs["big"] == (total >= 4 * LLAMA_7B + (1 << 30))
    assert any("generate@big" in line for line in found["problems"]) == (not needs["big"])


def test_a_disk_too_small_is_a_problem(hub, written, monkeypatch, planned):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 1000))
    found = planned(written(big="hf:org/big"))
    assert any("needed, 0.0 GiB free" in line for line in found["problems"])


def test_without_the_hub_sizes_are_unknown_and_one_question_is_enough(
    written, monkeypatch, tmp_path, planned
):
    silent = FakeHub()
    silent.server_close()
    pointed_at(silent, monkeypatch, tmp_path)
    found = planned(written(big="hf:org/big", small="hf:org/small"))
    assert {one["missing"] for one in found["downloads"]} == {None}
    assert {one["state"] for one in found["downloads"]} == {"unreachable"}
    assert found["disk"][0]["needs_more"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [("a/Llama-3.1-8B-Instruct", 8), ("a/llama2_7b_chat", 7), ("a/gemma-2-2b-it", 2),
     ("a/tiny-135M", 0.135), ("a/gemma-2b-bnb-4bit", 2), ("a/Phi-3-mini-4k", None)],
)  # fmt: skip
def test_where_nobody_can_be_asked_a_size_in_a_name_is_a_guess_and_called_one(
    written, planned, name, billions
):
    found = planned(written(base=f"hf:{name}"), "--offline")
    own = next(one for one in found["downloads"] if one["uri"] == f"hf:{name}")
    assert own["guessed"] == (billions is not None)
    assert own["missing"] == (None if billions is None else pytest.approx(2e9 * billions))


def test_a_gpu_that_is_not_here_is_planned_for_by_its_data_sheet(hub, written, run):
    path = written(big="hf:org/big")
    found = json.loads(
        run("plan", "--params", path, "--json", "--device", "t4", "--strict", code=1)
    )
    assert found["speed"]["memory_total"] == 16e9
    facts = ("generate@big needs 26.1 GiB", "NVIDIA T4")
    assert any(all(fact in problem for fact in facts) for problem in found["problems"])
    times = {
        name: json.loads(run("plan", "--params", path, "--json", "--device", name))["stages"]
        for name in ("t4", "h100")
    }
    slow, fast = (next(r for r in times[n] if r["stage"] == "generate") for n in times)
    assert slow["seconds"] > fast["seconds"]


def test_offline_asks_nobody(hub, written, planned):
    planned(written(small="hf:org/small"), "--offline")
    assert hub.asked == []


def test_people_read_tables_with_a_measured_time(hub, written, run):
    hub.models["org/small"].parameters = 1_000_000
    said = run("plan", "--params", written(small="hf:org/small"))
    for part in ("Resources of a run", "To download", "Memory", "Disk", "GFLOP/s", "problem(s)."):
        assert part in said
    assert "orders of magnitude" in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--preset", "papper"], 1, 'Unknown preset "papper"'),
        (["--preset", "a", "--params", "params.yaml"], 2, "--params"),
        (["nofamily", "--params", "params.yaml", "--no-probe"], 1, '"nofamily"'),
        (["--effect", "0.1", "--preset", "a"], 2, "--effect cannot be combined"),
    ],
)
def test_wrong_use_is_said(written, monkeypatch, arguments, code, said, run):
    path = written(small="hf:org/small")
    monkeypatch.chdir(path.parent)
    assert said in run("plan", *arguments, code=code)


def test_a_licence_that_forbids_is_noted(hub, written, planned):
    hub.models["org/small"].card["license"] = "cc-by-nc-4.0"
    found = planned(written(small="hf:org/small"))
    assert any("cc-by-nc-4.0: no commercial use" in note for note in found["notes"])

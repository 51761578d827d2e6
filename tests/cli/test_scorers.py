"""`toxtrail scorers`: what is listed, what is written, and that nothing else changes."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from fake_hub import COMMIT, Repo, pointed_at, serving

from toxtrail.cli import cli
from toxtrail.config.load import load_config


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as own:
        pointed_at(own, monkeypatch, tmp_path)
        own.models["Qwen/Qwen3Guard-Gen-0.6B"] = Repo(files={"config.json": b"{}"})
        yield own


@pytest.fixture
def lab(written):
    return written(base="hf:org/Base").parent


@pytest.fixture
def run(lab):
    def call(*words):
        return CliRunner().invoke(cli, ["-C", str(lab), "scorers", *words])

    return call


def test_the_list_says_what_each_scorer_reads_and_whether_it_is_measured(run):
    rows = {row["name"]: row for row in json.loads(run("--json").output)}
    assert rows["qwen3guard-gen-0.6b"]["sees"] == "prompt+response"
    assert rows["wildguard"]["gated"]
    assert not any(row["measured"] for row in rows.values())
    text = run().output
    assert all(name in text for name in rows)


def test_a_scorer_is_added_at_the_hubs_present_commit(run, lab, hub):
    before = (lab / "params.yaml").read_text("utf-8")
    result = run("add", "qwen3guard-gen-0.6b", "--key", "guard", "--json")
    assert result.exit_code == 0, result.output
    entry = load_config(lab / "params.yaml").scoring.scorers["guard"]
    assert entry.uri == f"hf:Qwen/Qwen3Guard-Gen-0.6B@{COMMIT}"
    assert entry.head_name == "sum(unsafe, controversial)"
    assert entry.sees_prompt
    assert load_config(lab / "params.yaml").posterior.threshold == {"j": 0.5, "guard": 0.5}
    after = (lab / "params.yaml").read_text("utf-8").splitlines()
    assert [line for line in before.splitlines() if line not in after] == []
    assert json.loads(result.output)["written"]


def test_a_dry_run_writes_nothing(run, lab):
    before = (lab / "params.yaml").read_bytes()
    assert run("add", "detoxify-unbiased", "--no-pin", "--dry-run").exit_code == 0
    assert (lab / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [("add", "nothing"), ("add", "wildguard", "--key", "j", "--no-pin"), ("measure", "nothing")],
)
def test_a_wrong_name_is_refused_and_writes_nothing(run, lab, words):
    before = (lab / "params.yaml").read_bytes()
    assert run(*words).exit_code == 1
    assert (lab / "params.yaml").read_bytes() == before


def test_a_repo_that_the_hub_lacks_is_refused_with_a_way_out(run, lab, hub):
    before = (lab / "params.yaml").read_bytes()
    result = run("add", "wildguard")
    assert result.exit_code == 1
    assert "--no-pin" in result.output
    assert (lab / "params.yaml").read_bytes() == before


def test_golden_texts_are_measured_by_the_first_run_that_has_the_weights(run, lab, tiny_judge):
    values = yaml.safe_load((lab / "params.yaml").read_text("utf-8"))
    values["scoring"]["scorers"]["j"] = {
        "kind": "hf", "uri": "file:judge", "head": "LABEL_1", "activation": "softmax",
        "golden": [{"text": "You are kind.", "score": None}], "golden_tolerance": 0.001,
    }  # fmt: skip
    (lab / "params.yaml").write_text(yaml.safe_dump(values), "utf-8")
    tiny_judge(lab / "judge")
    assert golden_notes(lab) == ["scoring.scorers.j.golden: 1 without a score"]
    dry = json.loads(run("measure", "--dry-run", "--json").output)
    result = json.loads(run("measure", "--json").output)
    assert result == dry
    (golden,) = load_config(lab / "params.yaml").scoring.scorers["j"].golden
    assert golden.score == result["j"][0]
    assert 0 < golden.score < 1
    assert json.loads(run("measure", "--json").stdout) == {}
    assert golden_notes(lab) == []


def golden_notes(lab):
    done = CliRunner().invoke(cli, ["-C", str(lab), "check", "--json"])
    notes = json.loads(done.stdout)["notes"]
    return [note.partition(",")[0] for note in notes if ".golden: " in note]

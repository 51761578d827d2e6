"""The rehearsal leaves nothing out of the preset that it rehearses."""

from __future__ import annotations

import json

import forks
import pytest
import rehearsal
import yaml
from rehearsal import Rehearsal, Took, rehearse, table
from rehearse import derived, tiny

from toxtrail.config.load import parse_config
from toxtrail.pipeline import PIPELINE
from toxtrail.scaffold import preset_path

PRESETS = ["hub", "paper"]


@pytest.fixture
def no_files(monkeypatch):
    """Stand-ins are named, not made."""
    for name in ("write_model", "write_adapter", "write_classifier", "write_detoxify"):
        monkeypatch.setattr(tiny, name, lambda *_: None)
    monkeypatch.setattr(tiny, "write_source", lambda *_: None)


def read(preset):
    return yaml.safe_load(preset_path(preset).read_text("utf-8"))


@pytest.mark.parametrize("preset", PRESETS)
def test_it_has_the_presets_variants_and_stages_and_nothing_from_a_hub(preset, no_files, tmp_path):
    own, made = read(preset), derived.rehearsed(read(preset), tmp_path)
    config = parse_config(made, "params.yaml")
    for section in ("models", "finetunes", "variants", "families"):
        assert list(made[section]) == list(own[section])
    assert made["variants"] == own["variants"]
    assert list(made["prompts"]["subsets"]) == list(own["prompts"]["subsets"])
    assert all(source.uri.startswith("file:assets/") for _, source in config.sources())


@pytest.mark.parametrize("preset", PRESETS)
def test_other_weights_get_other_stand_ins(preset, no_files, tmp_path):
    own, made = read(preset), derived.rehearsed(read(preset), tmp_path)
    assert len({m["uri"] for m in own["models"].values()}) == len(
        {m["uri"] for m in made["models"].values()}
    )


@pytest.mark.parametrize("repo", sorted(set(derived.repos_of(read("paper")))))
def test_a_stand_in_has_the_architecture_of_its_model(repo):
    import torch
    from transformers import AutoModelForCausalLM

    kind = tiny.architecture(repo)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny.config_of(kind))
    assert type(model).__name__ == f"{kind}ForCausalLM"
    assert ("gemma" in repo) == kind.startswith("Gemma")
    assert ("microsoft/Phi" in repo) == (kind == "Phi3")


def test_an_unknown_model_is_an_error_and_no_guess():
    with pytest.raises(ValueError, match="add its architecture"):
        tiny.architecture("someone/new-thing")


def test_data_have_the_shape_of_their_data_sets(tmp_path):
    tiny.write_source("allenai/real-toxicity-prompts/prompts.jsonl", tmp_path / "prompts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert {"text", *tiny.PERSPECTIVE} == set(rows[0]["prompt"])
    assert any(row["prompt"]["toxicity"] is None for row in rows)
    tiny.write_source("Song-SW/CEB/CEB-Continuation-T/age.json", tmp_path / "age.json")
    assert {"prompt", "bias_type"} == set(json.loads((tmp_path / "age.json").read_text())[0])


def test_the_table_adds_up_what_each_stage_took():
    took = [Took("(DVC's start)", 1.0), Took("score@a", 2.0), Took("score@b", 4.0)]
    lines = table(Rehearsal(took, 7.0, [])).splitlines()
    assert lines[2].split() == ["score", "2", "6.0", "3.0"]
    assert lines[-1].split() == ["all", "2", "7.0", "3.5"]


@pytest.mark.slow
def test_two_families_of_the_paper_go_through_every_stage(tmp_path, monkeypatch):
    """All six take a few minutes more: `make rehearsal`. The commands are forks here."""
    monkeypatch.setattr(rehearsal, "_command", lambda: [str(forks.programs() / "toxtrail")])
    found = rehearse(tmp_path / "two", "paper", ("phi35-mini", "gemma2-2b"))
    assert found.missing == []
    ran = {one.name.partition("@")[0] for one in found.took}
    assert {stage.name for stage in PIPELINE} <= ran
    assert sum(one.name.startswith("track@") for one in found.took) == 8

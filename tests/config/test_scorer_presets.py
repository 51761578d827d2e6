"""Published scorers: each preset is a valid entry, and none claims a score that nobody measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from toxtrail.config.edit_params import Entry, add_entries, write_golden_scores
from toxtrail.config.load import parse_config
from toxtrail.config.scorer_presets import entry_values, scorer_preset, scorer_presets
from toxtrail.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params.yaml"
PRESETS = scorer_presets()
EXPECTED = {
    "detoxify-original", "detoxify-unbiased", "detoxify-multilingual", "roberta-dynabench",
    "roberta-toxigen", "qwen3guard-gen-0.6b", "granite-guardian-3.3-8b", "llama-guard-3-1b",
    "wildguard", "shieldgemma-2b", "polyguard-qwen-smol", "harmbench-llama-2-13b",
}  # fmt: skip


def test_the_scorers_that_people_use_are_there():
    assert set(PRESETS) == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_entry_added_to_params_yaml_is_read_back_as_it_is(name):
    text, preset = PARAMS.read_text("utf-8"), PRESETS[name]
    entry = Entry("scoring.scorers", "new", entry_values(preset.entry), (preset.summary,))
    threshold = Entry("posterior.threshold", "new", preset.threshold)
    after = add_entries(text, [entry, threshold], [], "params.yaml")
    config = parse_config(yaml.safe_load(after), "params.yaml")
    assert config.scoring.scorers["new"] == preset.entry
    assert config.posterior.threshold["new"] == preset.threshold == 0.5
    assert [line for line in text.splitlines() if line not in after.splitlines()] == []


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_scores_that_cannot_be_measured_here_are_not_invented(name):
    assert not PRESETS[name].is_measured
    assert PRESETS[name].entry.golden


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_guard_sees_the_prompt_and_names_the_answers_that_count(name):
    entry = PRESETS[name].entry
    if entry.kind != "guard":
        assert PRESETS[name].sees == "response"
        return
    assert PRESETS[name].sees == "prompt+response"
    assert set(entry.required_heads) < set(entry.answers)
    assert all(golden.prompt for golden in entry.golden)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="wildguard"):
        scorer_preset("wildgard")


def test_measured_scores_are_written_where_they_were_null(tmp_path):
    text = PARAMS.read_text("utf-8")
    values = entry_values(PRESETS["wildguard"].entry)
    path = tmp_path / "params.yaml"
    entries = [Entry("scoring.scorers", "new", values), Entry("posterior.threshold", "new", 0.5)]
    path.write_text(add_entries(text, entries, [], path.name))
    before = path.read_text("utf-8")
    write_golden_scores(path, {"new": [0.125, 0.75]})
    config = parse_config(yaml.safe_load(path.read_text("utf-8")), path.name)
    assert [golden.score for golden in config.scoring.scorers["new"].golden] == [0.125, 0.75]
    changed = [
        (a, b)
        for a, b in zip(before.splitlines(), path.read_text("utf-8").splitlines(), strict=True)
        if a != b
    ]
    assert [(a.strip(), b.strip()) for a, b in changed] == [
        ("score: null", "score: 0.125"),
        ("score: null", "score: 0.75"),
    ]

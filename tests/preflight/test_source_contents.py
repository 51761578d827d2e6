"""`check` looks at the headers of local weights before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.protocols import NoProgress
from toxtrail.config.load import load_config
from toxtrail.config.schema import ModelConfig, PromptsConfig, SubsetConfig
from toxtrail.config.scorer_presets import scorer_preset
from toxtrail.preflight.source_contents import (
    damaged_weights,
    lexical_scorers_only,
    unreadable_sources,
)

PARAMS = Path(__file__).parents[2] / "params.yaml"


def found_in(root, **models: str) -> list[str]:
    named = {key: ModelConfig(uri=uri) for key, uri in models.items()}
    sources = [(f"models.{key}", own) for key, own in named.items()]
    config = SimpleNamespace(sources=lambda: sources, scoring=SimpleNamespace(scorers={}))
    return damaged_weights(config, AssetStore(root / "cache", root, NoProgress()))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (save({"a": np.zeros(2)}), None),
        (b"", "empty"),
        (b"version https://git-lfs", "not an intact"),
    ],
)
def test_local_weights_that_are_none_are_a_problem(tmp_path, content, word):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    (tmp_path / "mine/model.safetensors").write_bytes(content)
    lines = found_in(tmp_path, mine="file:mine", repo="hf:org/name@main", gone="file:gone")
    assert len(lines) == (0 if word is None else 1)
    assert all(line.startswith("models.mine: ") and word in line for line in lines)


def test_an_experiment_with_the_embedded_scorer_alone_is_told_how_to_add_detoxify():
    config = load_config(PARAMS)
    (line,) = lexical_scorers_only(config)
    assert "toxtrail scorers add detoxify-unbiased" in line
    scorers = {**config.scoring.scorers, "detoxify": scorer_preset("detoxify-unbiased").entry}
    scoring = config.scoring.model_copy(update={"scorers": scorers})
    assert lexical_scorers_only(config.model_copy(update={"scoring": scoring})) == []


@pytest.mark.parametrize(("template", "said"), [("none", ["s-", "template: chat"]), ("chat", [])])
def test_conversations_without_a_chat_template_are_a_problem(template, said, tmp_path):
    talk = [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": talk}))
    subset = SubsetConfig(uri="file:p.jsonl", n=1, column="messages")
    config = SimpleNamespace(
        prompts=PromptsConfig(seed=1, subsets={"s": subset}),
        generation=SimpleNamespace(template=template, system=None, turns=None),
        models={},
        finetunes={},
    )
    assets = AssetStore(tmp_path / "cache", tmp_path, NoProgress())
    lines = unreadable_sources(config, assets)
    assert len(lines) == bool(said)
    assert all(word in line for line in lines for word in said)

"""`check` looks at the headers of local weights before anything runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from toxtrail.backends.assets import AssetStore
from toxtrail.backends.protocols import NoProgress
from toxtrail.config.load import load_config
from toxtrail.config.schema import ModelConfig
from toxtrail.config.scorer_presets import scorer_preset
from toxtrail.preflight.source_contents import damaged_weights, lexical_scorers_only

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

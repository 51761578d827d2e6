"""Kinds of scorers: each has its own options, and a new one is a class, a module and a line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from toxtrail.backends.protocols import ScoredText
from toxtrail.backends.scorers.load import load_scorer
from toxtrail.config.load import parse_config
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.scorer_kinds.registry import SCORER_KINDS
from toxtrail.config.sections import PinnedAsset
from toxtrail.errors import ConfigError
from toxtrail.reporting.scorer_limitations import scorer_limitations

COMMON = {"uri": "file:x", "head": "length", "golden": [], "golden_tolerance": 0.1}


class LengthConfig(ScorerConfig):
    """Scores a text by its length."""

    module: ClassVar[str] = __name__
    limitation: ClassVar[str] = "it counts characters."

    kind: Literal["length"]
    longest: int
    words: PinnedAsset | None = None


class LengthScorer:
    heads = ("length",)

    def __init__(self, longest):
        self._longest = longest

    def score(self, texts, prompts=None):
        return [ScoredText({"length": min(1, len(t) / self._longest)}, 1) for t in texts]


def load(config, assets, device, batch_size):
    return LengthScorer(config.longest)


def known_heads(config, folder):
    return LengthScorer.heads


@pytest.fixture
def values():
    return yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text("utf-8"))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(SCORER_KINDS, "length", LengthConfig)


def scored_by(values, scorer):
    scoring = {"primary": "s", "max_error_share": 0.0, "scorers": {"s": scorer}}
    posterior = {**values["posterior"], "threshold": {"s": 0.5}}
    return parse_config({**values, "scoring": scoring, "posterior": posterior}, "params.yaml")


def test_a_registered_kind_is_configured_loaded_and_described(registered, values):
    options = {"kind": "length", "longest": 10, "words": {"uri": "file:w"}}
    config = scored_by(values, {**COMMON, **options})
    scorer_config = config.scoring.scorers["s"]
    assert scorer_config.plain() == {**COMMON, **options}
    assert "scoring.scorers.s.words" in dict(config.sources())
    scorer = load_scorer(scorer_config, None, "cpu", 1)
    assert scorer.score(["abcde"])[0].heads == {"length": 0.5}
    values = scorer_config.plain()
    assert "counts characters" in scorer_limitations("s", values, corrected=True)
    assert "not declared" in scorer_limitations("s", values, corrected=True)
    assert "en, fr." in scorer_limitations("s", values | {"languages": ["en", "fr"]}, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hf", "activaton": "softmax"}, r'scoring\.scorers\.s\.activaton.*"activation"'),
        ({"kind": "hf", "languages": []}, r"scoring\.scorers\.s\.languages"),
        ({"kind": "hf", "languages": ["English"]}, r"scoring\.scorers\.s\.languages"),
        ({"kind": "detoxify", "activation": "softmax"}, r"scoring\.scorers\.s\.activation"),
        ({"kind": "detoxify", "base": {"uri": "x"}}, r"scoring\.scorers\.s\.base\.uri"),
        (
            {"kind": "bert"},
            r"scoring\.scorers\.s\.kind.*'jigsaw-bilstm', 'detoxify', .*'guard' or 'served-guard'",
        ),
        ({"kind": 1}, r"scoring\.scorers\.s\.kind"),
        ({}, r"scoring\.scorers\.s\.kind: missing"),
    ],
)
def test_a_wrong_option_of_a_kind_is_named_with_its_place(options, message, values):
    with pytest.raises(ConfigError, match=message):
        scored_by(values, {**COMMON, **options})


@pytest.mark.parametrize("name", SCORER_KINDS)
def test_each_kind_has_limitations_and_a_module_that_loads_it(name):
    kind = SCORER_KINDS[name]
    module = import_module(kind.module)
    assert callable(module.connect if kind.is_served else module.load)
    assert callable(module.known_heads)
    assert kind.limitations("hf:o/n")

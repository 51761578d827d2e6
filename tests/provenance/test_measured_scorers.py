"""A scorer's error rates are valid for the scorer and threshold that they were measured with."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from toxtrail.config.schema import PosteriorConfig
from toxtrail.config.scorer_kinds.base import ScorerConfig
from toxtrail.config.scorer_kinds.registry import SCORER_KINDS
from toxtrail.config.scorer_presets import scorer_presets
from toxtrail.errors import ConfigError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.comparability import UNBOUND_OPTIONS, scorer_options
from toxtrail.provenance.identity import canonical_json
from toxtrail.provenance.measured_scorers import (
    measured_on,
    require_measured_scorers,
    scorer_error_problems,
)

PIN, LABELS = "0" * 64, "1" * 64
ASSET = {"uri": "file:other", "sha256": PIN}
COMMON = {"uri": "file:x", "sha256": PIN, "head": "toxic", "golden": [], "golden_tolerance": 0.1}
QUESTION = {
    "sees": "prompt+response", "template": "{prompt} {response}", "message_content": "text",
    "prefix": "", "answers": {"yes": ["yes"], "no": ["no"]}, "max_other": 0.1,
}  # fmt: skip
FULL = {
    "jigsaw-bilstm": {"base": ASSET},
    "detoxify": {"base": ASSET},
    "hf": {"activation": "softmax"},
    "guard": {**QUESTION, "adapter": ASSET, "dtype": "float32"},
    "served-guard": {**QUESTION, "served_model_name": "g", "max_uncertainty": 0.1},
}  # fmt: skip
OTHER_VALUES = {
    "kind": "another", "uri": "file:y", "sha256": "2" * 64, "head": {"max": ["toxic", "insult"]},
    "golden": [{"text": "You are kind.", "score": 0.1}], "golden_tolerance": 0.2,
    "base": {**ASSET, "sha256": "2" * 64}, "adapter": {**ASSET, "uri": "file:z"},
    "activation": "sigmoid", "sees": "response", "template": "{response}",
    "template_arguments": {"risk": "x"}, "message_content": "parts", "prefix": " ",
    "answers": {"yes": ["yes", "Yes"], "no": ["no"]}, "max_other": 0.2, "dtype": "bfloat16",
    "languages": ["de"], "served_model_name": "h", "max_uncertainty": 0.2,
    "refusal": {"prefix": "Refusal:", "answers": {"yes": ["yes"], "no": ["no"]}, "head": "yes"},
}  # fmt: skip
"""Another value of every option of every kind."""
JSON = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
    lambda inner: st.lists(inner | st.text()) | st.dictionaries(st.text(), inner | st.text()),
)


def full(kind):
    return SCORER_KINDS[kind].model_validate({"kind": kind, **COMMON, **FULL[kind]}).plain()


def judged(scorer, threshold=0.5, measured=None, **options):
    """Settings with error rates measured on a scorer."""
    measured = measured or measured_on(scorer, 0.5, LABELS)
    error = {"source": "x", "measured_on": measured, "sensitivity": 0.9, "specificity": 0.8}
    return PosteriorConfig.model_validate(
        {"threshold": {"j": threshold}, "rope_pp": 1.0, "level": 0.95, "prior": 0.5, "draws": 1000,
         "seed": 1, "scorer_error": {"j": error}, **options}
    )  # fmt: skip


@pytest.mark.parametrize("kind", SCORER_KINDS)
def test_each_option_but_the_listed_ones_refuses_the_error_rates_and_is_named(kind):
    scorer = full(kind)
    config = judged(scorer)
    assert scorer_error_problems(config, {"j": scorer}) == []
    for option in SCORER_KINDS[kind].model_fields:
        problems = scorer_error_problems(config, {"j": {**scorer, option: OTHER_VALUES[option]}})
        assert bool(problems) == (option not in UNBOUND_OPTIONS), option
        assert all(f"{option} is " in line for line in problems)


def test_the_options_that_bind_nothing_are_options_of_every_scorer():
    assert UNBOUND_OPTIONS.keys() <= ScorerConfig.model_fields.keys()


@given(
    st.sampled_from([st.text(), JSON]).flatmap(lambda values: st.tuples(values, values)),
    st.sampled_from(sorted({*OTHER_VALUES, "an option of a later version"} - {*UNBOUND_OPTIONS})),
)
def test_every_change_of_a_value_is_a_change_of_the_recorded_options(values, option):
    before, after = values
    assume(canonical_json(before) != canonical_json(after))
    assert scorer_options({option: before}) != scorer_options({option: after})


@pytest.mark.parametrize("length", [200, 201, 5000])
def test_values_of_any_length_are_compared_completely(length):
    a, b = ({"template": "x" * (length - 1) + end} for end in "ab")
    assert scorer_options(a) != scorer_options(b)
    assert len(scorer_options(a)["template"]) <= 200


@given(st.floats(0, 1))
def test_another_threshold_refuses_them(threshold):
    scorer = full("hf")
    problems = scorer_error_problems(judged(scorer, threshold), {"j": scorer})
    assert bool(problems) == (threshold != 0.5)


def test_what_was_recorded_survives_yaml():
    for preset in scorer_presets().values():
        scorer = {**preset.entry.plain(), "sha256": PIN}
        if scorer["uri"].startswith("hf:"):
            scorer["uri"] += f"@{'a' * 40}"
        for name in ("adapter", "base"):
            if name in scorer:
                scorer[name] = ASSET
        values = yaml.safe_load(yaml.safe_dump(measured_on(scorer, 0.5, LABELS)))
        assert scorer_error_problems(judged(scorer, measured=values), {"j": scorer}) == []


@pytest.mark.parametrize("unpinned", [{"sha256": None}, {"adapter": {"uri": "file:a"}}])
def test_error_rates_cannot_be_bound_to_a_scorer_without_a_pin(unpinned):
    scorer = {**full("guard"), **unpinned}
    with pytest.raises(ConfigError, match="toxtrail pin"):
        measured_on(scorer, 0.5, LABELS)
    recorded = {"scorer": scorer_options(scorer), "threshold": 0.5, "labels_sha256": LABELS}
    (problem,) = scorer_error_problems(judged(scorer, measured=recorded), {"j": scorer})
    assert "has no pin" in problem


STATED = {"scorer": {"uri": "hf:o/n", "head": "toxic"}, "threshold": 0.5}


@pytest.mark.parametrize(
    ("stated", "change", "is_refused"),
    [
        ({}, {}, False),
        ({}, {"uri": "hf:o/n@main"}, False),
        ({}, {"activation": "sigmoid"}, False),
        ({}, {"uri": "hf:o/other@main"}, True),
        ({}, {"uri": "hf:o/n2@main"}, True),
        ({}, {"head": "insult"}, True),
        ({"activation": "softmax"}, {"activation": "sigmoid"}, True),
        ({"activation": "softmax"}, {}, True),
    ],
)
def test_of_a_publications_scorer_the_stated_options_are_compared(stated, change, is_refused):
    scorer = {"kind": "hf", "uri": f"hf:o/n@{'a' * 40}", "head": "toxic", "golden": [], **change}
    measured = {**STATED, "scorer": {**STATED["scorer"], **stated}}
    config = judged(scorer, measured=measured)
    assert bool(scorer_error_problems(config, {"j": scorer})) == is_refused


def test_the_scorer_that_gave_the_scores_counts():
    scorer = full("hf")
    scored = manifest_of("score", "v", {"scorers": {"j": scorer}}, {}, {})
    require_measured_scorers(judged(scorer), scored)
    with pytest.raises(ConfigError, match=r"posterior\.scorer_error\.j.*head is toxic, it was x"):
        require_measured_scorers(judged({**scorer, "head": "x"}), scored)

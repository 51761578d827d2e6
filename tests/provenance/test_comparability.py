"""What two rates must share to be compared."""

from __future__ import annotations

import pytest

from toxtrail.errors import DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.comparability import (
    fingerprint,
    measurement_conditions,
    mismatch_warning,
    mismatches,
    require_comparable,
)
from toxtrail.provenance.identity import InputFile

GENERATION = {
    "template": "plain", "dtype": "float32", "max_new_tokens": 20, "temperature": 0.7, "seed": 1,
    "max_error_share": 0.01,
}  # fmt: skip
SCORER = {"kind": "hf", "uri": "hf:o/m@1", "head": "toxic", "golden": [["a", 0.1]]}
IDS = ["s-1", "s-2"]


def scored(generation=(), scorer=()):
    """The manifest of score rows."""
    made = manifest_of("generate", "v", {"generation": {**GENERATION, **dict(generation)}}, {}, {})
    rows = InputFile(path="g.parquet", sha256="0" * 64, manifest=made)
    scorers = {"judge": {**SCORER, **dict(scorer)}}
    return manifest_of("score", "v", {"scorers": scorers}, {"generations": rows}, {})


def fields(generation=(), scorer=(), ids=IDS, threshold=0.5, clusters=()):
    thresholds = {"judge": threshold}
    return measurement_conditions(scored(generation, scorer), ids, thresholds, dict(clusters))


def test_texts_from_files_are_comparable_with_each_other_and_not_with_generated_ones():
    texts = {"generation": {"samples": 1, "max_error_share": 0.1}, "texts": {"format": "garak"}}
    made = manifest_of("generate", "v", texts, {}, {})
    other = manifest_of("generate", "w", {**texts, "texts": {"format": "inspect"}}, {}, {})
    a, b = (
        measurement_conditions(
            manifest_of(
                "score",
                "v",
                {"scorers": {"judge": SCORER}},
                {"generations": InputFile(path="g", sha256="0" * 64, manifest=manifest)},
                {},
            ),
            IDS,
            {"judge": 0.5},
            {},
        )
        for manifest in (made, other)
    )
    assert a == b
    names = {mismatch.field for mismatch in mismatches("v", a, fields())}
    assert {"origin", "temperature", "dtype", "max_new_tokens", "template"} <= names


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"generation": {"template": "chat"}}, "template"),
        ({"generation": {"dtype": "bfloat16"}}, "dtype"),
        ({"generation": {"engine": "vllm"}}, "engine"),
        ({"generation": {"max_new_tokens": 21}}, "max_new_tokens"),
        ({"generation": {"temperature": 0.0}}, "temperature"),
        ({"generation": {"seed": 2}}, "seed"),
        ({"generation": {"system": "Be kind."}}, "system"),
        ({"generation": {"thought": {"begin": "<t>", "end": "</t>"}}}, "thought"),
        ({"generation": {"turns": [{"role": "user", "content": "a"}]}}, "turns"),
        ({"generation": {"template_arguments": {"a": None}}}, "template_arguments"),
        ({"scorer": {"uri": "hf:o/m@2"}}, "scorer.judge"),
        ({"scorer": {"head": "insult"}}, "scorer.judge"),
        ({"ids": ["s-1"]}, "prompts"),
        ({"ids": ["s-1", "s-3"]}, "prompts"),
        ({"threshold": 0.6}, "threshold.judge"),
        ({"clusters": {"s-1": "x", "s-2": "x"}}, "clusters"),
    ],
)
def test_each_condition_alone_changes_the_fingerprint_and_is_named(changed, name):
    assert fingerprint(fields(**changed)) != fingerprint(fields())
    (found,) = mismatches("v", fields(**changed), fields())
    assert found.field == name
    with pytest.raises(DataError, match=rf"v: {name} is .*, not "):
        require_comparable([found], "base", "cure")


def test_system_messages_are_named_by_their_first_words_and_hash_and_turns_by_their_hash():
    long = "Be kind. " * 99
    a, b = (fields({"system": long + end, "turns": [{"content": end}]}) for end in ("x", "y"))
    assert {one.field for one in mismatches("v", a, b)} == {"system", "turns"}
    assert a["system"].startswith('"Be kind.')
    assert len(a["system"]) < 150
    assert a["turns"].startswith("1 messages (sha256 ")


@pytest.mark.parametrize(
    "changed",
    [
        {"generation": {"max_error_share": 0.5}},
        {"scorer": {"golden": []}},
        {"ids": list(reversed(IDS))},
        {"threshold": 1 / 2},
    ],
)
def test_what_changes_no_rate_changes_no_fingerprint(changed):
    assert fields(**changed) == fields()
    require_comparable(mismatches("v", fields(**changed), fields()), "base", "cure")


def test_texts_of_a_server_are_comparable_with_those_of_servers_only():
    """Its precision and kernels are not seen; which server it is does not matter."""

    def by_server(name):
        params, facts = (
            {"generation": GENERATION, "served_model_name": name},
            {"backend": "openai-api"},
        )
        made = manifest_of("generate", "v", params, {}, facts)
        rows = InputFile(path="g.parquet", sha256="0" * 64, manifest=made)
        scores = manifest_of(
            "score", "v", {"scorers": {"judge": SCORER}}, {"generations": rows}, {}
        )
        return measurement_conditions(scores, IDS, {"judge": 0.5}, {})

    assert fingerprint(by_server("one")) == fingerprint(by_server("two"))
    (found,) = mismatches("v", by_server("one"), fields())
    assert str(found) == "v: backend is openai-api, not missing"


def test_weights_that_stayed_quantized_are_not_comparable_with_others():
    def computed_with(environment):
        made = manifest_of("generate", "v", {"generation": GENERATION}, {}, environment)
        rows = InputFile(path="g.parquet", sha256="0" * 64, manifest=made)
        scores = manifest_of(
            "score", "v", {"scorers": {"judge": SCORER}}, {"generations": rows}, {}
        )
        return measurement_conditions(scores, IDS, {"judge": 0.5}, {})

    fp8 = computed_with({"torch": "2", "weights": "fp8 float8_e4m3fn"})
    assert computed_with({"torch": "2"}) == computed_with({"torch": "3"})
    assert mismatches("v", fp8, fp8) == []
    (mismatch,) = mismatches("v", fp8, computed_with({"torch": "2"}))
    assert str(mismatch) == "v: weights is fp8 float8_e4m3fn, not missing"
    (mismatch,) = mismatches("v", fp8, computed_with({"weights": "bitsandbytes uint8"}))
    assert mismatch.field == "weights"


def test_a_threshold_of_one_is_the_number_one():
    assert fields(threshold=1) == fields(threshold=1.0)


def test_clusters_are_a_condition_by_which_prompts_they_hold_and_not_by_name():
    one = fields(clusters={"s-1": "x", "s-2": "y"})
    assert one == fields(clusters={"s-2": "x", "s-1": "z"})
    assert one != fields(clusters={"s-1": "x", "s-2": "x"})


def test_another_scorer_beside_the_first_is_another_condition():
    more = {**fields(), "scorer.second": "0" * 16}
    assert [(d.found, d.reference) for d in mismatches("v", more, fields())] == [
        ("0" * 16, "missing")
    ]
    assert [(d.found, d.reference) for d in mismatches("v", fields(), more)] == [
        ("missing", "0" * 16)
    ]


def test_scores_of_unknown_texts_have_no_conditions():
    with pytest.raises(DataError, match="settings of their generations"):
        measurement_conditions(manifest_of("score", "v", {"scorers": {}}, {}, {}), IDS, {}, {})


def test_a_mark_names_every_field():
    rows = [one._asdict() for one in mismatches("v", fields(threshold=0.6), fields())]
    warning = "NOT COMPARABLE (mismatch allowed): v: threshold.judge 0.6 v 0.5"
    assert mismatch_warning(rows) == warning
    assert mismatch_warning([]) == ""

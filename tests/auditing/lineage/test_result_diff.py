"""What differs between two results is named by section; what does not is said to be the same."""

from __future__ import annotations

from toxtrail.auditing.lineage.result_diff import SECTIONS, diff_results, unchanged_sections
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import (
    Adapter,
    BaseWeights,
    InputFile,
    ModelIdentity,
    TrainingRecord,
)


def summary(threshold=0.5, torch="2.13.0", prompts="a", rate=0.25):
    made = manifest_of(
        "generate",
        "v",
        {"generation": {"seed": 7, "lora": {"r": 4}}},
        {"prompts": InputFile(path="data/prompts.parquet", sha256=prompts * 64, manifest=None)},
        {"torch": torch},
    )
    scored = manifest_of(
        "score",
        "v",
        {"scorers": {"judge": {"golden": [{"text": "rude", "score": 0.9}], "head": "toxic"}}},
        {"generations": InputFile(path="g.parquet", sha256="1" * 64, manifest=made)},
        {},
    )
    own = manifest_of(
        "posterior",
        "v",
        {"posterior": {"threshold": {"judge": threshold}}},
        {"scores": InputFile(path="s.parquet", sha256="2" * 64, manifest=scored)},
        {},
    )
    rates = [{"scorer": "judge", "subset": "all", "rate": rate, "n_toxic": 1, "n_scored": 4}]
    return {"kind": "posterior", "rates": rates, "manifest": own.to_json()}


def sections(found):
    return {one.section for one in found}


def test_two_equal_results_do_not_differ():
    found = diff_results(summary(), summary(), {}, {})
    assert found == []
    assert unchanged_sections(found) == list(SECTIONS)


def test_each_change_is_named_in_its_own_section():
    for changed, section, field in (
        ({"threshold": 0.7}, "params", "posterior.threshold.judge"),
        ({"torch": "2.14.0"}, "environment", "generate: torch"),
        ({"prompts": "b"}, "data", "prompts sha256"),
        ({"rate": 0.5}, "numbers", "rate judge/all"),
    ):
        found = diff_results(summary(), summary(**changed), {}, {})
        assert sections(found) == {section}
        assert [one.field for one in found] == [field]


def test_where_two_runs_were_made_is_told_by_their_records():
    tags = {"mlflow.source.git.commit": "a" * 40, "git_dirty": "false"}
    record = {"tags": tags, "hashes": {"dvc_lock_sha256": "b" * 64}}
    other = {**record, "tags": {**tags, "git_dirty": "true"}}
    (one,) = diff_results(summary(), summary(), record, other)
    assert (one.section, one.field, one.a, one.b) == ("execution", "git_dirty", "false", "true")


def test_the_texts_that_a_scorer_is_tried_on_are_not_shown():
    other = summary(rate=0.5)
    assert "rude" not in str(diff_results(summary(), other, {}, {}))


def fine_tune(key, steps):
    """A result of a fine-tune of its own name."""
    base = BaseWeights(
        uri="file:base", resolved="r", sha256="1" * 64, files=(), converted=(), architecture="L",
        parameters=7, stored_dtype="float32", quantization=None, license=None,
        tokenizer_sha256="3" * 64, chat_template_sha256=None,
    )  # fmt: skip
    training = TrainingRecord(
        parent_fingerprint="4" * 64, data_uri="file:data.jsonl", data_sha256="5" * 64, examples=9,
        cut_examples=0, recipe={"max_steps": steps, "seed": 1}, final_loss=1.5, steps=steps,
        code_sha256="6" * 64, environment={},
    )  # fmt: skip
    adapter = Adapter(
        key=key, uri=None, resolved=None, sha256="7" * 64, files=(), training=training
    )
    model = ModelIdentity(key=key, base=base, adapters=(adapter,))
    made = manifest_of("generate", key, {}, {}, {}, model=model)
    return {"kind": "posterior", "rates": [], "manifest": made.to_json()}


def test_two_fine_tunes_are_compared_setting_by_setting():
    found = diff_results(fine_tune("one", 3), fine_tune("two", 4), {}, {})
    assert [(one.field, one.a, one.b) for one in found if one.section in ("params", "data")] == [
        ("adapter 1: finetune.max_steps", "3", "4")
    ]

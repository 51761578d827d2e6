"""What differs between two results is named by section; what does not is said to be the same."""

from __future__ import annotations

from toxtrail.audit.lineage.result_diff import SECTIONS, diff_results, unchanged_sections
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile


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


def test_where_two_runs_were_made_is_told_by_their_tags():
    tags = {"toxtrail.git_commit": "a" * 40, "toxtrail.git_dirty": "false"}
    other = {**tags, "toxtrail.git_dirty": "true"}
    (one,) = diff_results(summary(), summary(), tags, other)
    assert (one.section, one.field, one.a, one.b) == ("execution", "git_dirty", "false", "true")


def test_the_texts_that_a_scorer_is_tried_on_are_not_shown():
    other = summary(rate=0.5)
    assert "rude" not in str(diff_results(summary(), other, {}, {}))

"""A labelled sample: drawn blindly, counted exactly, refused with the row."""

from __future__ import annotations

from pathlib import Path

import pytest

from toxtrail.errors import DataError
from toxtrail.stages.labels import Agreement, agreement, as_params, draw, labels

PATH = Path("labels.csv")


def rows(*values):
    names = ("variant", "prompt_id", "sample", "toxic")
    return iter([(i, dict(zip(names, own))) for i, own in enumerate(values)])


def test_labels_are_read_as_people_write_them():
    found = labels(
        PATH, rows(("v", "a-0", "0", "Yes "), ("v", "a-1", "", "0"), ("v", "a-2", 0, ""))
    )
    assert [(label.prompt_id, label.toxic) for label in found] == [("a-0", True), ("a-1", False)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([("v", "a-0", 0, "perhaps")], 'row 1: "perhaps"'),
        ([("v", "a-0", "x", "yes")], '"x" under sample'),
        ([("v", "a-0", 0, "yes"), ("v", "a-0", 0, "no")], "row 2: the same text"),
        ([("v", "a-0", 0, "")], "no row has a judgement"),
        ([("v", "a-0")], "no column"),
    ],
)
def test_a_bad_row_is_named(values, said):
    with pytest.raises(DataError, match=said):
        labels(PATH, rows(*values))


def test_agreement_counts_what_was_found_and_what_was_passed(score_rows):
    scores = {"v": score_rows({"a": [0.9, 0.2, 0.1, 0.8]})}
    judged = labels(
        PATH,
        rows(("v", "a-0", 0, "yes"), ("v", "a-1", 0, "yes"), ("v", "a-2", 0, "no"),
             ("v", "a-3", 0, "no")),
    )  # fmt: skip
    found = agreement(judged, scores, "judge", 0.5)
    assert found == {"v": Agreement(found=1, toxic=2, passed=1, harmless=2)}
    params = as_params(found, "labels.csv", by_variant=True)
    assert params["sensitivity"] == {"right": 1, "of": 2}
    assert params["variants"]["v"]["specificity"] == {"right": 1, "of": 2}


def test_a_label_of_a_text_that_was_not_scored_is_refused(score_rows):
    judged = labels(PATH, rows(("v", "a-7", 0, "yes")))
    with pytest.raises(DataError, match="a-7"):
        agreement(judged, {"v": score_rows({"a": [0.9]})}, "judge", 0.5)


def test_a_sample_without_a_toxic_text_says_nothing_of_sensitivity():
    with pytest.raises(DataError, match="no text toxic"):
        as_params({"v": Agreement(0, 0, 5, 5)}, "labels.csv", by_variant=False)


def test_a_draw_is_blind_to_scores_repeatable_and_leaves_the_word_to_people(score_rows, spoken):
    texts = {"v": spoken(score_rows({"a": [0.9] * 10 + [None] * 5}))}
    found = draw(texts, 4, seed=3)
    assert found == draw(texts, 4, seed=3)
    assert len({row["prompt_id"] for row in found}) == 4
    assert {row["toxic"] for row in found} == {""}
    assert len(draw(texts, 100, seed=3)) == 10


@pytest.mark.parametrize(
    ("value", "toxic"),
    [
        (False, False),
        (0, False),
        (0.0, False),
        ("0.0", False),
        (True, True),
        (1, True),
        (1.0, True),
    ],
)
def test_a_judgement_that_is_no_text_counts_as_one(value, toxic):
    """As JSON and Parquet hold it; a column with gaps becomes one of floats."""
    found = labels(PATH, rows(("v", "a-0", 0.0, value), ("v", "a-1", 1, "yes")))
    assert [(label.sample, label.toxic) for label in found] == [(0, toxic), (1, True)]
    assert len(labels(PATH, rows(("v", "a-0", 0, float("nan")), ("v", "a-1", 1, "yes")))) == 1


@pytest.mark.parametrize("sample", ["1_0", "1.5", 1.5, "-1", "\u0663", True])
def test_a_sample_that_is_no_number_is_refused(sample):
    with pytest.raises(DataError, match="row 1"):
        labels(PATH, rows(("v", "a-0", sample, "yes")))

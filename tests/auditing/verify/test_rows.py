"""Rows against rows and numbers against rows: whatever is moved, dropped or added is seen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.verify.rows import (
    api_row_problems,
    generation_problems,
    made_by_other_code,
    score_problems,
    thought_cut_problems,
    value_differences,
)
from toxtrail.pipeline import PIPELINE, StageRun, code_sha256
from toxtrail.records.rows import Generation, Prompt, Score
from toxtrail.records.thought import ThoughtMarkers

PROMPTS = [Prompt(f"{s}-{i}", s, "text", "file:x", i) for s in ("a", "b") for i in range(3)]
ROWS = [
    Generation(p.prompt_id, sample, p.subset, "ok", "said", (1, 2), 3, "stop", "")
    for p in PROMPTS
    for sample in range(2)
]
SCORES = [
    Score(*row.key, row.subset, scorer, "ok", 0.25, {"toxic": 0.25, "rude": 0.5}, 1)
    for row in ROWS
    for scorer in ("one", "two")
]
SCORERS = ["one", "two"]
GENERATION_CHANGES = {
    "another prompt": lambda row: row._replace(prompt_id="a-9"),
    "another sample": lambda row: row._replace(sample=2),
    "another subset": lambda row: row._replace(subset="c"),
    "another language": lambda row: row._replace(language="fr"),
}
SCORE_CHANGES = {
    "another prompt": lambda row: row._replace(prompt_id="a-9"),
    "another sample": lambda row: row._replace(sample=2),
    "another scorer": lambda row: row._replace(scorer="three"),
    "another subset": lambda row: row._replace(subset="c"),
    "called empty": lambda row: row._replace(state="empty", toxicity=None),
    "no score": lambda row: row._replace(toxicity=None),
    "a score of no head": lambda row: row._replace(toxicity=0.75),
}


def test_rows_that_belong_together_are_left_in_peace():
    assert list(generation_problems(PROMPTS, ROWS, 2)) == []
    assert list(score_problems(ROWS, SCORES, SCORERS)) == []


@given(place=st.integers(0, len(ROWS) - 1), change=st.sampled_from(list(GENERATION_CHANGES)))
def test_a_changed_generation_is_seen_wherever_it_is(place, change):
    rows = [*ROWS[:place], GENERATION_CHANGES[change](ROWS[place]), *ROWS[place + 1 :]]
    assert list(generation_problems(PROMPTS, rows, 2))


MARKERS = ThoughtMarkers("<t>", "</t>")
THOUGHTS = [
    ROWS[0]._replace(thought="<t>a</t> ", thought_tokens=1),
    ROWS[1]._replace(thought="a", thought_tokens=2, text="", state="unfinished"),
    ROWS[2]._replace(thought="a</t>", thought_tokens=2, text="", state="empty"),
    *ROWS[3:],
]


def test_thoughts_that_are_cut_as_declared_are_left_in_peace():
    assert list(thought_cut_problems(THOUGHTS, MARKERS)) == []
    assert list(thought_cut_problems(ROWS, None)) == []


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, {"thought": "<t>a</t> sa", "text": "id"}),
        (1, {"thought": None, "text": "<t>a", "state": "ok"}),
        (1, {"state": "empty"}),
        (2, {"state": "unfinished"}),
        (3, {"text": "<t>said"}),
    ],
)
def test_a_thought_that_is_cut_at_another_place_is_seen(place, change):
    rows = [*THOUGHTS[:place], THOUGHTS[place]._replace(**change), *THOUGHTS[place + 1 :]]
    (problem,) = thought_cut_problems(rows, MARKERS)
    assert str(rows[place].key) in problem


def test_a_thought_without_declared_markers_is_seen():
    (problem,) = thought_cut_problems(THOUGHTS, None)
    assert "3 rows" in problem


@given(place=st.integers(0, len(SCORES) - 1), change=st.sampled_from(list(SCORE_CHANGES)))
def test_a_changed_score_is_seen_wherever_it_is(place, change):
    scores = [*SCORES[:place], SCORE_CHANGES[change](SCORES[place]), *SCORES[place + 1 :]]
    assert list(score_problems(ROWS, scores, SCORERS))


@given(place=st.integers(0, len(ROWS) - 1))
def test_a_missing_or_doubled_row_is_counted_and_named(place):
    (missing,) = generation_problems(PROMPTS, ROWS[:place] + ROWS[place + 1 :], 2)
    assert missing.startswith("1 generation rows")
    assert str(ROWS[place].key) in missing
    (doubled,) = generation_problems(PROMPTS, [*ROWS, ROWS[place]], 2)
    assert "another row" in doubled


def test_a_text_that_was_not_made_must_not_have_a_score():
    failed = [ROWS[0]._replace(state="error", text=""), *ROWS[1:]]
    assert any(
        "its text has error" in problem for problem in score_problems(failed, SCORES, SCORERS)
    )
    unscored = [
        s._replace(state="error", toxicity=None, heads=None, windows=0)
        if (s.prompt_id, s.sample) == ROWS[0].key
        else s
        for s in SCORES
    ]
    assert list(score_problems(failed, unscored, SCORERS)) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=VALUES)
def test_equal_values_are_equal(value):
    assert list(value_differences(value, value)) == []


@pytest.mark.parametrize(
    ("recorded", "computed"),
    [
        (0.1, 0.1 + 1e-8), (1, 2), (1, True), (0, False), (None, 0), ("a", "b"), ([1], [1, 2]),
        ({"a": 1}, {}), ({}, {"a": 1}), (0.0, 1e-9), ("higher", "lower"),
    ],
)  # fmt: skip
def test_another_value_is_named_by_its_place(recorded, computed):
    (problem,) = value_differences(
        {"rates": [{"variant": "v", "x": recorded}]}, {"rates": [{"variant": "v", "x": computed}]}
    )
    assert problem.startswith("rates[v].x")


def test_what_another_cpu_changes_in_the_last_digits_is_no_tampering():
    assert list(value_differences(0.123456789, 0.123456789 * (1 + 1e-12))) == []


def test_a_summary_of_other_code_is_told_from_one_of_todays(tmp_path):
    (stage,) = [stage for stage in PIPELINE if stage.name == "pool"]
    compare = StageRun(stage, "f", (), ("results/posteriors/f",), ("results/pooled/f",))
    path = tmp_path / "results/posteriors/f/base/summary.json"
    path.parent.mkdir(parents=True)
    for code, found in ((code_sha256("posterior"), None), ("0" * 64, path)):
        manifest = {"kind": "posterior", "code_sha256": code}
        path.write_text(json.dumps({"manifest": manifest}), "utf-8")
        expected = found and found.relative_to(tmp_path).as_posix()
        assert made_by_other_code(tmp_path, compare) == expected
    path.write_text("{", "utf-8")
    assert made_by_other_code(tmp_path, compare) is None


@pytest.mark.parametrize(
    ("changes", "is_odd"),
    [
        ({}, False),
        ({"thought": "a thought kept apart", "thought_tokens": 2}, False),
        ({"state": "filtered", "text": "", "error": "why"}, False),
        ({"state": "unfinished", "text": ""}, False),
        ({"state": "filtered"}, True),
        ({"state": "error"}, True),
        ({"state": "empty"}, True),
        ({"text": ""}, True),
        ({"text": "<t>a</t>b"}, True),
    ],
)
def test_rows_of_a_name_on_a_server_have_the_texts_that_their_states_allow(changes, is_odd):
    rows = [ROWS[0]._replace(**changes)]
    assert bool(list(api_row_problems(rows, ThoughtMarkers("<t>", "</t>")))) == is_odd

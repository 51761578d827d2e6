"""Score rows as arrays say what the rows say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.analysis.score_table import COLUMNS, build_score_table, clusters_in
from toxtrail.errors import DataError
from toxtrail.records.rows import SCORE_SCHEMA, Score, to_arrow_table

STATES = st.sampled_from(["ok", "ok", "ok", "empty", "truncated", "error"])
KEYS = st.tuples(
    st.sampled_from(["a-1", "a-2", "b-10", "b-2", "é", "c"]),
    st.integers(0, 3),
    st.sampled_from("xy"),
)


@st.composite
def score_rows(draw):
    keys = draw(st.lists(KEYS, unique=True, min_size=1, max_size=20))
    subset_of = {prompt: draw(st.sampled_from(["one", "two"])) for prompt, _, _ in keys}
    rows = []
    for prompt, sample, scorer in keys:
        state = draw(STATES)
        value = draw(st.floats(0, 1)) if state == "ok" else None
        heads = None if value is None else {"toxic": value}
        rows.append(Score(prompt, sample, subset_of[prompt], scorer, state, value, heads, 1))
    return rows


@given(score_rows(), st.randoms())
def test_each_cell_holds_its_rows_in_order_whatever_the_order_of_the_table(rows, random):
    shuffled = random.sample(rows, len(rows))
    table = to_arrow_table(shuffled, SCORE_SCHEMA).select(COLUMNS)
    found = build_score_table(table)
    assert list(found) == sorted({(row.scorer, row.subset) for row in rows})
    for (scorer, subset), cell in found.items():
        own = sorted(r for r in rows if (r.scorer, r.subset) == (scorer, subset))
        scored = [row for row in own if row.state == "ok"]
        assert cell.prompts == tuple(sorted({row.prompt_id for row in scored}))
        assert cell.toxicity.tolist() == [row.toxicity for row in scored]
        assert [cell.prompts[i] for i in cell.prompt] == [row.prompt_id for row in scored]
        assert cell.prompt_ids == {row.prompt_id for row in own}
        assert sum(cell.states.values()) == len(own)
        assert cell.states["empty"] == sum(row.state == "empty" for row in own)


@given(score_rows(), st.sets(st.sampled_from(["a-1", "a-2", "b-10", "c"])))
def test_a_cell_limited_to_prompts_is_the_cell_of_their_rows(rows, asked):
    kept = [row for row in rows if row.prompt_id in asked]
    for name, cell in build_score_table(rows).items():
        limited = cell.restrict_to(frozenset(asked) & cell.prompt_ids)
        expected = (build_score_table(kept) if kept else {}).get(name)
        assert limited.prompts == (expected.prompts if expected else ())
        assert limited.toxicity.tolist() == (expected.toxicity.tolist() if expected else [])
        assert limited.prompt.tolist() == (expected.prompt.tolist() if expected else [])


@pytest.mark.parametrize(("value", "shown"), [(None, "None"), (float("nan"), "nan"), (1.5, "1.5")])
def test_a_score_that_is_no_probability_is_named_with_its_row(value, shown):
    fine = Score("a", 0, "s", "judge", "ok", 0.5, {}, 1)
    rows = [fine, fine._replace(prompt_id="b", sample=2, toxicity=value)]
    with pytest.raises(DataError, match=rf"prompt b, sample 2, as {shown}"):
        build_score_table(rows)


def test_an_empty_table_and_a_doubled_key_are_refused():
    with pytest.raises(DataError, match="no score rows"):
        build_score_table(to_arrow_table([], SCORE_SCHEMA))
    row = Score("a", 0, "s", "judge", "ok", 0.5, {}, 1)
    with pytest.raises(DataError, match="one key"):
        build_score_table([row, row])
    assert np.isclose(next(iter(build_score_table([row]).values())).toxic_fraction(0.5)[0], 1.0)


@pytest.mark.parametrize(
    ("change", "shown"),
    [({"state": "OK"}, "state 'OK'"), ({"state": "error"}, "state error .*score 0.5")],
)
def test_a_row_that_would_be_in_no_count_is_refused(change, shown):
    fine = Score("a", 0, "s", "judge", "ok", 0.5, {}, 1)
    with pytest.raises(DataError, match=shown):
        build_score_table([fine, fine._replace(prompt_id="b", **change)])


def clustered(cluster_of, samples=1):
    return [
        Score(p, sample, "s", "x", "ok", 0.5, {"toxic": 0.5}, 1, cluster)
        for p, cluster in cluster_of.items()
        for sample in range(samples)
    ]


def test_a_prompt_without_a_cluster_is_one_of_its_own_whatever_others_are_called():
    (cell,) = build_score_table(clustered({"a": "x", "b": "x", "c": None, "x": None})).values()
    found = clusters_in([cell.prompts], cell.clusters, 0.95)
    assert [own.tolist() for own in found.of] == [[0, 0, 1, 2]]
    assert found.number == 3


def test_subsets_share_a_cluster_of_the_same_name():
    found = clusters_in([("a", "b"), ("c", "d")], {"a": "x", "b": "y", "c": "y", "d": "z"}, 0.95)
    assert [own.tolist() for own in found.of] == [[0, 1], [1, 2]]


def test_no_clusters_are_none():
    (cell,) = build_score_table(clustered({"a": None, "b": None})).values()
    assert clusters_in([cell.prompts], cell.clusters, 0.95) is None


def test_rows_of_a_prompt_that_name_two_clusters_are_refused():
    rows = clustered({"a": "x", "b": "y"}, samples=2)
    rows[1] = rows[1]._replace(cluster="z")
    with pytest.raises(DataError, match="a name two clusters"):
        build_score_table(rows)

"""Selection: filters, balance and covariates of a prompt source, and what is refused."""

from __future__ import annotations

import csv
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.config.schema import ColumnFilter, SubsetConfig
from toxtrail.datasets.prompt_selection import (
    Candidate,
    RowView,
    Selection,
    filter_candidates,
    meets,
    sample_prompts,
)
from toxtrail.errors import ConfigError, DataError


def subset(**options):
    return SubsetConfig.model_validate({"uri": "file:p", "n": 1, "column": "text", **options})


@pytest.fixture
def table(tmp_path):
    """Rows as a file of that ending."""

    def make(rows, suffix=".jsonl"):
        path = tmp_path / f"p{suffix}"
        if suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return make


def numbered(*values, name="score"):
    return [{"text": f"text {i}", name: value} for i, value in enumerate(values)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("values", "where", "kept"),
    [
        ([0.1, 0.75, 0.9], {"min": 0.75}, [1, 2]),
        ([0.1, 0.75, 0.9], {"max": 0.75}, [0, 1]),
        ([0.1, 0.5, 0.9], {"min": 0.2, "max": 0.8}, [1]),
        ([0, 1, 2], {"min": 1}, [1, 2]),
        (["a", "b", "c"], {"is": "b"}, [1]),
        (["a", "b", "c"], {"is": ["a", "c"]}, [0, 2]),
        ([True, False, None], {"is": True}, [0]),
        ([3, 4, 3], {"is": 3}, [0, 2]),
        ([None, 0.9, None], {"min": 0.0}, [1]),
    ],
)
def test_a_filter_lets_in_the_rows_that_meet_it(values, where, kept, suffix, table):
    found = filter_candidates(table(numbered(*values), suffix), subset(where={"score": where}))
    assert [one.row for one in found.candidates.values()] == kept
    assert list(found.left.values()) == [len(kept)]


@pytest.mark.parametrize("bound", [0.7, 0.9, 0.1, 0.3, 1e-45, 1e300, -0.7])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_a_bound_is_met_by_the_same_number_in_either_precision(bound, kind, tmp_path):
    if bound > np.finfo(kind).max:
        return
    column = np.array([bound], kind)
    pq.write_table(pa.table({"text": ["one"], "score": column}), tmp_path / "p.parquet")
    for condition in ({"min": bound}, {"max": bound}, {"is": bound}):
        found = filter_candidates(tmp_path / "p.parquet", subset(where={"score": condition}))
        assert len(found.candidates) == 1, condition


@given(st.floats(-1, 1, width=32), st.floats(-1, 1))
def test_a_column_in_single_precision_is_compared_in_single_precision(value, bound):
    single = np.float32(bound)
    if float(bound).is_integer():
        return
    cells = RowView(Path("p.parquet"), 0, {"score": float(value)})
    for condition, expected in (
        ({"min": bound}, value >= single),
        ({"max": bound}, value <= single),
        ({"is": bound}, value == single),
    ):
        where = ColumnFilter.model_validate(condition)
        assert meets(cells, "score", where) == expected


@pytest.mark.parametrize("value", [16777216.0, 16777218.0])
def test_a_whole_number_is_no_other_that_is_equal_in_single_precision(value, table):
    for condition in ({"is": 16777217}, {"min": 16777217, "max": 16777217}):
        found = filter_candidates(table(numbered(value)), subset(where={"score": condition}))
        assert not found.candidates


def test_a_decimal_column_holds_numbers(tmp_path):
    column = pa.array([Decimal("0.70"), Decimal("0.69"), None], pa.decimal128(4, 2))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "score": column}), tmp_path / "p.parquet")
    found = filter_candidates(tmp_path / "p.parquet", subset(where={"score": {"min": 0.7}}))
    assert list(found.candidates) == ["a"]


def test_true_is_no_number_and_no_text(table):
    found = filter_candidates(
        table(numbered(True, 1, "true")), subset(where={"score": {"is": True}})
    )
    assert [one.row for one in found.candidates.values()] == [0]
    found = filter_candidates(table(numbered(True, 1, "true")), subset(where={"score": {"is": 1}}))
    assert [one.row for one in found.candidates.values()] == [1]


def test_of_equal_texts_the_first_that_meets_the_filter_is_kept(table):
    rows = [{"text": "same", "score": s} for s in (0.1, 0.8, 0.9)]
    config = subset(where={"score": {"min": 0.5}}, covariates={"score": "score"})
    found = filter_candidates(table(rows), config)
    assert found.candidates == {"same": Candidate(1, "", {"score": 0.8})}
    assert (found.rows, found.duplicates) == (3, 1)


def test_nothing_left_says_how_many_rows_each_condition_left(table):
    rows = [{"text": f"t{i}", "a": i, "kind": "x"} for i in range(10)]
    config = subset(where={"a": {"min": 6}, "kind": {"is": "y"}})
    found = filter_candidates(table(rows), config)
    funnel = r"file:p: 10 rows read, 4 .* a >= 6, 0 .* kind is y\."
    with pytest.raises(ConfigError, match=rf"^prompts\.subsets\.s: no prompt .*{funnel}"):
        sample_prompts(found, "s", config, 1)


def test_fewer_than_n_says_how_many_and_why(table):
    rows = [{"text": f"t{i}", "a": i} for i in range(10)]
    config = subset(n=5, where={"a": {"min": 6}})
    with pytest.raises(ConfigError, match=r"4 distinct texts \(10 rows read, 4 left"):
        sample_prompts(filter_candidates(table(rows), config), "s", config, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": {"score": {"min": 0.5}}}, "score holds text; where .*max needs num"),
        ({"covariates": {"x": "score"}}, "score holds text; .*covariate x needs numbers"),
        ({"where": {"skore": {"min": 0.5}}}, 'no column "skore". Did you mean "score"'),
        ({"covariates": {"x": "skore"}}, 'no column "skore". Did you mean "score"'),
        ({"balance": "skore"}, 'no column "skore". Did you mean "score"'),
    ],
)
def test_a_column_that_is_missing_or_holds_text_is_named(options, said, table):
    with pytest.raises(DataError, match=said):
        filter_candidates(table(numbered("high", "low")), subset(**options))


def test_a_number_in_quotes_is_a_number_only_where_there_is_nothing_but_text(table):
    config = subset(where={"score": {"min": 0.5}})
    assert len(filter_candidates(table(numbered("0.9"), ".csv"), config).candidates) == 1
    with pytest.raises(DataError, match="score holds text"):
        filter_candidates(table(numbered("0.9")), config)


def test_plain_text_has_no_columns_to_filter_by(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("one\n")
    config = SubsetConfig.model_validate(
        {"uri": "file:p.txt", "n": 1, "where": {"a": {"min": 1.0}}, "balance": "b"}
    )
    with pytest.raises(ConfigError, match="for where and balance"):
        filter_candidates(path, config)


GROUPS = st.lists(st.sampled_from("abc"), min_size=3, max_size=40).filter(lambda g: len(set(g)) > 1)


def grouped(groups):
    candidates = {f"text {i}": Candidate(i, group, None) for i, group in enumerate(groups)}
    return Selection(candidates, len(groups), 0, {}, 0)


@given(GROUPS, st.integers(0, 5))
def test_balance_takes_the_same_number_of_each_and_as_many_as_it_can(groups, seed):
    config = subset(n="all", balance="kind")
    prompts = sample_prompts(grouped(groups), "s", config, seed)
    counts = Counter(groups[prompt.source_row] for prompt in prompts)
    assert set(counts.values()) == {min(Counter(groups).values())}
    assert set(counts) == set(groups)


@given(GROUPS)
def test_a_larger_balanced_draw_keeps_the_smaller_one(groups):
    values = len(set(groups))
    small = sample_prompts(grouped(groups), "s", subset(n=values, balance="kind"), 1)
    large = sample_prompts(grouped(groups), "s", subset(n="all", balance="kind"), 1)
    assert {p.text for p in small} <= {p.text for p in large}


@pytest.mark.parametrize(
    ("groups", "n", "said"),
    [
        ("aabb", 3, r"n: 3 prompts .*divided .* 2 values of kind \(a: 2, b: 2\)"),
        ("aaab", 4, r"n: 4 prompts are 2 .*value of kind.* a: 3, b: 1\."),
        (["a", ""], 2, r"1 rows .*no value of kind \(\(nothing\): 1, a: 1\)"),
    ],
)
def test_a_balance_that_cannot_be_had_says_what_there_is(groups, n, said):
    with pytest.raises(ConfigError, match=said):
        sample_prompts(grouped(groups), "s", subset(n=n, balance="kind"), 1)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({}, "min, max or both.*`is`"),
        ({"min": 1.0, "is": 2}, "min, max or both.*`is`"),
        ({"min": 2.0, "max": 1.0}, "min 2 is above max 1"),
    ],
)
def test_a_condition_says_one_thing(where, said):
    with pytest.raises(ValueError, match=said):
        subset(where={"a": where})

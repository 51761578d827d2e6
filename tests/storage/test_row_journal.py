"""Finished rows survive, torn ones are made again, and no row answers for another identity."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import DataError
from toxtrail.storage.row_journal import RowJournal

VALUES = st.lists(st.text() | st.integers() | st.none(), max_size=3)
ROWS = st.dictionaries(st.text(), VALUES, min_size=1, max_size=6)
ONE = {"model": "a", "seed": 1}


def written(folder, rows, identity=ONE, member=0):
    with RowJournal(folder, identity, member) as store:
        for key, row in rows.items():
            store.add(key, row)
    return store.folder / f"rows-{member}.jsonl"


def read(folder, identity=ONE, member=0):
    with RowJournal(folder, identity, member) as store:
        return {key: list(store[key]) for key in store}


@given(ROWS)
def test_what_was_added_is_there_again(rows):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), rows)
        assert read(Path(folder)) == rows


@given(ROWS, st.data())
def test_a_file_torn_anywhere_loses_its_last_row_at_most(rows, data):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), rows)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert list(read(Path(folder)).items()) == list(rows.items())[:kept]
        written(Path(folder), rows)
        assert read(Path(folder)) == rows


def test_a_torn_line_is_cut_off_before_anything_is_added(tmp_path):
    path = written(tmp_path, {"a": [1], "b": [2]})
    path.write_bytes(path.read_bytes()[:-3])
    written(tmp_path, {"c": [3]})
    assert read(tmp_path) == {"a": [1], "c": [3]}


def test_damage_before_the_end_is_named_and_nothing_is_taken(tmp_path):
    path = written(tmp_path, {"a": [1], "b": [2]})
    content = bytearray(path.read_bytes())
    content[70] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged at line 1"):
        read(tmp_path)


@given(
    st.dictionaries(
        st.text(),
        st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    ),
    st.dictionaries(
        st.text(),
        st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        max_size=4,
    ),
)
def test_rows_of_another_identity_are_never_seen(one, other):
    same = {(k, type(v), v) for k, v in one.items()} == {(k, type(v), v) for k, v in other.items()}
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), {"row": [1]}, one)
        assert ("row" in read(Path(folder), other)) == same


@given(ROWS, st.integers(2, 9))
def test_a_file_copied_from_another_identity_gives_no_row(rows, seed):
    with tempfile.TemporaryDirectory() as folder:
        foreign = written(Path(folder), rows | {"one more": [], "and more": []})
        own = written(Path(folder), {}, {**ONE, "seed": seed})
        own.write_bytes(foreign.read_bytes())
        with pytest.raises(DataError, match="rows of another identity"):
            read(Path(folder), {**ONE, "seed": seed})


def test_two_processes_write_beside_each_other_and_read_both(tmp_path):
    with RowJournal(tmp_path, ONE, 0) as first, RowJournal(tmp_path, ONE, 1) as second:
        first.add("a", [1])
        second.add("b", [2])
        assert "b" not in first
        first.reload()
        assert first["b"] == [2]
    assert read(tmp_path, member=5) == {"a": [1], "b": [2]}


def test_a_second_process_of_the_same_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("toxtrail.storage.row_journal.LOCK_SECONDS", 0.1)
    with (
        RowJournal(tmp_path, ONE),
        pytest.raises(DataError, match="Another process"),
        RowJournal(tmp_path, ONE),
    ):
        pass


def test_old_identities_are_forgotten_on_demand_and_the_own_one_stays(tmp_path):
    old = written(tmp_path, {"a": [1]}, {"seed": 1})
    with RowJournal(tmp_path, {"seed": 2}) as store:
        store.add("a", [2])
        store.delete_other_identities()
    assert not old.exists()
    assert read(tmp_path, {"seed": 2}) == {"a": [2]}

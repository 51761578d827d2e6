"""Resume by batch: what was finished survives, what was torn is done again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import DataError
from toxtrail.journal import Journal

BATCHES = st.lists(
    st.lists(st.lists(st.text() | st.integers() | st.none(), max_size=3), max_size=3),
    min_size=1,
    max_size=5,
)


def written(folder, batches):
    with Journal(folder) as journal:
        for number, rows in enumerate(batches):
            journal.add(number, rows)
    return folder / "batches.jsonl"


def read(folder):
    with Journal(folder) as journal:
        return dict(journal.done)


@given(batches=BATCHES)
def test_what_was_added_is_read_back(batches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    written(folder, batches)
    assert read(folder) == dict(enumerate(batches))


@given(batches=BATCHES, data=st.data())
def test_a_file_cut_anywhere_loses_at_most_the_last_batch(batches, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal")
    path = written(folder, batches)
    content = path.read_bytes()
    cut = data.draw(st.integers(len(content) - len(content.splitlines(True)[-1]), len(content)))
    path.write_bytes(content[:cut])
    kept = read(folder)
    expected = len(batches) if cut == len(content) else len(batches) - 1
    assert kept == dict(list(enumerate(batches))[:expected])


def test_a_torn_line_is_overwritten_by_the_next_batch(tmp_path):
    path = written(tmp_path, [[["a"]], [["b"]]])
    path.write_bytes(path.read_bytes()[:-3])
    with Journal(tmp_path) as journal:
        journal.add(1, [["c"]])
    assert read(tmp_path) == {0: [["a"]], 1: [["c"]]}


def test_damage_before_the_end_refuses_the_journal(tmp_path):
    path = written(tmp_path, [[["alpha"]], [["beta"]]])
    path.write_bytes(path.read_bytes().replace(b"alpha", b"alpho"))
    with pytest.raises(DataError, match="damaged at line 1"), Journal(tmp_path):
        pass


def test_two_processes_never_write_one_journal(tmp_path, monkeypatch):
    monkeypatch.setattr("toxtrail.journal.LOCK_SECONDS", 0.1)
    second = Journal(tmp_path / "j")
    with Journal(tmp_path / "j") as first:
        first.add(0, [["a"]])
        with pytest.raises(DataError, match="Another process is making this"):
            second.__enter__()
    assert read(tmp_path / "j") == {0: [["a"]]}

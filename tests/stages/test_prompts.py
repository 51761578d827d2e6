"""Prompts: which are drawn, from which files."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.errors import ConfigError, DataError
from toxtrail.readers import read_rows, read_texts
from toxtrail.stages.prompts import draw_prompts

TEXTS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20, unique=True)


def drawn(texts, n, seed=1, subset="s"):
    return [p.text for p in draw_prompts(enumerate(texts), subset, "file:x", n, seed)]


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_file_changes_no_draw(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    n = (len(texts) + 1) // 2
    assert set(drawn(shuffled, n)) == set(drawn(texts, n))


@given(TEXTS)
def test_a_larger_draw_keeps_the_smaller_one(texts):
    n = (len(texts) + 1) // 2
    assert set(drawn(texts, n)) <= set(drawn(texts, len(texts)))


def test_another_seed_or_subset_draws_others():
    texts = [str(i) for i in range(50)]
    assert drawn(texts, 10) != drawn(texts, 10, seed=2)
    assert drawn(texts, 10) != drawn(texts, 10, subset="other")


def test_a_text_that_stands_twice_is_one_prompt():
    assert sorted(drawn(["a", "b", "a"], 2)) == ["a", "b"]


def test_asking_for_more_than_there_are_says_how_many_there_are():
    with pytest.raises(ConfigError, match=r"got 3, but file:x has 2 distinct"):
        drawn(["a", "b", "a"], 3)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_the_same_texts(suffix, tmp_path):
    texts, path = ["one, two", 'a "quote"', "ümlaut"], tmp_path / f"p{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    elif suffix == ".csv":
        rows = "".join('"' + t.replace('"', '""') + '"\n' for t in texts)
        path.write_text("text\n" + rows, encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), path)
    column = None if suffix == ".txt" else "text"
    assert [text for _, text in read_texts(path, column)] == texts


def test_a_wrong_column_names_the_nearest(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(DataError, match='no column "prompts". Did you mean "prompt"'):
        list(read_texts(path, "prompts"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.jsonl", b'{"a": "x"}\n{broken\n', "line 2 is not JSON"),
        ("p.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("p.txt", b"fine\n\xff\n", "is not UTF-8 text"),
        ("p.parquet", b"nothing", "no readable Parquet"),
        ("p.xlsx", b"", "rows are read from"),
        ("p.jsonl", b'{"a": 1}\n', "row 1: found int, a text is needed"),
        ("p.jsonl", b'{"a": "\\ud800"}\n', "not valid Unicode"),
    ],
)
def test_a_bad_file_is_named_with_the_place(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_texts(path, None if name == "p.txt" else "a"))


def test_rows_keep_their_place_in_the_file(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"a": "x"}\n\n{"a": "y"}\n')
    assert [number for number, _ in read_rows(path)] == [0, 2]

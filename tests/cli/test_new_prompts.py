"""The prompts of a new experiment: how many of which file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.cli._new_prompts import (
    DEFAULT_N,
    even_shares,
    prompts_of_file,
    prompts_of_texts,
)
from toxtrail.datasets.generated_texts.common import GeneratedText
from toxtrail.errors import ConfigError, DataError

SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 150), min_size=1)


@given(st.integers(1, 1000), SIZES)
def test_shares_are_as_even_as_the_sizes_allow(n, sizes):
    shares = dict.fromkeys(sizes, 0) | even_shares(n, sizes)
    assert sum(shares.values()) == min(n, sum(sizes.values()))
    assert all(shares[name] <= sizes[name] for name in sizes)
    open_shares = [shares[name] for name in sizes if shares[name] < sizes[name]]
    assert all(max(shares.values()) - share <= 1 for share in open_shares)
    assert 0 not in even_shares(n, sizes).values()


def file_with(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("p.txt", "one\ntwo\n", None),
        ("p.csv", "id,prompt\n1,one\n2,two\n", "prompt"),
        ("p.csv", "id,text\n1,one\n2,two\n", "text"),
        ("p.csv", "prompt,text\none,answer\ntwo,answer\n", "prompt"),
        ("p.jsonl", '{"odd": "one"}\n{"odd": "two"}\n', "odd"),
    ],
)
def test_the_column_of_the_prompts_is_detected(tmp_path, name, text, column):
    chosen = prompts_of_file(file_with(tmp_path, name, text), None, None)
    (entry,) = chosen.subsets.values()
    assert (entry.get("column"), entry["n"]) == (column, "all")
    assert chosen.files == {f"data/sources/{name}": text.encode()}
    assert chosen.settings == {}


def test_an_unclear_column_is_asked_for(tmp_path):
    path = file_with(tmp_path, "p.csv", "a,b\n1,2\n")
    with pytest.raises(ConfigError, match="--column NAME. Columns: a, b"):
        prompts_of_file(path, None, None)
    assert prompts_of_file(path, "b", None).subsets["p"]["column"] == "b"


def test_a_file_without_prompts_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no prompts"):
        prompts_of_file(file_with(tmp_path, "p.csv", "prompt,n\n,1\n"), None, None)


@pytest.mark.parametrize(
    ("n", "size", "number"), [(None, 201, DEFAULT_N), (None, 200, "all"), (3, 4, 3), (9, 4, "all")]
)
def test_n_is_a_maximum(tmp_path, n, size, number):
    path = file_with(tmp_path, "all.txt", "".join(f"prompt {i}\n" for i in range(size)))
    assert prompts_of_file(path, None, n).subsets["prompts"]["n"] == number


def test_conversations_need_the_chat_template(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
             {"role": "user", "content": "c"}]  # fmt: skip
    path = file_with(tmp_path, "p.jsonl", json.dumps({"prompt": turns}) + "\n")
    assert prompts_of_file(path, None, None).settings == {"generation.template": "chat"}


def texts(*prompts):
    return [GeneratedText(prompt, f"{prompt}.", None) for prompt in prompts]


def test_files_of_texts_have_their_prompts_in_common():
    chosen = prompts_of_texts(texts("c", "b ", "a"), [texts("a", "c", "d"), texts("c", "a")], None)
    (content,) = chosen.files.values()
    assert [json.loads(line)["prompt"] for line in content.splitlines()] == ["c", "a"]
    assert chosen.settings == {"generation.samples": 1}
    with pytest.raises(DataError, match="in all files"):
        prompts_of_texts(texts("a", "b"), [texts("a"), texts("b")], None)


def test_missing_texts_are_permitted_and_named():
    many = texts(*"aabb")
    chosen = prompts_of_texts(many, [texts(*"aab")], None)
    assert chosen.settings == {"generation.samples": 2, "generation.max_error_share": 0.25}
    assert "1 texts are missing" in str(chosen.choices[-1])

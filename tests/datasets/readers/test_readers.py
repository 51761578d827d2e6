"""Readers: every cell exactly as it was written, or a refusal that names the row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toxtrail.datasets.readers import read_rows, read_texts
from toxtrail.datasets.readers.csv_rows import DETECTED, unusual_delimiter
from toxtrail.errors import ConfigError, DataError

DELIMITERS = (",", *DETECTED)
CELL = st.text(st.sampled_from("ab,;\t|\"\n\r \xe9\u200b'0"), max_size=6)
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=5)
)
"""Rows of the same number of cells."""


def csv_text(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting).writerows(rows)
    return out.getvalue()


def rows_of(text, delimiter=None, name="p.csv"):
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, "utf-8", newline="")
        return list(read_rows(path, delimiter))


def refused(text, delimiter=None, name="p.csv"):
    with pytest.raises(DataError) as caught:
        rows_of(text, delimiter, name)
    return str(caught.value)


def names(width):
    return [f"column{i}" for i in range(width)]


@given(TABLES, st.sampled_from(DELIMITERS), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_python_writes_is_read_as_exactly_these_cells(rows, delimiter, quoting):
    header = names(len(rows[0]))
    text = csv_text([header, *rows], delimiter, quoting)
    found = rows_of(text, delimiter)
    assert [list(row.values()) for _, row in found] == rows
    assert rows_of(text) == found  # the header alone says the delimiter
    assert [number for number, _ in found] == list(range(len(rows)))


@given(TABLES, st.sampled_from(DELIMITERS), st.data())
def test_a_cell_more_or_fewer_is_refused_with_its_row(rows, delimiter, data):
    place = data.draw(st.integers(0, len(rows) - 1))
    damaged = [list(row) for row in rows]
    if data.draw(st.booleans()):
        damaged[place].insert(data.draw(st.integers(0, len(rows[0]))), "x")
    else:
        del damaged[place][data.draw(st.integers(0, len(rows[0]) - 1))]
        assume("".join(damaged[place]).strip())  # an empty line is no row
    said = refused(csv_text([names(len(rows[0])), *damaged], delimiter), delimiter)
    assert f"p.csv, row {place + 1} (line " in said
    assert f"found {len(damaged[place])} cell(s)" in said


@given(TABLES, st.sampled_from(DELIMITERS), st.data())
def test_a_double_quote_that_is_lost_or_added_is_refused_with_its_row(rows, delimiter, data):
    """In a cell that is quoted. Cells hold no line break: a row then is a line."""
    rows = [[re.sub(r"[\r\n]", "", cell) or "a" for cell in row] for row in rows]
    lines = csv_text(rows, delimiter, csv.QUOTE_ALL).splitlines(keepends=True)
    place = data.draw(st.integers(0, len(rows) - 1))
    line = lines[place]
    if data.draw(st.booleans()):
        marks = [m.start() for m in re.finditer('"', line)]
        where = data.draw(st.sampled_from(marks))
        lines[place] = line[:where] + line[where + 1 :]
    else:
        where = data.draw(st.integers(0, len(line.rstrip())))
        lines[place] = line[:where] + '"' + line[where:]
    said = refused(csv_text([names(len(rows[0]))], delimiter) + "".join(lines), delimiter)
    assert f"p.csv, row {place + 1} (line {place + 2})" in said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("id,text\n1,Hello, you are\n", "row 1 (line 2)"),
        ("id,text\n1,Hello\n2\n", "row 2 (line 3)"),
        ('id,text\n1,"Hello\n2,you\n3,are\n', "row 1 (line 2)"),
        ('id,text\n1,"a\nb"\n\n2,"Hello" you\n', "row 2 (line 5)"),
        ('id,text\n1,one\n2, "Hello"\n', "row 2 (line 3)"),
        ('id,text\n1,Hello"\n', "row 1 (line 2)"),
        ("id;text\n1;a;b\n", "row 1 (line 2)"),
        ("a,text,text\n1,2,3\n", '"text"'),
        ('id,"text\n1,Hello\n', "header (line 1)"),
    ],
)
def test_a_malformed_csv_file_is_refused_with_its_place(text, place):
    assert place in refused(text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('id,text\n1,say "hi" now\n', [{"id": "1", "text": 'say "hi" now'}]),
        (",text\n0,one\n", [{"": "0", "text": "one"}]),
        ("a,b,,\n1,2,,\n", [{"a": "1", "b": "2", "": ""}]),
        ("a,b\n\n1,2\n   \n3,4\n", [
            {"a": "1", "b": "2"}, {"a": "", "b": ""}, {"a": "3", "b": "4"},
        ]),
        ("\ufefftext\none\n", [{"text": "one"}]),
        ("sep=;\r\na;b\r\n1;2\r\n", [{"a": "1", "b": "2"}]),
        ("text\rone\rtwo\r", [{"text": "one"}, {"text": "two"}]),
        ("text\nHello; you\n", [{"text": "Hello; you"}]),
        ('text\n"' + "x" * 200_000 + '"\n', [{"text": "x" * 200_000}]),
    ],
)  # fmt: skip
def test_an_unusual_csv_file_is_read_as_it_is_meant(text, rows):
    assert [row for _, row in rows_of(text)] == rows


def test_the_limit_of_pythons_csv_module_is_left_as_it_was():
    before = csv.field_size_limit()
    rows_of("text\n" + "x" * 200_000 + "\n")
    assert csv.field_size_limit() == before


def test_a_delimiter_is_found_by_the_header_unless_it_is_given(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("id;Prompt Text;severity\n13;What a load of;1.3\n")
    assert [text for _, text, _ in read_texts(path, "Prompt Text")] == ["What a load of"]
    assert unusual_delimiter(path, None) == ";"
    with pytest.raises(DataError, match=r'no column "Prompt Text".*delimiter'):
        list(read_texts(path, "Prompt Text", ","))
    path.write_text("a;b|c\n1;2|3\n")
    with pytest.raises(DataError, match="delimiter"):
        list(read_rows(path))
    assert list(read_rows(path, "|")) == [(0, {"a;b": "1;2", "c": "3"})]
    path.write_text("a\tb\n1\t2\n")
    assert list(read_rows(path, "tab")) == list(read_rows(path, "\t")) == list(read_rows(path))
    path.write_text("id,text;note\n1,one\n")
    assert list(read_rows(path)) == [(0, {"id": "1", "text;note": "one"})]


def test_a_tsv_file_and_an_ending_in_capitals_are_read(tmp_path):
    (tmp_path / "p.TSV").write_text("a\tb\n1,2\t3\n")
    assert list(read_rows(tmp_path / "p.TSV")) == [(0, {"a": "1,2", "b": "3"})]


@pytest.mark.parametrize("name", ["p.jsonl", "p.txt", "p.parquet"])
def test_a_delimiter_of_a_file_without_cells_is_refused(name, tmp_path):
    (tmp_path / name).write_text('{"a": "x"}\n')
    with pytest.raises((ConfigError, DataError), match="remove delimiter"):
        list(read_texts(tmp_path / name, None if name == "p.txt" else "a", ";"))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>x</body></html>\n"
CONFLICT = "one\n<<<<<<< HEAD\ntwo\n=======\nthree\n>>>>>>> other\n"


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "Git LFS pointer"),
        (PAGE, "web page"),
        ("\n  <html>\n<body>502</body></html>", "web page"),
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
        ("404: Not Found", "404: Not Found"),
        ("%PDF-1.4\n1 0 obj\n", "PDF"),
    ],
)
def test_what_stands_in_place_of_the_data_is_named(suffix, content, said, tmp_path):
    path = tmp_path / f"p{suffix}"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        list(read_texts(path, None if suffix == ".txt" else "text"))


def archive():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("content.xml", "<x/>")
    return made.getvalue()


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".json", ".jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(), "ZIP archive"),
        (gzip.compress(b"text\none\n", mtime=0), "gzip"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 20, "old Microsoft Office"),
        ("text\none\n".encode("utf-16"), "UTF-16"),
        ("text\none\n".encode("utf-16-le"), "line 1: found a NUL"),
        (b"text\none\ntw\0o\n", "line 3: found a NUL"),
        ("text\none\ncaf\xe9\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8 text"),
        (CONFLICT.encode(), "line 2: .*merge conflict"),
        (CONFLICT.replace("\n", "\r\n").encode(), "line 2: .*merge conflict"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_text_is_named_with_its_kind(suffix, content, said, tmp_path):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"p\{suffix}.*{said}"):
        list(read_texts(path, None if suffix == ".txt" else "text"))


@pytest.mark.parametrize(
    "blank", ["\u200b", "\u200b\u200d\ufeff \u2060", "\xad", "\u3164", "\ufe0f"]
)
def test_a_text_of_which_nothing_can_be_seen_is_blank(blank, tmp_path):
    (tmp_path / "p.txt").write_text(f"one\n{blank}\n", "utf-8")
    (tmp_path / "p.jsonl").write_text(json.dumps({"text": blank}), "utf-8")
    assert [text for _, text, _ in read_texts(tmp_path / "p.txt", None)] == ["one", ""]
    assert [text for _, text, _ in read_texts(tmp_path / "p.jsonl", "text")] == [""]


@pytest.mark.parametrize(
    "text", ["\u200bone", "\u0915\u094d", "e\u0301", "\U0001f600\ufe0f", "\u202eabc"]
)
def test_a_text_that_can_be_seen_is_kept_as_it_is(text, tmp_path):
    (tmp_path / "p.txt").write_text(text, "utf-8")
    assert [found for _, found, _ in read_texts(tmp_path / "p.txt", None)] == [text]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', 'line 2 .*"a".* twice'),
        ("p.jsonl", '{"a": {"b": 1, "b": 1}}\n', 'line 1 .*"b".* twice'),
        ("p.json", '[{"a": 1},\n {"b": [{"a": 1, "a": 2}]}]', 'row 2: .*"a".* twice'),
        ("p.json", '{"c": {"n": ["x"], "n": ["y"]}}', '"n".* twice'),
        ("p.jsonl", '{"a": 1} x\n', "line 1 is not JSON"),
        ("p.jsonl", '{"a": 1}{"a": 2}\n', "line 1 is not JSON"),
        ("p.jsonl", '[\n{"a": 1}\n]\n', r"line 1 .*\.json"),
        ("p.jsonl", '[{"a": 1}]\n', r"line 1 .*\.json"),
        ("p.jsonl", '{"a": ' + "1" * 5000 + "}", "thousands of digits"),
        ("p.jsonl", "[" * 100_000, "nested too deep"),
        ("p.json", "[" * 100_000, "nested too deep"),
    ],
)  # fmt: skip
def test_json_that_would_lose_something_is_refused(name, text, said):
    assert re.search(said, refused(text, name=name))


def test_numbers_keep_their_digits_if_asked(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"rate": 0.10}\n{"rate": 1e-2}\n{"rate": 3}\n')
    found = [row["rate"] for _, row in read_rows(path, exact=True)]
    assert [str(one) for one in found] == ["0.10", "0.01", "3"]
    assert isinstance(found[0], Decimal)


def test_a_parquet_file_with_a_name_twice_or_damage_inside_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["a", "a"]), path)
    with pytest.raises(DataError, match='"a" occurs twice'):
        list(read_rows(path))
    pq.write_table(pa.table({"a": [f"text {i}" for i in range(1000)]}), path)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="not a readable Parquet"):
        list(read_rows(path))

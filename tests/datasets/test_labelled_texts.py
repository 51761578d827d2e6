"""Labelled files of public benchmarks and of one's own: columns, labels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toxtrail.datasets.labelled_texts import KNOWN_COLUMNS, TextColumns, labelled_texts
from toxtrail.datasets.readers import read_rows
from toxtrail.errors import DataError

PATH = Path("f.csv")


def read(*rows, named=None, prompt=None, by=None):
    return labelled_texts(PATH, list(enumerate(rows)), named, prompt, by)


@pytest.mark.parametrize(
    ("columns", "toxic", "harmless", "more"),
    [
        (("test_case", "label_gold"), "hateful", "non-hateful", {"functionality": "x"}),
        (("user_input", "toxicity"), 1, 0, {"model_output": "x", "jailbreaking": 1}),
        (("comment_text", "toxic"), "1", "0", {"severe_toxic": "0", "id": "1"}),
        (("comment_text", "toxicity"), 0.5, 0.49, {"rating": "approved"}),
        (("comment_text", "target"), "0.8", "0", {"severe_toxicity": "0.9"}),
        (("text", "toxic"), "yes", "no", {"id": "0"}),
        (("text", "toxic"), True, False, {}),
    ],
)
def test_the_columns_of_known_files_are_detected(columns, toxic, harmless, more):
    text, label = columns
    found = read({text: "a", label: toxic, **more}, {text: "b", label: harmless, **more})
    assert found.columns == TextColumns(text, label)
    assert [(one.text, one.toxic) for one in found.texts] == [("a", True), ("b", False)]
    assert TextColumns(text, label) in KNOWN_COLUMNS


def test_named_columns_win_and_prompts_and_groups_are_kept():
    rows = [
        {"q": "Why?", "a": "x", "bad": 1, "text": "t", "toxic": 0, "of": {"kind": "k"}},
        {"q": "How?", "a": "\u200b", "bad": 0, "text": "t", "toxic": 1, "of": {"kind": None}},
    ]
    found = read(*rows, named=TextColumns("a", "bad"), prompt="q", by="of.kind")
    assert found.texts == [("x", "Why?", True, "k"), ("", "How?", False, "")]


def test_rows_without_a_label_are_left_out_and_counted():
    rows = [{"text": "a", "toxic": word} for word in ("yes", "", None, float("nan"), "no")]
    found = read(*rows)
    assert (len(found.texts), found.unlabelled) == (2, 3)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([], {}, "no rows"),
        ([{"text": "a", "toxic": "yes"}] * 2, {}, "every label is toxic"),
        ([{"text": "a", "toxic": "no"}] * 2, {}, "every label is harmless"),
        ([{"text": "a", "toxic": ""}], {}, "no row has a label"),
        ([{"text": "a", "toxic": "yes"}, {"text": "b", "toxic": "perhaps"}], {}, "row 2.*perhaps"),
        ([{"text": "a", "toxic": "0.7"}], {}, "row 1.*0.7"),
        ([{"comment_text": "a", "toxic": -1}], {}, "row 1.*-1"),
        ([{"comment_text": "a", "target": 1.2}], {}, "row 1.*1.2"),
        ([{"comment_text": "a", "target": "x"}], {}, "row 1.*x"),
        ([{"a": "b", "c": "d"}], {}, "has a, c.*test_case and label_gold"),
        ([{"comment_text": "a", "toxic": 1, "target": 1}], {}, "several"),
        ([{"text": "a", "toxic": 1}], {"named": TextColumns("texts", "toxic")}, '"texts"'),
        ([{"text": "a", "toxic": 1}], {"prompt": "q"}, '"q"'),
        ([{"text": "a", "toxic": 1}], {"by": "q"}, '"q"'),
        ([{"text": "a", "toxic": 1}], {"by": "text"}, "has the texts"),
        ([{"text": 3, "toxic": 1}], {}, "row 1.*expected text"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_place(rows, options, said):
    with pytest.raises(DataError, match=said):
        read(*rows, **options)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_of_tables_is_read(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, path = [{"text": "a, b", "toxic": "yes"}, {"text": "c", "toxic": "no"}], tmp_path / "f"
    path = path.with_suffix(f".{suffix}")
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "json":
        path.write_text(json.dumps(rows), "utf-8")
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    else:
        mark = "," if suffix == "csv" else "\t"
        path.write_text(f'text{mark}toxic\n"a, b"{mark}yes\nc{mark}no\n', "utf-8")
    found = labelled_texts(path, list(read_rows(path)), None, None, None)
    assert [(one.text, one.toxic) for one in found.texts] == [("a, b", True), ("c", False)]

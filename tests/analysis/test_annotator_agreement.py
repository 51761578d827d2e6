"""Labels of several annotators: compared, merged, adjudicated, recorded with the counted ones."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from toxtrail.analysis.annotator_agreement import (
    annotator_agreement,
    counted_agreement,
    merged_sheet,
)
from toxtrail.analysis.human_labels import blind_labels, draw, key_of, sheet_rows
from toxtrail.datasets.label_files import annotator_names, counted, is_disagreement
from toxtrail.errors import DataError
from toxtrail.records.columns import from_json, to_json
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.results import AnnotatorAgreement
from toxtrail.records.rows import Generation
from toxtrail.reporting.annotator_tables import annotation_sentence

PATH = Path("merged.csv")


def as_rows(table):
    """Rows as they come back from a .csv file."""
    return list(enumerate(csv.DictReader(io.StringIO(rows_to_csv(table)))))


@pytest.fixture
def sample():
    """Sheet, key and texts of two variants; on every third prompt they gave the same text."""
    texts = {
        (v, f"p-{i}", 0): f"={i} said" if i % 3 else "the same" for v in "ab" for i in range(30)
    }
    generations = {
        v: [
            Generation(p, 0, "p", "ok", text, (1,), 3, "stop", "")
            for (own, p, _), text in texts.items()
            if own == v
        ]
        for v in "ab"
    }
    drawing = draw(generations, 30, seed=1)
    return drawing.sheet, key_of(PATH, as_rows(drawing.key)), texts


def given_labels(sheet):
    """Row id -> labels of two annotators, who disagree on every fifth row and of whom the second
    left out the last."""
    return {
        row["id"]: (n % 4 == 0, (n % 4 == 0) != (n % 5 == 0) if n < len(sheet) - 1 else None)
        for n, row in enumerate(sheet)
    }


@pytest.fixture
def merged(sample):
    sheet, _, _ = sample
    texts = {row["id"]: row["text"] for row in sheet}
    return merged_sheet(["ann", "bob"], texts, given_labels(sheet))


def adjudicated(merged, word="yes"):
    return [{**row, "toxic": row["toxic"] or word} for row in merged]


def test_a_merged_sheet_leaves_disagreements_empty_and_has_them_first(sample, merged):
    labels = given_labels(sample[0])
    split = [row for row in merged if row["toxic"] == ""]
    assert {row["id"] for row in split} == {i for i, own in labels.items() if is_disagreement(own)}
    assert merged[: len(split)] == split
    assert {row["id"]: row["text"] for row in merged} == {r["id"]: r["text"] for r in sample[0]}
    assert annotator_names(as_rows(merged)) == ["ann", "bob"]


def test_disagreements_must_be_adjudicated_unless_no_label_follows(sample, merged):
    _, key, texts = sample
    with pytest.raises(DataError, match=f"not adjudicated.*{merged[0]['id']}"):
        blind_labels(PATH, as_rows(merged), key, texts)
    done = blind_labels(PATH, as_rows(adjudicated(merged)), key, texts)
    assert (len(done.labels), done.unlabelled) == (len(texts), 0)
    first = sorted(row["id"] for row in merged)[:4]
    early = [row if row["id"] in first else {**row, "toxic": ""} for row in adjudicated(merged)]
    assert blind_labels(PATH, as_rows(early), key, texts).unlabelled == len(merged) - 4


def test_a_skipped_or_deleted_row_is_named(sample):
    sheet, key, texts = sample
    labelled = [{**row, "toxic": "no"} for row in sheet]
    skipped = sheet[7]["id"]
    for damaged in (
        [row for row in labelled if row["id"] != skipped],
        [{**row, "toxic": "" if row["id"] == skipped else "no"} for row in labelled],
    ):
        with pytest.raises(DataError, match=skipped):
            blind_labels(PATH, as_rows(damaged), key, texts)


def test_a_label_that_annotators_agree_on_cannot_be_changed(sample, merged):
    _, key, texts = sample
    changed = [
        {**row, "toxic": "no" if row["toxic"] == "yes" else row["toxic"] or "yes"} for row in merged
    ]
    with pytest.raises(DataError, match="row .* agree on another label"):
        blind_labels(PATH, as_rows(changed), key, texts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda rows: [*rows, rows[0]], "occurs twice"),
        (lambda rows: [{**rows[0], "text": "other"}, *rows[1:]], "not the text"),
        (lambda rows: [{**rows[0], "id": "00000000-1"}, *rows[1:]], "key has no"),
        (lambda rows: [{**rows[0], "toxic": "maybe"}, *rows[1:]], '"maybe" under toxic'),
    ],
)
def test_a_damaged_copy_of_a_sheet_is_refused(sample, damage, said):
    sheet, key, texts = sample
    with pytest.raises(DataError, match=said):
        sheet_rows(PATH, as_rows(damage(sheet)), key, texts)


def test_counted_labels_record_the_agreement_of_the_sheet(sample, merged):
    """Texts that share a row of the sheet count once, as they were labelled."""
    sheet, key, texts = sample
    by_sheet = annotator_agreement(["1", "2"], list(given_labels(sheet).values()), 0.95)
    done = blind_labels(PATH, as_rows(adjudicated(merged)), key, texts)
    content = counted(done.labels, texts, done.annotators)
    table = list(enumerate(csv.DictReader(io.StringIO(content))))
    assert len(table) > len(sheet)
    assert counted_agreement(PATH, table, 0.95) == by_sheet
    assert counted_agreement(PATH, as_rows([dict(row, toxic="no") for row in sheet]), 0.95) is None
    assert by_sheet.disagreements == sum(row["toxic"] == "" for row in merged)
    assert (by_sheet.labelled_once, by_sheet.texts) == (1, len(sheet))
    assert from_json(AnnotatorAgreement, to_json(by_sheet)) == by_sheet


def test_each_pair_of_annotators_counts_the_texts_that_both_labelled():
    texts = [(True, True, None), (True, False, False), (False, False, True), (None, None, None)]
    found = annotator_agreement(["a", "b", "c"], texts, 0.95)
    assert [(p.first, p.second, p.n, p.agreement) for p in found.pairs] == [
        ("a", "b", 3, pytest.approx(2 / 3)), ("a", "c", 2, 0.0), ("b", "c", 2, 0.5),
    ]  # fmt: skip
    assert [(p.toxic_first, p.toxic_second) for p in found.pairs[1:]] == [(0.5, 0.5), (0.0, 0.5)]
    assert found.texts == 3
    assert found.alpha is not None
    assert annotator_agreement(["a"], [(True,)], 0.95) is None


def test_the_sentence_of_a_report_has_kappa_and_both_base_rates():
    texts = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    sentence = annotation_sentence(annotator_agreement(["a", "b"], texts, 0.95))
    for number in ("70.0 %", "50 texts", "0.40 [", "50.0 % and 60.0 %", "15 disag"):
        assert number in sentence
    same = annotation_sentence(annotator_agreement(["a", "b"], [(False, False)] * 3, 0.95))
    assert "not defined" in same

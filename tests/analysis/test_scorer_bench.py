"""A scorer against labelled texts: counts by hand, and texts without a score."""

from __future__ import annotations

import pytest
from scipy.stats import beta

from toxtrail.analysis.scorer_bench import (
    bench_rows,
    rows_to_score,
    scorer_error_entry,
    unscored_reasons,
)
from toxtrail.datasets.labelled_texts import LabelledText
from toxtrail.records.rows import Score
from toxtrail.reporting.scorer_bench_table import bench_notes, bench_table


def measured(*texts, threshold=0.5):
    """(score or None, label, group) of each text -> rows."""
    labelled = [LabelledText("x", None, toxic, group) for _, toxic, group in texts]
    scores = [
        Score(f"row-{i}", 0, "labelled", "j", "ok" if value is not None else "error", value,
              None, 1, error=None if value is not None else "no answer")
        for i, (value, _, _) in enumerate(texts)
    ]  # fmt: skip
    return bench_rows(labelled, scores, threshold, 0.95, 0.5), scores


TEXTS = [
    (0.9, True, "a"), (0.5, True, "a"), (0.2, True, "b"), (None, True, "b"),
    (0.1, False, "a"), (0.6, False, "b"), (None, False, "c"),
]  # fmt: skip


def test_rates_and_area_are_counted_by_hand():
    (row, *_), _ = measured(*TEXTS)
    assert (row.n, row.n_toxic, row.base_rate) == (7, 4, 4 / 7)
    assert (row.toxic_found, row.scored_toxic, row.sensitivity) == (2, 3, 2 / 3)
    assert (row.harmless_passed, row.scored_harmless, row.specificity) == (1, 2, 0.5)
    assert row.auc == pytest.approx(4 / 6)  # of 3 x 2 pairs, .5 and .2 are below .6
    expected = beta.ppf([0.025, 0.975], 2.5, 1.5)
    assert [row.sensitivity_lo, row.sensitivity_hi] == pytest.approx(expected)


def test_a_text_without_a_score_is_neither_found_nor_passed():
    (row, *_), scores = measured(*TEXTS)
    assert (row.unscored_toxic, row.unscored_harmless) == (1, 1)
    entry = scorer_error_entry(row, "f.csv", {})
    assert entry["sensitivity"] == {"correct": 2, "total": 3}
    assert entry["specificity"] == {"correct": 1, "total": 2}
    assert unscored_reasons(scores) == {"no answer": 2}
    notes = bench_notes([row], 0.95, 0.5, {"j": unscored_reasons(scores)})
    assert any("2 texts without a score" in note for note in notes)


def test_groups_are_measured_alone_and_a_group_with_one_label_has_no_area():
    rows, _ = measured(*TEXTS)
    assert [(row.group, row.n) for row in rows] == [(None, 7), ("a", 3), ("b", 3), ("c", 1)]
    a, b, c = rows[1:]
    assert (a.sensitivity, a.specificity, a.auc) == (1, 1, 1)
    assert (b.sensitivity, b.specificity, b.auc) == (0, 0, 0)
    assert {c.sensitivity, c.specificity, c.auc, c.auc_lo} == {None}
    assert sum(row.n for row in rows[1:]) == rows[0].n
    assert len(bench_table(rows, "f.csv").rows) == 4


def test_without_groups_the_table_has_no_column_for_them():
    rows, _ = measured((0.9, True, None), (0.1, False, None))
    assert len(rows) == 1
    assert "group" not in {column.name for column in bench_table(rows, "f.csv").columns}


def test_a_score_at_the_threshold_is_toxic():
    (row,), _ = measured((0.7, True, None), (0.7, False, None), threshold=0.7)
    assert (row.toxic_found, row.harmless_passed) == (1, 0)


def test_texts_without_visible_characters_are_not_scored():
    texts = [LabelledText("x", None, True, None), LabelledText("", None, False, None)]
    assert [row.state for row in rows_to_score(texts)] == ["ok", "empty"]

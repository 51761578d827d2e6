"""A labelled sample: drawn blindly and paired, counted exactly, refused with the row."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from toxtrail.analysis.human_labels import (
    BATCH,
    SHEET,
    ConfusionCounts,
    blind_labels,
    draw,
    key_of,
    sample_name_of,
    scorer_agreement,
    to_params,
    unlike_errors,
)
from toxtrail.datasets.label_files import (
    Label,
    counted,
    labels_of_variant,
    open_labels,
)
from toxtrail.errors import DataError
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.rows import Generation

PATH = Path("labels.csv")
VARIANTS = ("instruct", "rude", "benign")


def rows(*values):
    names = ("variant", "prompt_id", "sample", "toxic")
    return iter([(i, dict(zip(names, own))) for i, own in enumerate(values)])


def said(variant, sizes, samples=1, text_of=lambda v, p, s: f"{v} on {p}, {s}", empty=()):
    """Generations of a variant; `empty` are prompts without a text."""
    return [
        Generation(
            f"{subset}-{i}", s, subset, "empty" if f"{subset}-{i}" in empty else "ok",
            "" if f"{subset}-{i}" in empty else text_of(variant, f"{subset}-{i}", s),
            (1,), 3, "stop", "",
        )
        for subset, size in sizes.items()
        for i in range(size)
        for s in range(samples)
    ]  # fmt: skip


def family(sizes, **options):
    return {v: said(v, sizes, **options) for v in VARIANTS}


def as_rows(table):
    """Rows as they come back from a .csv file."""
    return list(enumerate(csv.DictReader(io.StringIO(rows_to_csv(table)))))


def texts_of(generations):
    return {
        (v, t.prompt_id, t.sample): t.text
        for v, own in generations.items()
        for t in own
        if t.state == "ok"
    }


# --- drawing -----------------------------------------------------------------------------------


def anonymous(variant, prompt, sample):
    """Texts that do not name their variant."""
    return f"text {crc32(f'{variant}{prompt}{sample}'.encode())}"


def test_a_sheet_tells_nothing_of_a_variant():
    drawing = draw(family({"s": 60}, text_of=anonymous), 50, seed=3)
    assert all(tuple(row) == SHEET and row["toxic"] == "" for row in drawing.sheet)
    assert not any(v in rows_to_csv(drawing.sheet) for v in VARIANTS)
    ids = [row["id"] for row in drawing.sheet]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    of = {row["id"]: row["variant"] for row in drawing.key}
    order = np.array([VARIANTS.index(of[own]) for own in ids])
    places = [np.flatnonzero(order == v).mean() / len(ids) for v in range(3)]
    assert all(abs(place - 0.5) < 0.12 for place in places)
    assert 0.4 < np.mean(order[1:] != order[:-1]) < 0.9  # neither in blocks nor in turns
    first = [of[ids[start]] for start in range(0, len(ids), 3)]
    assert set(first) == set(VARIANTS)


def test_all_variants_are_drawn_on_the_same_prompts():
    drawing = draw(family({"s": 60, "t": 20}), 40, seed=3)
    prompts = {
        v: {row["prompt_id"] for row in drawing.key if row["variant"] == v} for v in VARIANTS
    }
    assert len(prompts["rude"]) == 40
    assert len(set(map(frozenset, prompts.values()))) == 1
    assert sum(p.startswith("t") for p in prompts["rude"]) == 10


def test_who_stops_early_has_labelled_whole_prompts_but_for_one_batch():
    drawing = draw(family({"s": 100}), 100, seed=1)
    of = {row["id"]: row["prompt_id"] for row in drawing.key}
    stop = 130
    before = [of[row["id"]] for row in drawing.sheet[:stop]]
    whole = [prompt for prompt in set(before) if before.count(prompt) == 3]
    assert len(whole) >= (stop // (3 * BATCH)) * BATCH


def test_a_draw_is_repeatable_and_another_seed_draws_others():
    texts = family({"s": 60})
    assert draw(texts, 20, seed=3) == draw(texts, 20, seed=3)
    turned = dict(reversed(texts.items()))
    assert draw(turned, 20, seed=3) == draw(texts, 20, seed=3)
    assert draw(texts, 20, seed=4).name != draw(texts, 20, seed=3).name


def test_equal_texts_of_a_prompt_are_labelled_once():
    drawing = draw(family({"s": 10}, text_of=lambda v, p, s: p), 10, seed=1)
    assert (len(drawing.sheet), len(drawing.key)) == (10, 30)


def test_of_several_continuations_all_variants_show_the_same_one():
    drawing = draw(family({"s": 30}, samples=5), 30, seed=1)
    samples = {}
    for row in drawing.key:
        samples.setdefault(row["prompt_id"], set()).add(row["sample"])
    assert all(len(own) == 1 for own in samples.values())
    assert len(set.union(*samples.values())) == 5


def test_a_text_that_is_not_there_is_not_drawn():
    texts = {**family({"s": 10}), "rude": said("rude", {"s": 10}, empty={"s-1", "s-2"})}
    drawing = draw(texts, 100, seed=1)
    assert len(drawing.key) == 28


@pytest.mark.parametrize("n", [1, 3, 7, 50, 200])
@pytest.mark.parametrize("sizes", [{"a": 1, "b": 1, "c": 96}, {"a": 10, "b": 10}, {"a": 5}])
def test_n_prompts_are_drawn_and_every_subset_that_they_suffice_for(n, sizes):
    drawing = draw(family(sizes), n, seed=5)
    prompts = {row["prompt_id"] for row in drawing.key}
    assert len(prompts) == min(n, sum(sizes.values()))
    if n >= len(sizes):
        assert {p.partition("-")[0] for p in prompts} == set(sizes)


# --- counting ----------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    """A drawing, its key as read, the texts."""
    texts = family({"s": 30})
    drawing = draw(texts, 20, seed=1)
    return drawing, key_of(PATH, as_rows(drawing.key)), texts_of(texts)


def labelled(drawing, toxic=lambda text: "rude on" in text):
    return [{**row, "toxic": "yes" if toxic(row["text"]) else "no"} for row in drawing.sheet]


def test_labels_come_back_to_their_variants(drawn):
    drawing, key, texts = drawn
    table = as_rows(labelled(drawing))
    assert sample_name_of(PATH, table) == drawing.name
    found = blind_labels(PATH, table, key, texts).labels
    assert len(found) == 60
    assert {label.variant for label in found if label.toxic} == {"rude"}
    assert blind_labels(PATH, table[::-1], key, texts).labels[::-1] == found
    first = blind_labels(PATH, as_rows(labelled(drawing)[:7]), key, texts)
    assert (len(first.labels), first.unlabelled) == (7, 53)


def test_a_text_that_changed_since_it_was_drawn_is_refused(drawn):
    drawing, key, texts = drawn
    other = {place: f"{text}!" for place, text in texts.items()}
    with pytest.raises(DataError, match="text has changed"):
        blind_labels(PATH, as_rows(labelled(drawing)), key, other)


def test_a_column_that_was_sorted_by_itself_is_refused(drawn):
    drawing, key, texts = drawn
    table = labelled(drawing)
    words = sorted(row["text"] for row in table)
    moved = [{**row, "text": word} for row, word in zip(table, words, strict=True)]
    with pytest.raises(DataError, match="not the text"):
        blind_labels(PATH, as_rows(moved), key, texts)


def test_what_a_spreadsheet_does_to_a_text_does_not_matter(drawn):
    drawing, key, texts = drawn
    table = [
        {**row, "text": f" {row['text']}\r\n".replace(",", "\ufffd")} for row in labelled(drawing)
    ]
    assert len(blind_labels(PATH, as_rows(table), key, texts).labels) == 60
    without = [{k: v for k, v in row.items() if k != "text"} for row in labelled(drawing)]
    assert len(blind_labels(PATH, as_rows(without), key, texts).labels) == 60


@pytest.mark.parametrize(
    ("ids", "said"),
    [(["1"], 'id "1"'), (["00000000-1", "00000001-1"], "several samples")],
)
def test_odd_row_numbers_are_named(ids, said):
    with pytest.raises(DataError, match=said):
        sample_name_of(PATH, [(i, {"id": own, "toxic": "no"}) for i, own in enumerate(ids)])


def test_a_row_that_the_key_does_not_know_is_named(drawn):
    drawing, key, texts = drawn
    with pytest.raises(DataError, match="the key has no"):
        blind_labels(PATH, [(0, {"id": f"{drawing.name}-999", "toxic": "no"})], key, texts)


def test_labels_are_read_as_people_write_them():
    found = open_labels(
        PATH, rows(("v", "a-0", "0", "Yes "), ("v", "a-1", "", "0"), ("v", "a-2", 0, ""))
    )
    assert [(label.prompt_id, label.toxic) for label in found] == [("a-0", True), ("a-1", False)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([("v", "a-0", 0, "perhaps")], 'row 1: "perhaps"'),
        ([("v", "a-0", "x", "yes")], '"x" under sample'),
        ([("v", "a-0", 0, "yes"), ("v", "a-0", 0, "no")], "row 2: the same text"),
        ([("v", "a-0", 0, "")], "no row .*under toxic"),
        ([("v", "a-0")], "no column"),
    ],
)
def test_a_bad_row_is_named(values, said):
    with pytest.raises(DataError, match=said):
        open_labels(PATH, rows(*values))


@pytest.mark.parametrize(
    ("value", "toxic"),
    [
        (False, False),
        (0, False),
        (0.0, False),
        ("0.0", False),
        (True, True),
        (1, True),
        (1.0, True),
    ],
)
def test_a_label_that_is_no_text_counts_as_one(value, toxic):
    """As JSON and Parquet hold it; a column with gaps becomes one of floats."""
    found = open_labels(PATH, rows(("v", "a-0", 0.0, value), ("v", "a-1", 1, "yes")))
    assert [(label.sample, label.toxic) for label in found] == [(0, toxic), (1, True)]
    assert len(open_labels(PATH, rows(("v", "a-0", 0, float("nan")), ("v", "a-1", 1, "yes")))) == 1


@pytest.mark.parametrize("sample", ["1_0", "1.5", 1.5, "-1", "\u0663", True])
def test_a_sample_that_is_no_number_is_refused(sample):
    with pytest.raises(DataError, match="row 1.* is not a number"):
        open_labels(PATH, rows(("v", "a-0", sample, "yes")))


# --- counted labels ----------------------------------------------------------------------------


def test_counted_labels_are_sorted_and_bound_to_their_texts():
    texts = family({"s": 3})
    judged = [Label("rude", "s-1", 0, True), Label("rude", "s-0", 0, False)]
    content = counted(judged, texts_of(texts))
    assert content == counted(judged[::-1], texts_of(texts))
    table = list(enumerate(csv.DictReader(io.StringIO(content))))
    assert labels_of_variant(PATH, table, "rude", texts["rude"]) == sorted(judged)
    assert labels_of_variant(PATH, table, "benign", texts["benign"]) == []
    other = said("rude", {"s": 3}, text_of=lambda v, p, s: "another")
    with pytest.raises(DataError, match="row 1, labels another text"):
        labels_of_variant(PATH, table, "rude", other)
    with pytest.raises(DataError, match="another text"):
        labels_of_variant(PATH, table, "rude", said("rude", {"s": 3}, empty={"s-1"}))


def test_a_label_without_a_text_is_not_counted():
    with pytest.raises(DataError, match='mean "rude"'):
        counted([Label("rud", "s-1", 0, True)], texts_of(family({"s": 3})))


# --- agreement ---------------------------------------------------------------------------------


MEASURED = {"scorer": {"uri": "file:j", "head": "toxic"}, "threshold": 0.5}


def test_agreement_counts_what_was_found_and_what_was_passed(score_rows):
    scores = {"v": score_rows({"a": [0.9, 0.2, 0.1, 0.8]})}
    judged = open_labels(
        PATH,
        rows(("v", "a-0", 0, "yes"), ("v", "a-1", 0, "yes"), ("v", "a-2", 0, "no"),
             ("v", "a-3", 0, "no")),
    )  # fmt: skip
    found = scorer_agreement(judged, scores, "judge", 0.5)
    assert found == {"v": ConfusionCounts(1, 2, 1, 2)}
    params = to_params(found, "labels.csv", by_variant=True, measured_on=MEASURED)
    assert params["measured_on"] == MEASURED
    assert params["sensitivity"] == {"correct": 1, "total": 2}
    assert params["variants"]["v"]["specificity"] == {"correct": 1, "total": 2}


def test_a_label_of_a_text_that_was_not_scored_is_refused(score_rows):
    judged = open_labels(PATH, rows(("v", "a-7", 0, "yes")))
    with pytest.raises(DataError, match="a-7"):
        scorer_agreement(judged, {"v": score_rows({"a": [0.9]})}, "judge", 0.5)


def test_a_sample_without_a_toxic_text_says_nothing_of_sensitivity():
    with pytest.raises(DataError, match="labelled toxic"):
        to_params({"v": ConfusionCounts(0, 0, 5, 5)}, "labels.csv", False, MEASURED)


UNLIKE = {"a": ConfusionCounts(18, 20, 179, 180), "b": ConfusionCounts(17, 20, 165, 180)}


def test_one_accuracy_for_variants_on_which_the_scorer_errs_unlike_is_refused():
    assert any("15 of 180 of b" in sentence for sentence in unlike_errors(UNLIKE))
    with pytest.raises(DataError, match=r"15 of 180 of b.*posterior\.labels"):
        to_params(UNLIKE, "labels.csv", by_variant=False, measured_on=MEASURED)
    assert to_params(UNLIKE, "labels.csv", True, MEASURED)["variants"].keys() == {"a", "b"}


def test_one_accuracy_for_variants_on_which_the_scorer_errs_alike_is_counted():
    alike = {"a": ConfusionCounts(18, 20, 175, 180), "b": ConfusionCounts(17, 20, 174, 180)}
    assert unlike_errors(alike) == []
    params = to_params(alike, "labels.csv", by_variant=False, measured_on=MEASURED)
    assert params["specificity"] == {"correct": 349, "total": 360}

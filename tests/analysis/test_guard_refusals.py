"""Refusals by a guard and by phrases, recomputed from the rows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from measured_families import PLAIN

from toxtrail.analysis.comparison import MeasuredRun, compare_family, compare_runs
from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.guard_refusals import refusal_pairs, refusal_rows
from toxtrail.analysis.response_table import build_response_table, limited_to, refusal_columns
from toxtrail.analysis.score_table import build_score_table
from toxtrail.analysis.variant_rates import estimate_variant_rates
from toxtrail.records.columns import from_json, to_json
from toxtrail.records.results import VariantIdentity, VariantSummary
from toxtrail.reporting.comparison_tables import refusal_differences, refusals, section_tables
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import refusal_notes
from toxtrail.stats.annotator_agreement import cohen_kappa

REFUSAL = "I'm sorry, but I cannot help with that request."
PARENTS = {"base": None, "tuned": "base"}


def identity(name):
    return VariantIdentity(variant=name, family="f", role=name, parent=PARENTS[name])


def cases(seed, n=40):
    """Prompt -> (whether the text is a refusal by phrases, the guard's answer or None)."""
    rng = np.random.default_rng(seed)
    answers = rng.choice([0.1, 0.5, 0.9, np.nan], n, p=[0.4, 0.1, 0.3, 0.2])
    return [
        (bool(rng.random() < 0.4), None if np.isnan(answer) else float(answer))
        for answer in answers
    ]


@pytest.fixture
def family(score_rows, spoken):
    """Variant -> its generations, score rows of a guard and another scorer, and cases by subset."""

    def make(seed, sizes=(40, 12)):
        named = {
            subset: cases(seed + i, n)
            for i, (subset, n) in enumerate(zip("ab", sizes, strict=True))
        }
        values = {subset: [0.1] * len(part) for subset, part in named.items()}

        def case(row):
            subset, number = row.prompt_id.split("-")
            return named[subset][int(number)]

        plain = score_rows(values)
        asked = [row._replace(scorer="second", refusal=case(row)[1]) for row in plain]
        generations = spoken(plain, lambda row: REFUSAL if case(row)[0] else PLAIN)
        return SimpleNamespace(rows=[*plain, *asked], generations=generations, cases=named)

    return make


def responses(one):
    return build_response_table(
        one.generations, guards=["second"], refusals=refusal_columns(one.rows)
    )


def test_counts_rates_and_kappa_are_those_of_the_answered_texts(family, settings):
    one = family(1)
    found = {row.subset: row for row in refusal_rows(responses(one), identity("base"), settings)}
    for subset, part in {**one.cases, "all": [c for cs in one.cases.values() for c in cs]}.items():
        row = found[subset]
        answered = [(phrase, answer >= 0.5) for phrase, answer in part if answer is not None]
        table = [[answered.count((p, g)) for p in (True, False)] for g in (True, False)]
        assert [[row.both, row.only_guard], [row.only_phrases, row.neither]] == table
        assert (row.n, row.n_unanswered) == (len(answered), len(part) - len(answered))
        assert row.guard_n == sum(g for _, g in answered)
        assert row.phrases_n == sum(p for p, _ in answered)
        assert row.agreement == np.mean([p == g for p, g in answered])
        assert (row.kappa, row.kappa_lo, row.kappa_hi) == cohen_kappa(table, settings.level)
        assert row.scorer == "second"
        if subset != "all":
            assert row.guard_rate == pytest.approx(row.guard_n / row.n)
            assert row.phrases_rate == pytest.approx(row.phrases_n / row.n)
            assert row.guard_lo < row.guard_rate < row.guard_hi
    weights = {subset: len(part) / 52 for subset, part in one.cases.items()}
    expected = sum(weights[s] * found[s].guard_rate for s in weights)
    assert found["all"].guard_rate == pytest.approx(expected)


def test_differences_are_paired_by_prompts_that_the_guard_answered_for_both(family, settings):
    one, other = family(1), family(7)
    edge = VariantPair("base", "tuned", "parent")
    found = refusal_pairs([edge], {"base": responses(one), "tuned": responses(other)}, settings)
    for row in (row for row in found if row.subset != "all"):
        both = [
            (x, y)
            for x, y in zip(one.cases[row.subset], other.cases[row.subset], strict=True)
            if x[1] is not None and y[1] is not None
        ]
        assert row.n == len(both)
        guard = np.mean([(y[1] >= 0.5) - (x[1] >= 0.5) for x, y in both])
        phrases = np.mean([int(y[0]) - int(x[0]) for x, y in both])
        assert row.guard_diff == pytest.approx(guard)
        assert row.phrases_diff == pytest.approx(phrases)
        assert row.guard_diff_lo <= row.guard_diff <= row.guard_diff_hi
    assert {row.subset for row in found} == {"all", "a", "b"}


def test_a_guard_that_answered_nothing_is_shown_with_its_missing_answers(family, settings):
    one = family(1)
    silent = [row._replace(refusal=None) for row in one.rows]
    table = build_response_table(
        one.generations, guards=["second"], refusals=refusal_columns(silent)
    )
    rows = refusal_rows(table, identity("base"), settings)
    assert {(row.subset, row.n, row.n_unanswered) for row in rows} == {
        ("all", 0, 52), ("a", 0, 40), ("b", 0, 12),
    }  # fmt: skip
    assert all(row.guard_rate is None and row.kappa is None for row in rows)
    edge = VariantPair("base", "tuned", "parent")
    (pair, *_) = refusal_pairs([edge], {"base": table, "tuned": responses(one)}, settings)
    assert (pair.n, pair.guard_diff, pair.guard_verdict) == (0, None, "no pairs")


def test_restricting_prompts_restricts_the_answers(family):
    asked = {"a": frozenset(f"a-{i}" for i in range(10))}
    one = family(1)
    (part,) = limited_to(responses(one), asked).values()
    answers = part.refusals["second"]
    expected = [case[1] >= 0.5 for case in one.cases["a"][:10] if case[1] is not None]
    named = dict(zip((answers.prompts[i] for i in answers.prompt), answers.guard, strict=True))
    assert sorted(named.values()) == sorted(expected)
    assert set(named) <= asked["a"]


@pytest.fixture
def compared(family, settings):
    parts = {"base": family(1), "tuned": family(7)}
    texts = {name: responses(one) for name, one in parts.items()}
    tables = {name: build_score_table(one.rows) for name, one in parts.items()}
    summaries = {
        name: estimate_variant_rates(
            tables[name], texts[name], identity(name), "judge", settings
        ).summary
        for name in parts
    }
    return SimpleNamespace(
        parts=parts,
        summaries=summaries,
        summary=compare_family(tables, texts, summaries, "base", "judge", settings).summary,
    )


def test_refusals_are_in_no_toxicity_number(compared, family, settings):
    one = family(1)
    plain = [row._replace(refusal=None) for row in one.rows]
    table = build_score_table(plain)
    without = estimate_variant_rates(
        table, build_response_table(one.generations), identity("base"), "judge", settings
    ).summary
    assert replace(compared.summaries["base"], refusals=()) == without


def test_the_tables_show_both_rates_and_the_note_counts_missing_answers(compared):
    view = ComparisonView(compared.summary, "judge", "all")
    rows = {row.variant: row for row in compared.summary.refusals if row.subset == "all"}
    shown = refusals(view)
    assert [cells[0] for cells in shown.rows] == ["base", "tuned"]
    names = [column.name for column in shown.columns]
    cells = dict(zip(names, shown.rows[0], strict=True))
    assert cells["no answer"] == rows["base"].n_unanswered
    assert cells["kappa"].startswith(f"{rows['base'].kappa:.2f} [")
    assert len(refusal_differences(view).rows) == 1
    assert [t for t in section_tables(view, ["behaviour"]) if t.title == shown.title]
    (note,) = refusal_notes(view)
    assert f"base {rows['base'].n_unanswered}" in note


def test_refusals_survive_json_and_a_comparison_of_runs(compared, settings):
    read = {
        name: from_json(VariantSummary, to_json(summary))
        for name, summary in compared.summaries.items()
    }
    assert read == compared.summaries
    runs = [
        MeasuredRun(
            name,
            replace(summary, manifest={"params": {"posterior": settings.plain()}}),
            compared.parts[name].rows,
            compared.parts[name].generations,
        )
        for name, summary in read.items()
    ]
    found = compare_runs(runs, "two runs", allow_mismatch=True)
    assert found.refusals == compared.summary.refusals
    assert found.refusal_pairs == compared.summary.refusal_pairs

"""Less toxic, or just producing less?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measured_families import cells_of

from toxtrail.analysis.response_behaviour import behaviour_rows
from toxtrail.analysis.response_flags.registry import UNFINISHED
from toxtrail.analysis.response_table import build_response_table, limited_to
from toxtrail.records.results import VariantIdentity
from toxtrail.reporting.comparison_tables import (
    BEHAVIOUR_FIELDS,
    BEHAVIOUR_PAIR_FIELDS,
    PAIR_FIELDS,
    behaviour,
    behaviour_differences,
    comparison_notes,
    rates,
    verdicts,
)
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.headline import subset_headline
from toxtrail.reporting.notes import (
    filter_notes,
    language_notes,
    thought_notes,
    unscored_warning,
)
from toxtrail.reporting.text import decrease_caveats, percent

VARIANT = VariantIdentity(variant="v", family="f", role="v", parent=None)
PARENTS = {"base": None, "tuned": "base"}
REFUSAL = "I'm sorry, but I cannot help with that request."
LOOP = "again and again and " * 12


def refusing(every):
    """A text for each row: a refusal on every n-th prompt."""
    return lambda row: REFUSAL if int(row.prompt_id.rpartition("-")[2]) % every == 0 else TEXT


FRENCH = "Le boulanger a ouvert à six heures et il a vendu le premier pain à une voisine."
TEXT = "The baker opened his shop at six and sold the first bread to a neighbour."


@pytest.fixture
def family(score_rows, measured):
    def make(toxic_a, toxic_b, text_of, language=None):
        def scores(toxic):
            return {"a": [0.9] * toxic + [0.1] * (60 - toxic), "b": [0.1] * 20}

        rows = {"base": score_rows(scores(toxic_a)), "tuned": score_rows(scores(toxic_b))}
        return measured(rows, PARENTS, text_of, language=language)

    return make


def row(summary, name, subset="all"):
    return next(r for r in getattr(summary, name) if r.subset == subset)


def test_a_drop_that_comes_with_refusals_is_called_so(family, settings):
    found = family(30, 5, {"tuned": refusing(2)}).compared(settings).summary
    pair = row(found, "pairs")
    assert pair.verdict == "lower"
    assert pair.reduced_output == "refused, shorter"
    note = decrease_caveats(pair)["reduced output"]
    assert "credibly more often" in note
    assert note.endswith("refused and shorter.")
    assert cells_of(PAIR_FIELDS, pair)["verdict"] == "lower (reduced output)"
    step = row(found, "behaviour_pairs")
    assert step.flags["refused"].diff == pytest.approx(0.5, abs=0.05)
    assert step.flags["refused"].verdict == "higher"
    assert "*" in cells_of(BEHAVIOUR_PAIR_FIELDS, step)["refused"]


def test_a_drop_that_comes_with_unfinished_thoughts_is_called_so(score_rows, measured, settings):
    scores = {"a": [0.9] * 30 + [0.1] * 30, "b": [0.1] * 20}
    tuned = [
        row._replace(state="unfinished", toxicity=None, heads=None) if 30 <= i < 60 else row
        for i, row in enumerate(score_rows({"a": [0.9] * 5 + [0.1] * 55, "b": [0.1] * 20}))
    ]
    found = measured({"base": score_rows(scores), "tuned": tuned}, PARENTS).compared(settings)
    summary = found.summary
    pair, step = row(summary, "pairs", "a"), row(summary, "behaviour_pairs", "a")
    assert (pair.verdict, pair.reduced_output) == ("lower", "unfinished, shorter")
    assert pair.dropped == 30
    assert step.flags["unfinished"].diff == pytest.approx(0.5)
    rate = next(r for r in summary.rates if (r.variant, r.subset) == ("tuned", "a"))
    assert (rate.n_ok, rate.n_unfinished, rate.n_scored, rate.rate) == (30, 30, 30, 5 / 30)
    view = ComparisonView(summary, "judge")
    assert UNFINISHED in [column.name for column in behaviour(view).columns]
    assert "30 unfinished" in str(rates(view).rows)
    assert "tuned 30 of 80" in thought_notes(view)[0]


def test_a_drop_that_comes_with_withheld_answers_is_called_so(score_rows, measured, settings):
    scores = {"a": [0.9] * 30 + [0.1] * 30, "b": [0.1] * 20}
    tuned = [
        row._replace(state="filtered", toxicity=None, heads=None) if 30 <= i < 60 else row
        for i, row in enumerate(score_rows({"a": [0.9] * 5 + [0.1] * 55, "b": [0.1] * 20}))
    ]
    summary = measured({"base": score_rows(scores), "tuned": tuned}, PARENTS).compared(settings)
    view = ComparisonView(summary.summary, "judge")
    pair = row(summary.summary, "pairs", "a")
    assert (pair.verdict, pair.reduced_output) == ("lower", "filtered, shorter")
    rate = next(r for r in view.rates if (r.variant, r.subset) == ("tuned", "a"))
    assert (rate.n_ok, rate.n_filtered, rate.n_scored) == (30, 30, 30)
    assert "filtered" in [column.name for column in behaviour(view).columns]
    assert "30 filtered" in str(rates(view).rows)
    (note,) = filter_notes(view)
    assert "tuned 30 of 80" in note
    assert all(percent(share) in note for share in (5 / 80, 35 / 80))
    assert "tuned 30 (30 withheld by a server)" in unscored_warning(view)


def test_without_unfinished_thoughts_nothing_is_shown_of_them(family, settings):
    view = ComparisonView(family(30, 5, {}).compared(settings).summary, "judge")
    assert UNFINISHED not in [column.name for column in behaviour(view).columns]
    assert thought_notes(view) == []


@pytest.mark.parametrize(
    ("units", "heading"),
    [(["tokens"] * 2, "tokens"), (["words"] * 2, "words"), (["tokens", "words"], "length")],
)
def test_lengths_are_headed_by_their_unit_and_not_compared_across_units(
    score_rows, spoken, measured, settings, units, heading
):
    rows = {name: score_rows({"a": [0.9, 0.1] * 10, "b": [0.1]}) for name in PARENTS}
    made = measured(rows, PARENTS)
    texts = {
        name: {subset: part._replace(length_unit=unit) for subset, part in made.texts[name].items()}
        for name, unit in zip(PARENTS, units, strict=True)
    }
    summaries = {
        name: replace(
            summary,
            behaviour=[replace(row, length_unit=unit) for row in summary.behaviour],
        )
        for (name, summary), unit in zip(made.summaries.items(), units, strict=True)
    }
    summary = made._replace(texts=texts, summaries=summaries).compared(settings).summary
    view = ComparisonView(summary, "judge")
    assert f"{heading} (10-90 %)" in [column.name for column in behaviour(view).columns]
    assert heading in [column.name for column in behaviour_differences(view).columns]
    step = row(summary, "behaviour_pairs")
    assert (step.length_diff is None) == (heading == "length")
    assert step.length_unit == ("" if heading == "length" else heading)


def test_a_drop_without_them_is_not(family, settings):
    pair = row(family(30, 5, {}).compared(settings).summary, "pairs")
    assert (pair.verdict, pair.reduced_output, decrease_caveats(pair)) == ("lower", "", {})


def test_a_rise_in_toxicity_is_not_excused_by_refusals(family, settings):
    pair = row(family(5, 30, {"tuned": refusing(2)}).compared(settings).summary, "pairs")
    assert (pair.verdict, decrease_caveats(pair)) == ("higher", {})


def in_french(row):
    return FRENCH if int(row.prompt_id.rpartition("-")[2]) % 2 else TEXT


def test_a_drop_that_comes_with_another_language_is_called_so(family, settings):
    found = family(30, 5, {"tuned": in_french}, "en-GB").compared(settings).summary
    pair, step = row(found, "pairs"), row(found, "behaviour_pairs")
    assert (pair.verdict, pair.reduced_output, pair.other_language) == ("lower", "", True)
    assert list(decrease_caveats(pair)) == ["other language"]
    assert cells_of(PAIR_FIELDS, pair)["verdict"] == "lower (other language)"
    assert step.flags["other_language"].diff == pytest.approx(0.5)
    assert "*" in cells_of(BEHAVIOUR_PAIR_FIELDS, step)["other language"]
    view = ComparisonView(found, "judge")
    assert any('"other language"' in note for note in comparison_notes(view))
    assert all("prompts.subsets" not in note for note in comparison_notes(view))
    assert subset_headline(view).endswith(": lower (other language).")
    (result,) = verdicts(view)
    assert result.remark == decrease_caveats(pair)["other language"]


@pytest.mark.parametrize("language", [None, "tlh"])
def test_without_an_identified_language_the_flag_is_not_computed(family, settings, language):
    found = family(30, 5, {"tuned": in_french}, language).compared(settings).summary
    for own in found.behaviour:
        flag = own.flags["other_language"]
        assert (flag.n, flag.rate) == (None, None)
        assert cells_of(BEHAVIOUR_FIELDS, own)["other language"] == "-"
    step = row(found, "behaviour_pairs")
    assert (step.flags["other_language"].diff, row(found, "pairs").other_language) == (None, False)
    view = ComparisonView(found, "judge")
    (note,) = language_notes(view)
    assert "a, b:" in note
    assert "other language" not in [column.name for column in behaviour(view).columns]


def test_texts_of_prompts_in_two_languages_are_not_compared(family, settings):
    english, french = family(30, 5, {}, "en"), family(30, 5, {}, "fr")
    mixed = english._replace(texts={"base": english.texts["base"], "tuned": french.texts["tuned"]})
    step = row(mixed.compared(settings).summary, "behaviour_pairs")
    assert (step.flags["other_language"].diff, step.flags["empty"].diff) == (None, 0.0)


def test_rates_are_those_of_the_texts(score_rows, spoken, settings):
    rows = score_rows({"a": [0.1] * 20, "b": [None] * 4 + [0.1]})
    texts = build_response_table(
        spoken(rows, lambda r: LOOP if r.prompt_id in ("a-1", "a-2") else TEXT)
    )
    found = {r.subset: r for r in behaviour_rows(texts, VARIANT, settings)}
    loops = found["a"].flags["repetitive"]
    assert (loops.n, found["b"].flags["empty"].n) == (2, 4)
    assert loops.rate == pytest.approx(0.1)
    assert found["all"].flags["empty"].rate == pytest.approx(5 / 25 * 0.8)
    assert loops.lo < 0.1 < loops.hi
    assert found["all"].length_q50 == len(TEXT.split())
    assert cells_of(BEHAVIOUR_FIELDS, found["b"])["empty"] == "80.0 %"


def test_rows_without_a_continuation_are_not_taken_for_silence(score_rows, spoken, settings):
    generations = [
        g._replace(state="error", text="", token_ids=(), finish_reason="none", error="x")
        if g.prompt_id == "a-0"
        else g
        for g in spoken(score_rows({"a": [0.1, 0.1]}))
    ]
    rows = behaviour_rows(build_response_table(generations), VARIANT, settings)
    (own,) = [r for r in rows if r.subset == "a"]
    assert (own.n_prompts, own.n_continuations, own.flags["empty"].n) == (2, 1, 0)


def test_nothing_said_at_all_has_no_rate(score_rows, spoken, settings):
    generations = [
        g._replace(state="error", text="", token_ids=(), error="x")
        for g in spoken(score_rows({"a": [0.1]}))
    ]
    for own in behaviour_rows(build_response_table(generations), VARIANT, settings):
        assert {flag.rate for flag in own.flags.values()} == {None}
        assert own.length_mean is None
        assert cells_of(BEHAVIOUR_FIELDS, own)["empty"] == "-"


def test_a_variant_against_itself_differs_in_nothing(family, settings):
    found = family(20, 20, {}).compared(settings).summary
    for own in found.behaviour_pairs:
        found = {flag.verdict for name, flag in own.flags.items() if name != "other_language"}
        assert {*found, own.length_verdict} == {"not decisive"}


def test_limiting_keeps_only_the_prompts_in_common(score_rows, spoken):
    own = build_response_table(spoken(score_rows({"a": [0.1] * 4, "b": [0.1]})))
    kept = limited_to(own, {"a": frozenset({"a-1", "a-3"})})
    assert list(kept) == ["a"]
    assert kept["a"].prompts == ("a-1", "a-3")
    assert all(shares.size == 2 for shares in kept["a"].shares.values())
    assert np.isfinite(kept["a"].tokens).all()


@pytest.mark.parametrize(
    ("words", "verdict", "less"),
    [(20, "not decisive", ""), (19, "too small", ""), (18, "lower", "shorter"),
     (10, "lower", "shorter"), (21, "too small", ""), (22, "higher", "")],
)  # fmt: skip
def test_a_length_counts_from_a_tenth_on(family, settings, words, verdict, less):
    texts = {
        "base": lambda row: " ".join(f"w{i}" for i in range(20)),
        "tuned": lambda row: " ".join(f"w{i}" for i in range(words)),
    }
    found = family(30, 5, texts).compared(settings).summary
    for subset in ("all", "a", "b"):
        step = row(found, "behaviour_pairs", subset)
        assert step.length_verdict == verdict
        assert step.length_change == pytest.approx(words / 20 - 1)
        assert row(found, "pairs", subset).reduced_output == less
    starred = "*" in cells_of(BEHAVIOUR_PAIR_FIELDS, row(found, "behaviour_pairs"))["length"]
    assert starred == (verdict in ("higher", "lower"))


def test_a_length_that_differs_by_chance_does_not_count(family, settings):
    def long_on(*prompts):
        return lambda row: LOOP if row.prompt_id in prompts else "Bread."

    texts = {"base": long_on("a-0", "a-1"), "tuned": long_on("a-2")}
    found = family(30, 5, texts).compared(settings)
    step = row(found.summary, "behaviour_pairs")
    assert step.length_change < -0.1
    assert step.length_verdict == "not decisive"


def test_nothing_is_shorter_than_nothing(family, settings):
    found = family(30, 5, {"base": lambda row: "", "tuned": lambda row: ""}).compared(settings)
    step = row(found.summary, "behaviour_pairs")
    assert (step.length_change, step.length_verdict) == (None, "not decisive")

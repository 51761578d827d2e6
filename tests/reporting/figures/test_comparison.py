"""Figures: the same numbers give the same bytes, names are shown as they are, nothing is drawn for
nothing."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from result_rows import filled

from toxtrail.records.results import (
    ComparisonSummary,
    ConditionMismatchRow,
    PairRow,
    PoolSummary,
    PredictiveCheckRow,
    RateRow,
    ScorerPooling,
    ThresholdRow,
)
from toxtrail.reporting.figures.comparison import (
    LABEL_WIDTH,
    differences_figure,
    posteriors_figure,
    rates_figure,
    thresholds_figure,
)
from toxtrail.reporting.figures.pooled_checks import posterior_predictive_figure, rank_figure
from toxtrail.reporting.figures.style import variant_style

pytestmark = pytest.mark.slow

PARENTS = {"base": None, "tuned": "base"}
MISMATCH = ConditionMismatchRow(variant="v", field="x", found="1", reference="2")
CHECK = {
    "statistic": "toxic", "variant": "v", "subset": "a", "observed": 4.0, "predicted": 5.0,
    "predicted_lo": 2.0, "predicted_hi": 9.0, "p": 0.4,
}  # fmt: skip


@pytest.fixture
def compared(score_rows, settings, measured):
    def make(subset="a", values=None):
        values = values or {"base": [0.1] * 30 + [0.9] * 10, "tuned": [0.1] * 20 + [0.9] * 20}
        rows = {name: score_rows({subset: own, "b": [0.2] * 5}) for name, own in values.items()}
        return measured(rows, PARENTS).compared(settings)

    return make


def all_of(found):
    summary = found.summary
    return {
        "rates": rates_figure(summary),
        "differences": differences_figure(summary),
        "posteriors": posteriors_figure(summary, found.draws),
        "thresholds": thresholds_figure(summary),
    }


def test_equal_numbers_give_equal_bytes(compared):
    assert all_of(compared()) == all_of(compared())


def test_each_figure_is_an_image_and_a_drawing_with_words(compared):
    for name, figure in all_of(compared()).items():
        image = Image.open(BytesIO(figure.png))
        assert image.width == 1200, name
        assert "<text" in figure.svg, name
        assert "judge" in figure.svg, name


def test_no_two_figures_of_a_page_share_an_id(compared):
    ids = [set(re.findall(r'\bid="([^"]+)"', f.svg)) for f in all_of(compared()).values()]
    ours = [{i for i in own if re.match(r"[pmC]\w*[0-9a-f]{8}", i)} for own in ids]
    for one, own in enumerate(ours):
        for other in ours[one + 1 :]:
            assert not own & other


@pytest.mark.parametrize("name", ["<b>&amp;", "$x_1$ and $y$", "a$b", "under_score^2", "\\alpha"])
def test_a_name_is_shown_as_it_is(compared, name):
    for figure in all_of(compared(subset=name)).values():
        assert "<b>" not in figure.svg
        Image.open(BytesIO(figure.png)).verify()
    svg = rates_figure(compared(subset=name).summary).svg
    assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg


def test_what_was_not_measured_is_said_and_not_drawn(compared):
    found = compared(values={"base": [None] * 4, "tuned": [None] * 4})
    figures = all_of(found)
    assert "nothing scored" in figures["rates"].svg
    assert "no pairs" in figures["differences"].svg


def test_a_family_of_one_says_so(score_rows, settings, measured):
    found = measured({"base": score_rows({"a": [0.1, 0.9]})}, PARENTS).compared(settings)
    figures = all_of(found)
    assert "one variant" in figures["differences"].svg
    assert "No two variants" in figures["posteriors"].svg


def test_unlike_conditions_are_marked_everywhere(compared):
    found = compared()
    marked = found._replace(summary=replace(found.summary, mismatch=[MISMATCH]))
    for figure in all_of(marked).values():
        assert "NOT COMPARABLE" in figure.svg


def rate_row(variant, subset, n=32, scorer="judge"):
    rate = {"rate": 0.2, "rate_lo": 0.1, "rate_hi": 0.3, "n_scored_prompts": n, "k": 1}
    return filled(RateRow, variant=variant, scorer=scorer, subset=subset, **rate)


def made_up(variants, subsets=("all", "a"), **changed):
    """A summary of as many variants as wished, without computing anything."""
    diff = {"n": 32, "diff": 0.05, "diff_lo": 0.01, "diff_hi": 0.09, "rope": 0.01}
    diff |= {"diff_hdi_lo": 0.011, "diff_hdi_hi": 0.089, "probability_higher": 0.994}
    diff["verdict"] = "higher"
    rows = {
        "rates": [rate_row(v, s) for v in variants for s in subsets],
        "pairs": [
            filled(PairRow, a=variants[0], b=b, scorer="judge", subset=s, **diff)
            for b in variants[1:]
            for s in subsets
        ],
        "thresholds": [
            filled(ThresholdRow, variant=v, scorer="judge", subset=s, threshold=t, rate=0.2,
                   rate_lo=0.1, rate_hi=0.3)
            for v in variants for s in subsets for t in (0.25, 0.5, 0.75)
        ],
    }  # fmt: skip
    how = {
        "primary": "judge",
        "threshold": {"judge": 0.5},
        "level": 0.95,
        "rope_pp": 1.0,
        "mismatch": [],
    }
    return filled(ComparisonSummary, **{**how, **rows, **changed})


def drawn(summary):
    pairs = list(dict.fromkeys(f"{row.b} - {row.a}" for row in summary.pairs))
    values = np.random.default_rng(1).normal(0.05, 0.02, size=(2, 50, 1, len(pairs), 1))
    dims = ("chain", "draw", "scorer", "pair", "subset")
    coords = {"scorer": ["judge"], "pair": pairs, "subset": ["all"]}
    return posteriors_figure(summary, xr.Dataset({"difference": (dims, values)}, coords))


def texts(figure):
    return [
        html.unescape(text) for text in re.findall(r"<t(?:ext|span)\b[^>]*>([^<]+)<", figure.svg)
    ]


def height(figure):
    return Image.open(BytesIO(figure.png)).height


def test_long_names_are_broken_and_no_part_of_them_is_lost():
    names = [f"{letter}-{'tuned-' * 16}r8" for letter in "abc"]
    summary = made_up(names)
    figures = [f(summary) for f in (rates_figure, differences_figure, thresholds_figure)]
    for figure in (*figures, drawn(summary)):
        found = [t for t in texts(figure) if "tuned" in t]
        assert max(len(text) for text in found) <= LABEL_WIDTH
        assert names[1] in "".join(found)


@pytest.mark.parametrize("make", [rates_figure, differences_figure, thresholds_figure, drawn])
def test_a_large_family_gets_a_taller_figure(make):
    subsets = ("all", "a", "b", "c", "d")
    small, large = (made_up([f"v{i}" for i in range(n)], subsets) for n in (3, 28))
    figure = make(large)
    assert height(figure) > 2 * height(make(small))
    assert {f"v{i}" for i in range(1, 28)} <= set(re.findall(r"\bv\d+", " ".join(texts(figure))))


def test_bands_are_drawn_for_few_variants_only():
    few, many = (thresholds_figure(made_up([f"v{i}" for i in range(n)])) for n in (6, 7))
    assert "FillBetween" in few.svg
    assert "bands" in few.svg
    assert "FillBetween" not in many.svg
    assert "bands" not in many.svg


def test_the_prompts_counted_are_of_the_primary_scorer_and_of_every_variant():
    rates = [rate_row("v", "all", 30), rate_row("w", "all", 32), rate_row("v", "all", 7, "other")]
    summary = made_up(["v", "w"], ("all",), rates=rates)
    for figure in (rates_figure(summary), thresholds_figure(summary)):
        assert "(30 to 32 prompts)" in " ".join(texts(figure))


def test_a_subset_without_thresholds_is_an_empty_panel_that_says_so():
    summary = made_up(["v", "w"])
    rows = [row for row in summary.thresholds if row.subset != "a"]
    assert texts(thresholds_figure(replace(summary, thresholds=rows))).count("nothing scored") == 1
    assert "Nothing was scored" in thresholds_figure(replace(summary, thresholds=[])).svg


def test_an_empty_figure_is_marked_as_not_comparable_too():
    summary = made_up(["v"], thresholds=[], mismatch=[MISMATCH])
    for figure in (differences_figure(summary), drawn(summary), thresholds_figure(summary)):
        assert "NOT COMPARABLE" in figure.svg


def test_drawing_leaves_no_state_in_matplotlib():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    rates_figure(made_up(["v", "w"]))
    assert dict(mpl.rcParams) == before


@given(st.text(st.sampled_from("ab$_^\\<&{}-"), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_any_name_is_shown_whole(name):
    assert f"x{name}x" in texts(rates_figure(made_up([f"x{name}x"], ("all",))))


def test_no_two_variants_look_alike_even_in_grey():
    looks = [variant_style(place) for place in range(35)]
    assert len({(own["marker"], str(own["linestyle"])) for own in looks}) == 35


@pytest.mark.parametrize(("p", "said"), [(0.4, "p 0.40"), (0.001, "does not fit")])
def test_a_check_says_whether_it_fits(p, said):
    check = PredictiveCheckRow(**{**CHECK, "p": p})
    scorers = {"judge": ScorerPooling(status="pooled", reason="", checks=[check])}
    pooled = filled(PoolSummary, primary="judge", scorers=scorers)
    assert said in posterior_predictive_figure(pooled).svg


def test_without_a_pooled_model_the_figures_say_why():
    own = ScorerPooling(status="left out", reason="pooling is switched off")
    pooled = filled(PoolSummary, primary="j", scorers={"j": own})
    assert "switched off" in posterior_predictive_figure(pooled).svg
    assert "no chains" in rank_figure(xr.Dataset(), "j").svg


def test_ranks_show_each_hyperparameter_once():
    values = np.random.default_rng(1).normal(size=(4, 200, 1))
    dims = ("chain", "draw", "scorer")
    draws = xr.Dataset(
        {
            "mu": (dims, values),
            "sd_prompt": (dims, values),
            "rate": ((*dims, "v"), values[..., None]),
        },
        {"scorer": ["j"]},
    )
    svg = rank_figure(draws, "j").svg
    assert svg.count(">mu<") == 1
    assert "sd_prompt" in svg
    assert ">rate<" not in svg
    assert "chain 4" in svg

"""The answer at a glance: the worst first, named, and only called credible if it is."""

from __future__ import annotations

import pytest

from toxtrail.stages.glance import metrics_of, plot_rows
from toxtrail.stages.overview import answer, headline, in_order, rate_matrix, subsets_of
from toxtrail.stages.shown import rate_metrics
from toxtrail.stages.wording import rate_cells


@pytest.fixture
def summary(score_rows, settings, measured):
    values = {
        "base": {"mild": [0.1] * 40, "severe": [0.1] * 20 + [0.9] * 20},
        "better": {"mild": [0.1] * 40, "severe": [0.1] * 39 + [0.9]},
        "worse": {"mild": [0.1] * 39 + [0.9], "severe": [0.9] * 40},
    }
    rows = {name: score_rows(own) for name, own in values.items()}
    parents = {"base": None, "better": "base", "worse": "base"}
    return {"family": "f", **measured(rows, parents).compared(settings).summary}


def test_the_headline_names_the_worst_variant_of_a_subset_and_says_that_it_is_credible(summary):
    said = headline(summary, "judge", "severe")
    assert said.startswith("severe: Worst is worse against base, 50.0 % to 100.0 %")
    assert said.endswith("credible.")


def test_nothing_is_called_worst_where_the_data_do_not_decide(summary):
    said = headline(summary, "judge", "mild")
    assert "No variant is credibly more toxic" in said
    assert said.endswith("not decisive.")


def test_the_answer_counts_every_verdict(summary):
    assert answer(summary, "judge").startswith(
        "Of 2 differences over all prompts: 1 higher, 1 lower"
    )


def test_rows_stand_subset_by_subset_the_largest_rise_first(summary):
    rows = in_order([row for row in summary["pairs"] if row["scorer"] == "judge"])
    assert [row["subset"] for row in rows] == ["all"] * 2 + ["mild"] * 2 + ["severe"] * 2
    for subset in subsets_of(summary):
        found = [row["diff"] for row in rows if row["subset"] == subset]
        assert found == sorted(found, reverse=True)


def test_the_papers_table_has_a_row_for_each_variant_and_marks_what_is_credible(summary):
    columns, rows, note = rate_matrix(summary, "judge")
    assert columns == ["variant", "role", "against", "all>", "mild>", "severe>"]
    cells = {row[0]: row for row in rows}
    assert cells["worse"][-1] == "100.0 % (40/40) ▲"
    assert cells["better"][-1] == "2.5 % (1/40) ▼"
    assert cells["base"][2:] == ("-", "25.0 % (20/80)", "0.0 % (0/40)", "50.0 % (20/40)")
    assert "▲ ▼" in note


def test_dvc_gets_one_number_of_each_kind_for_each_variant(summary):
    found = metrics_of(summary)
    assert set(found) == {"base", "better", "worse"}
    assert found["base"]["rate_pct"] == 25.0
    assert "difference_pp" not in found["base"]
    assert found["worse"]["low_pp"] < found["worse"]["difference_pp"] < found["worse"]["high_pp"]
    assert [row["comparison"] for row in plot_rows(summary)] == ["better - base", "worse - base"]


def test_a_rate_in_per_cent_is_the_same_number_for_dvc_mlflow_and_the_terminal(summary):
    for variant, shown in metrics_of(summary).items():
        rows = [r for r in summary["rates"] if r["variant"] == variant]
        overall = next(r for r in rows if (r["scorer"], r["subset"]) == ("judge", "all"))
        logged = rate_metrics(rows)
        observed = 100 * overall["n_toxic"] / overall["n_scored"]
        assert shown["rate_pct"] == pytest.approx(observed, abs=5e-4)
        assert logged["judge/all/rate_pct"] == pytest.approx(observed)
        assert 100 * logged["judge/all/rate"] == pytest.approx(observed)
        assert shown["low_pct"] == pytest.approx(logged["judge/all/rate_lo_pct"], abs=5e-4)
        assert f"{observed:.1f} %" in rate_cells(overall)

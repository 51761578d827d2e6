"""The tables of a comparison have the columns that are promised, whoever reads them."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr

from toxtrail.analysis.comparison import comparison_tables, with_pooled
from toxtrail.analysis.family import variant_pairs
from toxtrail.config.schema import PoolingConfig
from toxtrail.pipeline import manifest_of
from toxtrail.records.analysis_output import AnalysisOutput
from toxtrail.reporting.comparison_tables import by_scorer, samples
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import method_line, reading_guide
from toxtrail.stats.bayes_libraries import SampleResult
from toxtrail.storage.artifacts import ArtifactStore

pytestmark = pytest.mark.slow

PROMISED = {
    "rates": """variant family role parent scorer subset weight n_prompts k n_toxic rate rate_mean
        rate_lo rate_hi pooled_rate pooled_rate_lo pooled_rate_hi score_mean score_mean_lo
        score_mean_hi rate_at_30 rate_at_50 rate_at_70 rate_at_90 corrected_rate corrected_rate_lo
        corrected_rate_hi r_hat ess_bulk ess_tail method prior_id""",
    "pairs": """a b relation scorer subset k n n11 n10 n01 n00 phi rate_a rate_b diff diff_lo
        diff_hi pd p_in_rope p_above p_below decision credible_paired credible_unpaired pooled_diff
        pooled_diff_lo pooled_diff_hi credible_pooled lfsr odds_ratio odds_ratio_lo odds_ratio_hi
        score_diff score_diff_lo score_diff_hi threshold_sign_stable tipping_fpr_gap corrected_diff
        corrected_diff_lo corrected_diff_hi prior_shift_sd mde80 n_needed rope level r_hat
        ess_min""",
    "error_control": """scorer n_pairs n_credible_paired n_credible_pooled expected_false_signs gate
        gate_reason first_try r_hat ess_bulk ess_tail divergences bfmi""",
}
PARENTS = {"base": None, "tuned": "base"}
POOLING = PoolingConfig(chains=4, draws=3000, target_accept=0.9)


def sampler(counts, effort):
    """Draws around the raw rates."""
    rng, shape = np.random.default_rng(effort.seed), (effort.chains, effort.draws)
    share = (counts.toxic + 0.5) / (counts.prompts + 1)
    eta = np.log(share / (1 - share)) + 0.3 * rng.standard_normal((*shape, *share.shape))
    posterior = {"eta": eta, "sd_prompt": np.full(shape, 0.1) + 0.01 * rng.random(shape)}
    posterior["mu"] = rng.standard_normal(shape)
    return SampleResult(posterior, np.zeros(shape), rng.standard_normal(shape), np.zeros(shape))


def spread(toxic, n):
    found = np.full(n, 0.1)
    found[np.random.default_rng(toxic).permutation(n)[:toxic]] = 0.9
    return list(found)


@pytest.fixture
def family(score_rows, measured):
    def make(k=1, second=None):
        rows = {}
        for name, toxic in (("base", 12), ("tuned", 30)):
            own = score_rows({"a": spread(toxic, 80), "b": spread(toxic // 2, 40)})
            other = score_rows({"a": spread(second or toxic, 80), "b": [0.1] * 40}, "other")
            once = [*own, *other]
            rows[name] = [row._replace(sample=sample) for sample in range(k) for row in once]
        return measured(rows, PARENTS)

    return make


@pytest.fixture
def summary(family, settings):
    own = family()
    found = own.pooled(settings, POOLING, sampler)
    return with_pooled(own.compared(settings), found.summary).summary


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_table_has_the_promised_columns_in_parquet_csv_and_json(name, summary, tmp_path):
    store, folder = ArtifactStore(tmp_path), tmp_path / "c"
    draws = xr.Dataset({"difference": (("chain", "draw"), np.zeros((4, 5)))})
    tables = comparison_tables(summary)
    manifest = manifest_of("compare", "f", {}, {}, {})
    store.write_analysis(folder, AnalysisOutput(summary, draws, {}, {}), manifest, tables)
    with (folder / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = pq.read_table(folder / f"{name}.parquet")
    assert set(PROMISED[name].split()) - set(header) == set()
    assert table.column_names == header == tables[name].names
    assert len(rows) == table.num_rows == len(getattr(summary, name))
    assert set(store.read_summary(folder)[name][0]) == set(header)


def test_the_values_of_the_pooled_columns_are_there(summary):
    for row in summary.rates:
        assert row.r_hat < 1.01 < row.ess_tail
        assert row.prior_id == "Beta(0.5, 0.5)"
    for row in summary.pairs:
        assert (row.k, row.r_hat < 1.01, row.ess_min > 1000) == (1, True, True)
    for claim in summary.error_control:
        assert (claim.gate, claim.first_try, claim.divergences) == ("pooled", "", 0)


def test_the_rate_at_the_threshold_in_use_is_the_rate(summary):
    for row in summary.rates:
        assert row.rate_at_50 == pytest.approx(row.rate, abs=0.01)
        assert row.rate_at_30 == pytest.approx(row.rate_at_50)
        assert row.rate_at_90 == pytest.approx(row.rate_at_50)  # all toxic ones score 0.9


def test_a_parent_of_the_reference_meets_it_once():
    parents = {"base": None, "instruct": "base", "tuned": "instruct"}
    assert [tuple(edge) for edge in variant_pairs(parents, "instruct")] == [
        ("base", "instruct", "parent"), ("instruct", "tuned", "parent")
    ]  # fmt: skip


def test_the_region_of_equivalence_is_a_share_of_one_rate_of_the_family(family, settings):
    config = settings.model_copy(update={"rope_relative": 0.25})
    summary = family().compared(config).summary
    reference = next(
        r for r in summary.rates if (r.variant, r.subset) == (summary.reference, "all")
    )
    assert summary.rope_reference == reference.rate_mean
    assert {r.rope for r in summary.pairs} == {0.25 * reference.rate_mean}
    assert (
        f"+-{25 * reference.rate_mean:.1f} points"
        in reading_guide(ComparisonView(summary, "judge"))[0]
    )
    small = family().compared(settings).summary
    assert {r.rope for r in small.pairs} == {0.01}
    given = config.model_copy(update={"rope_reference_pct": 40.0})
    assert {r.rope for r in family().compared(given).summary.pairs} == {0.1}


def test_every_scorer_is_shown_beside_the_primary_one(family, settings):
    summary = family(second=40).compared(settings).summary
    table = by_scorer(ComparisonView(summary, "judge"))
    names = [column.name for column in table.columns]
    assert names == ["variant", "against", "subset", "judge", "other", "scorers"]
    rows = {row[2]: row for row in table.rows}
    assert rows["a"][3].endswith("higher")
    assert rows["a"][4].endswith("not decisive")
    assert rows["a"][5] == "fragile"


def test_one_scorer_needs_no_such_table(score_rows, settings, measured):
    rows = {name: score_rows({"a": [0.1, 0.9]}) for name in PARENTS}
    summary = measured(rows, PARENTS).compared(settings).summary
    assert by_scorer(ComparisonView(summary, "judge")).rows == []


def test_k_stands_beside_the_numbers(family, settings):
    once, thrice = (ComparisonView(family(k=k).compared(settings).summary, "judge") for k in (1, 3))
    assert "k = 1 " in method_line(once)
    assert "k = 3 " in method_line(thrice)
    assert len(reading_guide(thrice)[0]) > len(reading_guide(once)[0])
    assert samples(once).rows == []
    assert samples(thrice).rows[0][:4] == ["base", "all", 3, 120]


def test_with_several_continuations_fewer_prompts_see_as_much(
    family, score_rows, settings, measured
):
    """Their spread is less than that of single labels: the posterior says so, a table would not."""
    rng, rows = np.random.default_rng(1), {}
    for name, rate in (("base", 0.2), ("tuned", 0.3)):
        own = [
            score_rows({"a": list(np.where(rng.random(200) < rate, 0.9, 0.1))}) for _ in range(9)
        ]
        rows[name] = [r._replace(sample=k) for k, some in enumerate(own) for r in some]
    many = measured(rows, PARENTS).compared(settings).summary.pairs[0]
    first = {name: [r for r in own if r.sample == 0] for name, own in rows.items()}
    one = measured(first, PARENTS).compared(settings).summary.pairs[0]
    assert many.mde80 < 0.6 * one.mde80
    assert many.n_needed < 200

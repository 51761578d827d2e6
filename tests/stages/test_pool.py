"""Pool: what is shown, what is left out with its reason, and what fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measured_families import cells_of

from toxtrail.analysis.comparison import with_pooled
from toxtrail.analysis.family import variant_pairs
from toxtrail.analysis.pooled_estimates import LEAST_DRAWS, rows_from_draws
from toxtrail.config.schema import PoolingConfig
from toxtrail.errors import InferenceError
from toxtrail.pipeline import manifest_of
from toxtrail.records.columns import to_json
from toxtrail.reporting.comparison_tables import PAIR_FIELDS
from toxtrail.reporting.comparison_view import ComparisonView
from toxtrail.reporting.notes import pooling_notes, seed_notes
from toxtrail.stats.bayes_libraries import SampleResult
from toxtrail.storage.artifacts import ArtifactStore

pytestmark = pytest.mark.slow

POOLING = PoolingConfig(chains=4, draws=3000, target_accept=0.9)
REAL = PoolingConfig(chains=4, draws=8000, target_accept=0.97)
PARENTS = {"base": None, "tuned": "base", "again": "base"}


class Fake:
    """A sampler whose draws lie around the raw rates; it remembers how it was asked."""

    def __init__(self, shift=0.0, divergences=(0, 0)):
        self.asked, self._shift, self._divergences = [], shift, list(divergences)

    def __call__(self, counts, effort):
        self.asked.append(effort)
        rng = np.random.default_rng(effort.seed)
        shape = (effort.chains, effort.draws)
        share = (counts.toxic + 0.5) / (counts.prompts + 1)
        centre = np.log(share / (1 - share)) + self._shift
        spread = 1 / np.sqrt(counts.prompts * share * (1 - share) + 1)
        eta = centre + spread * rng.standard_normal((*shape, *share.shape))
        diverging = np.zeros(shape)
        tries = list(dict.fromkeys(one.seed for one in self.asked))
        diverging[0, : self._divergences[tries.index(effort.seed)]] = 1
        posterior = {
            "eta": eta,
            "sd_prompt": np.abs(rng.normal(0.1, 0.01, shape)),
            "mu": rng.standard_normal(shape),
        }
        return SampleResult(posterior, diverging, rng.standard_normal(shape), np.zeros(shape))


def scores(toxic, n):
    """Rows that are toxic here and there, so that variants agree by chance only."""
    rng = np.random.default_rng(toxic)
    found = np.full(n, 0.1)
    found[rng.permutation(n)[:toxic]] = 0.9
    return list(found)


VALUES = {
    "base": {"a": scores(10, 80), "b": scores(8, 40)},
    "tuned": {"a": scores(30, 80), "b": scores(20, 40)},
}


@pytest.fixture
def family(score_rows, measured):
    def make(values):
        return measured({name: score_rows(own) for name, own in values.items()}, PARENTS)

    return make


@pytest.fixture
def own(family):
    return family(VALUES)


def test_pooled_rows_stand_beside_the_paired_ones(own, settings):
    found = own.pooled(settings, POOLING, Fake())
    assert found.summary.scorers["judge"].status == "pooled"
    alone = own.compared(settings)
    summary = with_pooled(alone, found.summary).summary
    for row in summary.pairs:
        assert row.pooled_diff_lo < row.pooled_diff < row.pooled_diff_hi
        assert abs(row.pooled_diff - row.diff) < 0.1
        assert "[" in cells_of(PAIR_FIELDS, row)["pooled"]
    overall = next(r for r in summary.pairs if r.subset == "all")
    parts = {r.subset: r.pooled_diff for r in summary.pairs}
    assert overall.pooled_diff == pytest.approx(2 / 3 * parts["a"] + 1 / 3 * parts["b"])
    (claim,) = summary.error_control
    assert claim.n_pairs == 3
    assert claim.n_credible_pooled == sum(r.credible_pooled for r in summary.pairs)
    assert "wrong sign" in pooling_notes(ComparisonView(summary, "judge"))[0]


def test_the_draws_are_those_of_the_table(own, settings):
    found = own.pooled(settings, POOLING, Fake())
    rate = found.draws["rate"].sel(scorer="judge", variant="tuned", subset="all")
    row = next(r for r in found.summary.rates if (r.variant, r.subset) == ("tuned", "all"))
    assert float(rate.mean()) == pytest.approx(row.pooled_rate)
    assert float(rate.quantile(0.025)) == pytest.approx(row.pooled_rate_lo)


@pytest.mark.parametrize("pooling", [POOLING, None])
def test_the_table_follows_from_the_draws_in_the_file(own, settings, tmp_path, pooling):
    """As a verification computes it."""
    store, folder = ArtifactStore(tmp_path), tmp_path / "results/pooled/f"
    found = own.pooled(settings, pooling, Fake())
    store.write_analysis(folder, found, manifest_of("pool", "f", {}, {}, {}))
    who = variant_pairs({v: PARENTS[v] for v in own.summaries}, "base")
    again = rows_from_draws(store.read_draws(folder), who, settings.level, found.summary.scorers)
    assert (again.rates, again.pairs) == (found.summary.rates, found.summary.pairs)


def test_a_first_try_that_fails_is_repeated_harder(own, settings):
    sampler = Fake(divergences=(1, 0))
    found = own.pooled(settings, POOLING, sampler)
    first, second = sampler.asked[0], sampler.asked[-1]
    assert [one.seed for one in sampler.asked].count(first.seed) == 1
    assert second._replace(draws=first.draws) == first._replace(
        target_accept=0.99, seed=first.seed + 1
    )
    status = found.summary.scorers["judge"]
    assert to_json(status.effort) == second._asdict()
    assert "1 divergent transitions" in status.first_try
    assert found.draws.attrs["sampler_seeds"] == f"judge: {second.seed}"


def test_no_more_is_drawn_than_the_gate_takes(own, settings):
    sampler = Fake()
    found = own.pooled(settings, POOLING, sampler)
    asked = [one.draws for one in sampler.asked]
    assert asked == sorted(asked)
    assert asked[0] == LEAST_DRAWS <= asked[-1] <= POOLING.draws
    assert found.summary.scorers["judge"].effort.draws == asked[-1]
    assert found.draws.sizes["draw"] == asked[-1]


class Odd(Fake):
    """It finds interactions, and one variant's rates far apart from its counts in one subset."""

    def __call__(self, counts, effort):
        result = super().__call__(counts, effort)
        spread = np.random.default_rng(1).normal(0.3, 0.01, result.energy.shape)
        return result._replace(posterior={**result.posterior, "sd_interaction": spread})


ODD = {
    "base": {s: scores(4 + i, 32) for i, s in enumerate("abcd")},
    "tuned": {**{s: scores(25 + i, 32) for i, s in enumerate("abc")}, "d": scores(4, 32)},
    "again": {s: scores(5 + i, 32) for i, s in enumerate("abcd")},
}


def test_a_variant_that_changed_everywhere_but_in_one_subset_has_no_pooled_rows_there(
    family, settings
):
    own = family(ODD)
    found = own.pooled(settings, POOLING, Odd())
    assert found.summary.scorers["judge"].status == "pooled"
    rows = {(r.b, r.subset): r for r in found.summary.pairs}
    for subset in "abcd":
        row = rows["tuned", subset]
        assert {row.pooled_diff, row.pooled_diff_lo, row.lfsr, row.credible_pooled} == {None}
        assert "4 of 32 prompts of d" in row.pooled_withheld
        assert rows["again", subset].pooled_diff is not None
    assert rows["tuned", "all"].pooled_diff is not None
    assert rows["tuned", "all"].pooled_withheld == ""
    summary = with_pooled(own.compared(settings), found.summary).summary
    notes = " ".join(pooling_notes(ComparisonView(summary, "judge")))
    assert "tuned against base, d" in notes
    assert {r.pooled_withheld for r in summary.rates if r.variant == "base"} == {""}
    shown = [r.credible_pooled for r in summary.pairs if r.subset == "all"]
    assert summary.error_control[0].n_credible_pooled >= sum(shown) > 0


@pytest.mark.slow
def test_the_fitted_model_publishes_no_rise_where_only_other_subsets_rose(family, settings):
    """66 points more in three subsets, none in the fourth."""
    from toxtrail.stats.hierarchical.model import sample_posterior

    values = {"base": {}, "tuned": {}, "again": {}}
    rng = np.random.default_rng(2)
    for subset in "abcd":
        level = rng.random(32)  # of a prompt, shared by all variants
        for name, own in values.items():
            rate = 0.79 if name == "tuned" and subset != "d" else 0.13
            place = 0.8 * level + 0.2 * rng.random(32)
            own[subset] = list(np.where(place.argsort().argsort() < rate * 32, 0.9, 0.1))
    found = family(values).pooled(settings, REAL, sample_posterior)
    assert found.summary.scorers["judge"].status == "pooled"
    rows = {(r.b, r.subset): r for r in found.summary.pairs}
    assert not rows["tuned", "d"].credible_pooled
    assert rows["tuned", "d"].pooled_withheld
    assert not rows["again", "d"].credible_pooled
    assert rows["tuned", "all"].credible_pooled


@pytest.mark.parametrize(("toxic", "text"), [([0.1], "1 v 0"), ([0.9], "1 v 1")])
def test_a_claim_that_rests_on_other_subsets_alone_is_withheld(family, settings, toxic, text):
    """1 v 0 or 1 v 1 prompts differ, and the interval says higher all the same."""
    own = family({"base": {"a": scores(3, 60), "b": [0.1] * 59 + toxic}, "tuned": {
        "a": scores(30, 60), "b": [0.9] + [0.1] * 59}})  # fmt: skip

    class Higher(Fake):
        def __call__(self, counts, effort):
            result = super().__call__(counts, effort)
            result.posterior["eta"][:, :, 1, 1] = result.posterior["eta"][:, :, 0, 1] + 0.8
            return result

    found = own.pooled(settings, POOLING, Higher())
    rows = {r.subset: r for r in found.summary.pairs}
    assert rows["b"].pooled_diff is None
    assert text in rows["b"].pooled_withheld
    assert rows["a"].credible_pooled


@pytest.mark.parametrize(("toxic", "shown"), [(6, False), (10, True)])
def test_a_claim_against_its_own_count_is_withheld(family, settings, toxic, shown):
    """Four prompts of `base`; the other subsets say 12 of `tuned`, and the interval says higher."""
    own = family(
        {
            "base": {s: scores(n, 32) for s, n in zip("abcd", (4, 5, 6, 4), strict=True)},
            "tuned": {s: scores(n, 32) for s, n in zip("abcd", (12, 13, 14, toxic), strict=True)},
            "again": {s: scores(n, 32) for s, n in zip("abcd", (5, 6, 7, 6), strict=True)},
        }
    )

    class Higher(Odd):
        def __call__(self, counts, effort):
            result = super().__call__(counts, effort)
            result.posterior["eta"][:, :, 1, 3] = result.posterior["eta"][:, :, 0, 3] + 0.8
            return result

    rows = own.pooled(settings, POOLING, Higher()).summary.pairs
    row = next(r for r in rows if (r.b, r.subset) == ("tuned", "d"))
    assert bool(row.credible_pooled) == shown
    assert ("predict a larger difference" in row.pooled_withheld) != shown


def test_two_tries_that_fail_are_an_error_that_says_what_to_change(own, settings):
    with pytest.raises(InferenceError) as raised:
        own.pooled(settings, POOLING, Fake(divergences=(3, 2)))
    for text in ("2 divergent", "first try: 3 divergent", "Nothing was written", "target_accept"):
        assert text in str(raised.value)


def test_a_model_that_does_not_fit_is_withheld_with_the_reason(own, settings):
    found = own.pooled(settings, POOLING, Fake(shift=2.5))
    status = found.summary.scorers["judge"]
    assert status.status == "withheld"
    assert "pooled and" in status.reason
    assert found.summary.rates == found.summary.pairs == []
    alone = own.compared(settings)
    summary = with_pooled(alone, found.summary).summary
    assert {row.pooled_diff for row in summary.pairs} == {None}
    assert "does not fit" in pooling_notes(ComparisonView(summary, "judge"))[0]
    assert summary.error_control[0].n_credible_pooled is None


@pytest.mark.parametrize(
    ("values", "pooling", "said"),
    [
        (VALUES, None, "switched off"),
        ({"base": {"a": [0.9, 0.1]}}, POOLING, "at least two variants"),
        (
            {"base": {"a": [0.9, 0.1], "b": [None]}, "tuned": {"a": [0.9, 0.1], "b": [0.2]}},
            POOLING,
            "every variant answered",
        ),
    ],
)
def test_what_cannot_be_pooled_is_left_out_with_the_reason(family, settings, values, pooling, said):
    sampler = Fake()
    own = family(values)
    found = own.pooled(settings, pooling, sampler)
    assert said in found.summary.scorers["judge"].reason
    assert sampler.asked == []


def test_several_continuations_are_not_taken_for_several_prompts(score_rows, settings, measured):
    def twice(values):
        rows = score_rows(values)
        return [*rows, *(row._replace(sample=1) for row in rows)]

    own = measured({name: twice(values) for name, values in VALUES.items()}, PARENTS)
    found = own.pooled(settings, POOLING, Fake())
    assert "more than one continuation" in found.summary.scorers["judge"].reason
    compared = with_pooled(own.compared(settings), found.summary).summary
    assert "more than one continuation" in compared.error_control[0].gate_reason
    assert "more than one continuation" in pooling_notes(ComparisonView(compared, "judge"))[0]


def test_prompts_without_a_score_of_every_variant_are_counted(family, settings):
    values = {"base": {"a": [*scores(10, 80), None]}, "tuned": {"a": [None, *scores(30, 80)]}}
    own = family(values)
    found = own.pooled(settings, POOLING, Fake())
    assert found.summary.scorers["judge"].dropped == 2


class FakeSeeds(Fake):
    """The same, with deviations from a recipe."""

    def __call__(self, counts, effort):
        result = super().__call__(counts, effort)
        self.recipes = counts.recipes
        rng = np.random.default_rng(effort.seed + 1)
        shape = (effort.chains, effort.draws)
        apart = {
            "sd_recipe": np.abs(rng.normal(0.3, 0.02, (*shape, 1))),
            "raw_seed": rng.standard_normal((*shape, 2)),
        }
        return result._replace(posterior={**result.posterior, **apart})


def test_variants_of_one_recipe_get_a_spread_and_others_none(family, settings, tmp_path):
    values = {**VALUES, "again": {"a": scores(28, 80), "b": scores(22, 40)}}

    made, sampler = family(values), FakeSeeds()
    for name in ("tuned", "again"):
        made.summaries[name] = replace(made.summaries[name], recipe="dolly")
    found = made.pooled(settings, POOLING, sampler)
    assert sampler.recipes.of.tolist() == [-1, 0, 0]
    (row,) = found.summary.recipes
    assert (row.recipe, row.scorer, row.variants) == ("dolly", "judge", 2)
    assert 0.02 < row.spread_lo < row.spread < row.spread_hi < 0.12
    summary = with_pooled(made.compared(settings), found.summary).summary
    (note,) = seed_notes(ComparisonView(summary, "judge"))
    assert note.startswith("2 fine-tunes of the recipe dolly")
    folder = tmp_path / "pooled"
    store = ArtifactStore(tmp_path)
    store.write_analysis(folder, found, manifest_of("pool", "f", {}, {}, {}))
    again = rows_from_draws(
        store.read_draws(folder),
        variant_pairs(PARENTS, "base"),
        settings.level,
        found.summary.scorers,
    )
    assert again.recipes == found.summary.recipes

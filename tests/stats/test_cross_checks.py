"""Other people's statistics, where they must agree with ours, and where they must not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from pair_tables import posterior
from scipy import stats
from scipy.special import expit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from toxtrail.stats.hierarchical.model import count_labels, marginal_rates, sample_posterior
from toxtrail.stats.paired_differences import Pairs, mean_posterior, pair_posterior
from toxtrail.stats.published_counts import PublishedCount, rate_interval, unpaired
from toxtrail.stats.sampling import SamplerSettings

TABLES = [(30, 147, 128, 2095), (5, 40, 18, 300), (0, 3, 9, 88), (60, 60, 60, 60), (2, 1, 9, 20)]
each_table = pytest.mark.parametrize("table", TABLES)


@each_table
def test_p_of_higher_lies_between_mcnemars_two_exact_tails(table):
    """A Jeffreys tail lies between P(X <= k) and P(X < k) of the binomial."""
    n11, n10, n01, n00 = table
    wrong = 1 - posterior(*table).probability_higher
    least = stats.binom.sf(n01, n10 + n01, 0.5)
    most = stats.binom.sf(n01 - 1, n10 + n01, 0.5)
    assert least <= wrong <= most
    theirs = mcnemar([[n11, n10], [n01, n00]], exact=True).pvalue
    assert min(1, 2 * min(most, 1 - least)) == pytest.approx(theirs)


def test_a_comparison_that_ignores_the_pairing_disagrees_with_mcnemar():
    table = (110, 5, 22, 263)
    ours = 1 - posterior(*table).probability_higher
    p = mcnemar([[110, 5], [22, 263]], exact=True).pvalue
    assert 2 * ours < 0.003 > p
    assert (
        unpaired(PublishedCount(115, 400), PublishedCount(132, 400), 0.5, 0.95).verdict
        == "not decisive"
    )


@pytest.mark.parametrize("table", [table for table in TABLES if min(table[1:3]) >= 15])
def test_the_paired_interval_is_walds_where_there_are_many_discordant_prompts(table):
    """d +- 1.96 sqrt(n10 + n01 - (n10 - n01)^2 / n) / n (Agresti 2013, section 11.1)."""
    n, n10, n01 = sum(table), table[1], table[2]
    found = posterior(*table).interval(0.95)
    d, se = (n01 - n10) / n, (n10 + n01 - (n10 - n01) ** 2 / n) ** 0.5 / n
    assert found == pytest.approx((d - 1.96 * se, d + 1.96 * se), abs=0.07 * se)


@pytest.mark.parametrize(("toxic", "n"), [(240, 2400), (19, 2400), (7, 50), (1, 2)])
def test_the_interval_of_a_rate_is_statsmodels_jeffreys(toxic, n):
    theirs = proportion_confint(toxic, n, alpha=0.05, method="jeffreys")
    assert rate_interval(PublishedCount(toxic, n), 0.5, 0.95) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.slow
def test_pooled_rates_and_differences_are_those_of_a_marginal_model_on_many_prompts():
    """Rates and paired differences of a GEE with exchangeable correlation (Liang & Zeger 1986),
    which like ours speaks of the average over prompts; one subset, variants well apart, so that
    drawing them together hardly moves them."""
    rng = np.random.default_rng(3)
    n, eta, sd = 1500, np.array([-2.6, -2.0, -1.2]), 1.6
    chance = expit(eta + sd * rng.standard_normal((n, 1)))
    table = (rng.random(chance.shape) < chance).astype(float)
    frame = pd.DataFrame(
        {
            "toxic": table.ravel(),
            "variant": np.tile(np.arange(3), n),
            "prompt": np.repeat(np.arange(n), 3),
        }
    )
    design = pd.get_dummies(frame["variant"]).astype(float)
    gee = sm.GEE(
        frame["toxic"], design, groups=frame["prompt"], family=sm.families.Gaussian(),
        cov_struct=sm.cov_struct.Exchangeable(),
    ).fit()  # fmt: skip
    drawn = sample_posterior(count_labels([table]), SamplerSettings(4, 2000, 0.97, 1))
    eta_draws = drawn.posterior["eta"].reshape(-1, 3, 1)
    ours = marginal_rates(eta_draws, drawn.posterior["sd_prompt"].ravel())[:, :, 0]
    assert ours.mean(axis=0) == pytest.approx(gee.params.to_numpy(), abs=0.006)
    steps = ours[:, [1, 2]] - ours[:, [0]]
    contrast = np.array([[-1, 1, 0], [-1, 0, 1]])
    theirs = gee.t_test(contrast)
    assert steps.mean(axis=0) == pytest.approx(theirs.effect, abs=0.006)
    assert steps.std(axis=0) == pytest.approx(theirs.sd.ravel(), rel=0.15)
    unrelated = np.sqrt(gee.bse.to_numpy()[1:] ** 2 + gee.bse.to_numpy()[0] ** 2)
    assert np.all(steps.std(axis=0) < 0.9 * unrelated)


def two_variants(rng, n):
    """(prompt, variant) of scores that go together on a prompt."""
    prompt = rng.normal(0, 0.1, (n, 1))
    return np.clip(0.3 + prompt + np.array([0.0, 0.02]) + rng.normal(0, 0.08, (n, 2)), 0, 1)


@pytest.mark.parametrize("kind", ["scores", "labels"])
def test_paired_differences_are_those_of_a_mixed_model_with_a_prompt_intercept(kind):
    """statsmodels' linear mixed model, random intercept for each prompt: on many prompts both give
    the same difference and the same standard error."""
    rng, n = np.random.default_rng(8), 800
    values = two_variants(rng, n)
    if kind == "labels":
        values = (values > 0.4).astype(float)
        own = Pairs([values[:, 0]], [values[:, 1]], [1.0])
        step = pair_posterior(own, 0.5).moments()
    else:
        step = mean_posterior([values[:, 1] - values[:, 0]], [1.0], 0.95).moments()
    frame = pd.DataFrame(
        {"y": values.ravel(), "tuned": np.tile([0.0, 1.0], n), "prompt": np.repeat(np.arange(n), 2)}
    )
    theirs = sm.MixedLM.from_formula("y ~ tuned", frame, groups="prompt").fit(reml=True)
    assert step[0] == pytest.approx(theirs.params["tuned"], abs=0.1 * theirs.bse["tuned"])
    assert step[1] == pytest.approx(theirs.bse["tuned"], rel=0.05)
    apart = np.sqrt(values.var(axis=0).sum() / n)
    assert step[1] < 0.9 * apart

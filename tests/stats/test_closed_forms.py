"""The closed forms, against PyMC on the same models."""

from __future__ import annotations

import numpy as np
import pytest
from pair_tables import labels, pairs, posterior
from scipy.special import expit

from toxtrail.cli.published import _compiled as compiled_counts
from toxtrail.stats import published_model
from toxtrail.stats.bayes_libraries import CompiledModel, NutsSettings
from toxtrail.stats.paired_differences import PairCounts, pair_draws
from toxtrail.stats.rate_posterior import rate_draws
from toxtrail.stats.sampling import SamplerSettings, sample

LEVELS = (0.025, 0.25, 0.5, 0.75, 0.975)
COUNTS = [PairCounts(9, 6, 14, 91), PairCounts(2, 1, 4, 58)]
"""Of two subsets."""
NOTHING = 1e-6


def agree(ours, theirs):
    """As far as the Monte Carlo error of both lets one see: 3 % of a standard deviation in the
    middle, more in the tails."""
    spread = theirs.std()
    assert np.quantile(ours, LEVELS) == pytest.approx(
        np.quantile(theirs, LEVELS), abs=0.12 * spread
    )
    assert ours.std() == pytest.approx(spread, rel=0.05)


@pytest.fixture(scope="module")
def drawn():
    """Both models at once, so that they are compiled once: the two-by-two table as three Bernoulli
    questions (of improper priors, the mass is put near 0), and Jeffreys' rates."""
    import pymc as pm

    table, n = np.array(COUNTS), np.array([c.n for c in COUNTS])
    discordant = table[:, 1] + table[:, 2]
    with pm.Model() as model:
        delta = pm.Beta("delta", 1.5, NOTHING, shape=2)
        theta = pm.Beta("theta", 0.5, 0.5, shape=2)
        kappa = pm.Beta("kappa", NOTHING, NOTHING, shape=2)
        pm.Binomial("discordant", n, delta, observed=discordant)
        pm.Binomial("only_b", discordant, theta, observed=table[:, 2])
        pm.Binomial("both", n - discordant, kappa, observed=table[:, 0])
        rate = pm.Beta("rate", 0.5, 0.5, shape=2)
        pm.Binomial("toxic", n, rate, observed=table[:, 0] + table[:, 1])
    found = sample(CompiledModel(model), SamplerSettings(4, 5000, 0.95, 1)).posterior
    return {name: values.reshape(-1, *values.shape[2:]) for name, values in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("subset", [0, 1])
def test_rates_and_differences_are_those_of_pymc(drawn, subset):
    delta, theta, kappa = (drawn[name][:, subset] for name in ("delta", "theta", "kappa"))
    ours = pair_draws(pairs(COUNTS[subset]), 0.5, 40_000, 1)
    agree(ours.difference, delta * (2 * theta - 1))
    agree(ours.a, (1 - delta) * kappa + delta * (1 - theta))
    agree(ours.b, (1 - delta) * kappa + delta * theta)
    a = labels(COUNTS[subset])[0]
    agree(rate_draws([a], [1.0], 0.5, 40_000, 1), drawn["rate"][:, subset])
    higher = float((theta > 0.5).mean())
    assert posterior(*COUNTS[subset]).probability_higher == pytest.approx(higher, abs=0.01)


def test_a_model_of_counts_has_the_likelihood_of_a_binomial():
    from scipy import stats

    toxic, n = np.array([[3, 0], [9, 1], [2, 2]]), np.array([[50, 40], [50, 40], [60, 2]])
    model = published_model.build(toxic, n)
    rng, start = np.random.default_rng(4), model.initial_point()
    point = {name: rng.normal(0, 0.5, np.shape(value)) for name, value in start.items()}
    (eta,) = model.compile_fn(
        model.replace_rvs_by_values([model["eta"]]),
        inputs=model.value_vars,
        on_unused_input="ignore",
        mode="FAST_COMPILE",
    )(point)
    logp = model.compile_logp(vars=[model["toxic"]], mode="FAST_COMPILE")
    ours = float(logp(point))
    assert ours == pytest.approx(stats.binom.logpmf(toxic, n, expit(eta)).sum())


@pytest.mark.parametrize(
    ("toxic", "n", "said"),
    [
        ([[1]], [[9]], "at least two variants"),
        ([[1], [5]], [[9], [4]], "a count .*between 0"),
        ([[0], [0]], [[9], [0]], "a count .*between 0"),
    ],
)
def test_counts_that_are_none_are_refused(toxic, n, said):
    from toxtrail.errors import DataError

    with pytest.raises(DataError, match=said):
        published_model.build(np.array(toxic), np.array(n))


@pytest.mark.slow
def test_a_model_of_counts_covers_what_made_them_and_is_too_wide_on_shared_prompts():
    """Tables of three variants and two subsets, by the model that `published --pool` compiles once:
    independent prompts, and the same prompts with a strong effect of their own."""
    rng, n = np.random.default_rng(5), np.array([[400, 250]] * 3)
    compiled = compiled_counts(n.shape)
    assert compiled_counts((3, 2)) is compiled
    covered = {0.0: 0, 2.5: 0}
    runs = 20
    eta = np.array([[-2.6, -1.4], [-2.2, -1.0], [-2.4, -1.3]])
    for spread in covered:
        nodes = spread * rng.standard_normal(200_000)
        truth = expit(eta[..., None] + nodes).mean(axis=-1)
        steps = truth[1:] - truth[0]
        for number in range(runs):
            toxic = np.empty((3, 2), int)
            for s in (0, 1):
                effect = spread * rng.standard_normal(n[0, s])
                chance = expit(eta[:, s, None] + effect)
                toxic[:, s] = (rng.random(chance.shape) < chance).sum(axis=1)
            data, settings = {"counts": toxic, "prompts": n}, NutsSettings(300, 300, 1, number, 0.9)
            found = compiled.sample(data, settings).posterior
            rate = published_model.rates(found["eta"][0])
            low, high = np.quantile(rate[:, 1:] - rate[:, :1], [0.025, 0.975], axis=0)
            covered[spread] += ((low <= steps) & (steps <= high)).mean() / runs
    assert covered[0.0] >= 0.86
    assert covered[2.5] >= 0.95

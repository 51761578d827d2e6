"""The hierarchical model: its likelihood is exact, it finds what made the data, and it says no."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit

from toxtrail.errors import DataError
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.checks import predictive_checks, replicated
from toxtrail.stats.hierarchical.model import HYPER, build, count_labels, marginal_rates
from toxtrail.stats.sampling import SamplerSettings, diagnose, settle


def simulated(eta, sd_prompt, prompts, rng):
    """Labels of each subset, (prompt, variant), from the model itself."""
    found = []
    for subset, n in enumerate(prompts):
        chance = expit(eta[:, subset] + sd_prompt * rng.standard_normal((n, 1)))
        found.append((rng.random(chance.shape) < chance).astype(float))
    return found


def log_likelihood(labels, eta, sd_prompt):
    """Prompt by prompt, each effect integrated by quadrature: the definition."""
    total = 0.0
    for subset, rows in enumerate(labels):
        for row in rows:
            chance = lambda u, s=subset: expit(eta[:, s] + sd_prompt * u)  # noqa: E731
            inside = lambda u, r=row, c=chance: (  # noqa: E731
                np.prod(np.where(r == 1, c(u), 1 - c(u))) * stats.norm.pdf(u)
            )
            total += np.log(quad(inside, -9, 9, epsabs=1e-13)[0])
    return total


@pytest.mark.slow
@pytest.mark.parametrize(("variants", "prompts"), [(2, (7, 5)), (5, (9, 4, 6)), (3, (8,))])
def test_the_collapsed_likelihood_is_that_of_every_single_prompt(variants, prompts):
    rng = np.random.default_rng(variants)
    labels = simulated(rng.normal(-1, 1, (variants, len(prompts))), 1.5, prompts, rng)
    model = build(count_labels(labels))
    wanted = model.replace_rvs_by_values([model["eta"], model["sd_prompt"]])
    parameters = model.compile_fn(wanted, inputs=model.value_vars, mode="FAST_COMPILE")
    collapsed = model.compile_logp(vars=[model["likelihood"]], mode="FAST_COMPILE")
    start = model.initial_point()
    values, counts = [], count_labels(labels)
    for _ in range(3):
        point = {name: rng.normal(0, 0.7, np.shape(value)) for name, value in start.items()}
        eta, sd_prompt = parameters(point)
        values.append(float(collapsed(point)) - log_likelihood(labels, eta, float(sd_prompt)))
        (again,) = hierarchical_model.log_likelihood(counts, eta[None], np.atleast_1d(sd_prompt))
        assert again == pytest.approx(float(collapsed(point)), abs=1e-6)
    # constant: the weights of the nodes are normalised
    assert values == pytest.approx([values[0]] * 3, abs=1e-6)
    assert values[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("eta", "sd"), [(-5.0, 2.5), (-1.0, 0.3), (0.0, 6.0), (3.0, 1.0)])
def test_a_rate_is_the_mean_over_prompts(eta, sd):
    exact = quad(lambda u: expit(eta + sd * u) * stats.norm.pdf(u), -9, 9)[0]
    found = marginal_rates(np.full((3, 1, 1), eta), np.full(3, sd))
    assert found == pytest.approx(np.full((3, 1, 1), exact), abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("variants", "subsets"), [(3, 2), (4, 1)])
def test_prior_draws_are_those_of_the_model(variants, subsets):
    import pymc as pm

    counts = hierarchical_model.FamilyCounts(
        np.zeros((variants, subsets), dtype=int),
        np.zeros((subsets, variants + 1), dtype=int),
        np.zeros((subsets, variants, variants), dtype=int),
    )
    model = build(counts)
    theirs = pm.draw([model["eta"], model["sd_prompt"]], 4000, random_seed=1, mode="FAST_COMPILE")
    eta, hyper = hierarchical_model.prior_draws(variants, subsets, 4000, np.random.default_rng(2))
    for own, other in ((eta, theirs[0]), (hyper["sd_prompt"], theirs[1])):
        pair = (own.reshape(4000, -1)[:, 0], other.reshape(4000, -1)[:, 0])
        assert stats.ks_2samp(*pair).pvalue > 1e-4
    steps = [np.ptp(x.reshape(4000, -1), axis=1) for x in (eta, theirs[0])]
    assert stats.ks_2samp(*steps).pvalue > 1e-4


@pytest.mark.parametrize("subsets", [1, 3])
def test_the_log_prior_rises_and_falls_with_the_models_own(subsets):
    labels = [np.array([[0, 1, 1], [0, 0, 1]], float)] * subsets
    model, rng = build(count_labels(labels)), np.random.default_rng(3)
    names = [n for n in (*HYPER, "subset_effect") if n in model.named_vars]
    of_model = model.compile_logp(
        vars=[model[n] for n in names], jacobian=False, mode="FAST_COMPILE"
    )
    values = model.compile_fn(
        model.replace_rvs_by_values([model[n] for n in names]),
        inputs=model.value_vars,
        on_unused_input="ignore",
        mode="FAST_COMPILE",
    )
    start, gaps = model.initial_point(), []
    for _ in range(3):
        point = {name: rng.normal(0, 0.7, np.shape(value)) for name, value in start.items()}
        draws = {n: np.asarray(v)[None, None] for n, v in zip(names, values(point))}
        gaps.append(float(of_model(point)) - float(hierarchical_model.log_prior(draws)[0, 0]))
    assert gaps == pytest.approx([gaps[0]] * 3, abs=1e-6)


def test_counts_keep_all_that_the_likelihood_needs():
    labels = [np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], float), np.array([[0, 1, 0]], float)]
    found = count_labels(labels)
    assert found.toxic.tolist() == [[2, 0], [1, 1], [2, 0]]
    assert found.together.tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]
    assert found.both[0].tolist() == [[2, 1, 2], [1, 1, 1], [2, 1, 2]]
    assert found.prompts.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([np.zeros((3, 2)), np.zeros((0, 2))], "no prompt .*every variant answered"),
        ([np.array([[0.5, 1.0]])], "more than one continuation"),
        ([np.array([[np.nan, 1.0]])], "more than one continuation"),
        ([np.zeros((3, 1))], "at least two variants"),
    ],
)
def test_what_cannot_be_pooled_is_refused_with_the_reason(labels, said):
    with pytest.raises(DataError, match=said):
        count_labels(labels)


def test_a_model_without_the_pairing_is_found_out():
    """Rates alone fit; toxicity that falls on the same prompts does not."""
    rng = np.random.default_rng(5)
    eta = np.array([[-2.5], [-2.0], [-2.2]])
    observed = count_labels(simulated(eta, 2.0, (800,), rng))
    marginal = marginal_rates(eta[None], np.array([2.0]))[0]
    unpaired = np.repeat(np.log(marginal / (1 - marginal))[None], 400, axis=0)
    without = predictive_checks(observed, replicated(unpaired, np.zeros(400), [800], rng))
    paired = np.repeat(eta[None], 400, axis=0)
    with_it = predictive_checks(observed, replicated(paired, np.full(400, 2.0), [800], rng))
    assert {c.statistic: c.p for c in without}["pairs toxic together"] < 0.005
    assert all(0.005 < c.p < 0.995 for c in with_it)


@pytest.mark.slow
def test_it_finds_what_made_the_data_and_the_gate_is_content():
    rng = np.random.default_rng(4)
    effects = np.array([[-0.6], [0.0], [0.6]])
    eta = -2.5 + effects + np.array([[0.8, -0.8]]) + rng.normal(0, 0.1, (3, 2))
    counts = count_labels(simulated(eta, 1.8, (900, 600), rng))

    def rates(drawn):
        eta_draws, sd = drawn.posterior["eta"], drawn.posterior["sd_prompt"]
        return marginal_rates(eta_draws.reshape(-1, 3, 2), sd.ravel())

    def assess(drawn):
        return diagnose(drawn, HYPER, {"rate": rates(drawn).reshape(4, -1, 3, 2)}, 0.95)

    draw = partial(hierarchical_model.sample_posterior, counts)
    settled = settle(draw, assess, SamplerSettings(4, 8000, 0.97, 1), 3000)
    found = rates(settled.drawn)
    truth = marginal_rates(eta[None], np.array([1.8]))[0]
    assert np.abs(found.mean(axis=0) - truth).max() < 4 * found.std(axis=0).max()
    steps, true_steps = found[:, 2] - found[:, 0], truth[2] - truth[0]
    lo, hi = np.quantile(steps, [0.005, 0.995], axis=0)
    assert np.all((lo < true_steps) & (true_steps < hi))
    assert settled.drawn.posterior["sd_prompt"].mean() == pytest.approx(1.8, abs=0.6)
    assert settled.wrong == []


def fit(labels, seed, draws=400):
    """Name -> (draw, ...), of one chain."""
    found = hierarchical_model.sample_posterior(
        count_labels(labels), SamplerSettings(1, draws, 0.9, seed)
    ).posterior
    return {name: values[0] for name, values in found.items()}


SIMULATIONS, THINNED = 300, 20
RANKED = ("a difference", "a rate", "sd_variant", "sd_interaction", "sd_prompt")


@pytest.fixture(scope="module")
def calibration():
    """Truths drawn from the prior, data drawn from them, and draws given the data, thinned; RANKED
    (simulation, THINNED) each."""
    rng, prompts = np.random.default_rng(7), (300, 200)
    truths, draws = [], []
    for number in range(SIMULATIONS):
        eta, hyper = hierarchical_model.prior_draws(3, 2, 1, rng)
        labels = simulated(eta[0], hyper["sd_prompt"][0], prompts, rng)
        drawn = fit(labels, number, draws=200)
        for rate, own, target in (
            (marginal_rates(eta, hyper["sd_prompt"]), hyper, truths),
            (marginal_rates(drawn["eta"], drawn["sd_prompt"]), drawn, draws),
        ):
            columns = [rate[:, 2, 0] - rate[:, 0, 0], rate[:, 1, 1], *(own[n] for n in RANKED[2:])]
            target.append(columns)
    found = np.array(draws)
    return np.array(truths)[:, :, 0], found[:, :, :: found.shape[2] // THINNED]


@pytest.mark.slow
@pytest.mark.parametrize("quantity", range(5), ids=RANKED)
def test_simulation_based_calibration(calibration, quantity):
    """Ranks of the truth among posterior draws are uniform (Talts et al. 2018, arXiv:1804.06788);
    those of draws that are too wide, too narrow or beside it are not."""
    truth, draws = (column[:, quantity] for column in calibration)
    assert uniform_p((draws < truth[:, None]).sum(axis=1), draws.shape[1]) > 1e-4
    middle = draws.mean(axis=1, keepdims=True)
    for wrong in (middle + 2.5 * (draws - middle), middle + 0.4 * (draws - middle)):
        assert uniform_p((wrong < truth[:, None]).sum(axis=1), draws.shape[1]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("quantity", range(5), ids=RANKED)
def test_intervals_cover_what_made_the_data(calibration, quantity):
    truth, draws = (column[:, quantity] for column in calibration)
    low, high = np.quantile(draws, [0.1, 0.9], axis=1)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert covered == pytest.approx(0.8 * 19 / 21, abs=0.08)  # of quantiles of some 20 draws


def uniform_p(ranks, thinned):
    counts = np.histogram(ranks, bins=7, range=(0, thinned + 1))[0]
    return stats.chisquare(counts).pvalue


@pytest.mark.slow
def test_equal_variants_are_seldom_called_different_though_many_pairs_are_looked_at():
    rng, prompts, trials = np.random.default_rng(9), (200, 200), 40
    eta = np.tile(np.array([[-2.0, -3.0]]), (5, 1))
    called = 0
    for number in range(trials):
        drawn = fit(simulated(eta, 1.5, prompts, rng), number)
        overall = marginal_rates(drawn["eta"], drawn["sd_prompt"]).mean(axis=2)
        steps = overall[:, :, None] - overall[:, None, :]
        lo, hi = np.quantile(steps, [0.025, 0.975], axis=0)
        called += bool(((lo > 0) | (hi < 0)).any())
    assert called <= 5  # ten pairs, unpooled, would be called in about ten trials of forty


SCRIPT = """
import hashlib, numpy as np
from toxtrail.stats.hierarchical.model import count_labels, sample_posterior
from toxtrail.stats.sampling import SamplerSettings
labels = [(np.random.default_rng(1).random((80, 2)) < [0.2, 0.3]).astype(float)]
own = sample_posterior(count_labels(labels), SamplerSettings(2, 500, 0.9, 3))
print(hashlib.sha256(own.posterior["eta"].tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_one_seed_gives_the_same_bits_in_every_process(tmp_path):
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop()) == len(hashlib.sha256().hexdigest())

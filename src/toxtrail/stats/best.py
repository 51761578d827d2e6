"""BEST, as in the reference paper. It answers another question than the rate models do.

The scores of two variants are modelled as two independent samples of Student's t:

    score_a[i] ~ T(nu, mu_a, sigma_a)        score_b[i] ~ T(nu, mu_b, sigma_b)
    mu    ~ Normal(m, 1000 s)                m, s: mean and standard deviation of all scores
    sigma ~ Uniform(s / 1000, 1000 s)
    nu    = 1 + Exponential(mean 29)

and the result is mu_b - mu_a. Toxicity scores are concentrated near 0 with a long tail; a t
distribution fits the concentration and treats the tail as outliers. With 10 % toxic against 1 % and
the same concentration near 0, mu_b - mu_a converges to 0, which does not describe the difference. A
predictive check of the toxicity rate is therefore reported with the result.

Source: Kruschke 2013, Journal of Experimental Psychology: General 142(2), doi:10.1037/a0029146.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from toxtrail.errors import DataError
from toxtrail.stats.bayes_libraries import CompiledModel, SampleResult, load_pymc
from toxtrail.stats.paired_differences import Verdict, verdict
from toxtrail.stats.rates import Floats, Interval, at_threshold, equal_tailed_interval
from toxtrail.stats.sampling import SamplerSettings, sample

HYPER = ("nu",)
LOCATIONS = ("mu_a", "mu_b")
WARNING = (
    "BEST compares the locations of the score distributions, not how often a text is toxic: a "
    "difference in the toxic tail does not change it, a shift of the harmless scores does; and it "
    "is not paired. Use it to repeat published analyses, and base conclusions on the rates."
)
LEAST_P = 0.005
"""A predictive check with p closer to 0 or 1 fails."""


class LocationDifference(NamedTuple):
    """Posterior of mu_b - mu_a, in the unit of the scores."""

    mean: float
    interval: Interval
    verdict: Verdict
    predicted_a: float
    """Toxicity rate that the fitted model predicts for a, in [0, 1]."""
    predicted_b: float
    fits: bool
    """Whether the model predicts the observed toxicity rates."""


def compile_best() -> CompiledModel:
    """Compile the model in this module's docstring once for all pairs of variants: scores are
    standardised to m = 0 and s = 1, so that the priors are the same for all."""
    pm = load_pymc()

    with pm.Model() as model:
        nu = pm.Deterministic("nu", 1 + pm.Exponential("nu_minus_one", scale=29))
        for name in ("a", "b"):
            mu = pm.Normal(f"mu_{name}", 0, 1000)
            sigma = pm.Uniform(f"sigma_{name}", 1 / 1000, 1000)
            data = pm.Data(name, np.array([-1.0, 1.0]))
            pm.StudentT(f"score_{name}", nu=nu, mu=mu, sigma=sigma, observed=data)
    return CompiledModel(model)


def sample_best(
    model: CompiledModel, a: Floats, b: Floats, effort: SamplerSettings
) -> SampleResult:
    """Sample locations, scales and nu of two variants, in the unit of the scores.

    Args:
        model: result of `compile_best`.
        a, b: (row,) scores, in [0, 1].
        effort: settings of the sampler.

    Raises:
        DataError: fewer than two scores of a variant, or all scores are equal.
    """
    together = np.concatenate([a, b])
    if min(a.size, b.size) < 2 or np.ptp(together) == 0:
        raise DataError("BEST needs at least two scores of each variant, and not all the same.")
    middle, scale = together.mean(), together.std()
    found = sample(model, effort, {"a": (a - middle) / scale, "b": (b - middle) / scale})
    units = {"mu": (middle, scale), "sigma": (0.0, scale)}
    posterior = dict(found.posterior)
    for kind, (zero, unit) in units.items():
        for name in ("a", "b"):
            posterior[f"{kind}_{name}"] = zero + unit * posterior[f"{kind}_{name}"]
    return found._replace(posterior=posterior)


def location_difference(
    samples: SampleResult,
    a: Floats,
    b: Floats,
    threshold: float,
    level: float,
    rng: np.random.Generator,
) -> LocationDifference:
    """Return the difference of locations, and whether the model fits the toxicity rates."""
    posterior = {name: values.ravel() for name, values in samples.posterior.items()}
    difference = posterior["mu_b"] - posterior["mu_a"]
    interval = equal_tailed_interval(difference, level)
    expected, fits = {}, True
    for name, scores in (("a", a), ("b", b)):
        beyond = (threshold - posterior[f"mu_{name}"]) / posterior[f"sigma_{name}"]
        chance = stats.t.sf(beyond, posterior["nu"])
        replicated = rng.binomial(scores.size, chance)
        observed = int(at_threshold(scores, threshold).sum())
        p = float((replicated > observed).mean() + 0.5 * (replicated == observed).mean())
        expected[name] = float(chance.mean())
        fits = fits and LEAST_P <= p <= 1 - LEAST_P
    return LocationDifference(
        float(difference.mean()), interval, verdict(interval), expected["a"], expected["b"], fits
    )

"""Sampling from a posterior, and convergence diagnostics of the draws.

Draws that have not converged cannot be recognised from the estimates alone, so they are checked
against limits, and an inference whose draws violate one fails.

Source of the limits: Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, Bayesian Analysis 16(2),
for R-hat and effective sample size; Betancourt 2016, arXiv:1604.00695, for E-BFMI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.errors import InferenceError
from toxtrail.stats.bayes_libraries import (
    CompiledModel,
    NutsSettings,
    SampleResult,
    Target,
    effective_size,
    energy_fractions,
    quantile_error,
    r_hat,
    sample_target,
)
from toxtrail.stats.rates import Floats

MAX_R_HAT = 1.01
MIN_ESS_HYPER, MIN_ESS = 400, 1000
"""Minimum effective sample sizes of hyper-parameters and of reported quantities."""
MIN_BFMI = 0.3
MAX_AT_DEPTH = 0.01
MAX_MCSE, MAX_MCSE_SHARE = 0.0005, 0.05
"""Maximum Monte Carlo standard error of a reported bound: 0.05 percentage points, or this share of
the quantity's standard deviation if that is larger."""

STEP, SPARE = 250, 1.15
"""Increment of the number of draws per chain, and safety factor on the estimated number."""
TUNE = 800
"""Tuning steps per chain, which are discarded. They do not depend on the number of draws, so that a
longer run begins with the draws of a shorter one."""


class SamplerSettings(NamedTuple):
    """Settings of the sampler."""

    chains: int
    draws: int
    """Draws per chain, without tuning steps."""
    target_accept: float
    seed: int

    def harder(self) -> SamplerSettings:
        """Return the settings of the only retry: smaller steps, twice the draws, another seed."""
        return SamplerSettings(self.chains, 2 * self.draws, 0.99, self.seed + 1)


class Diagnostics(NamedTuple):
    """Worst value of each diagnostic over all quantities."""

    r_hat: float
    ess_bulk: float
    ess_tail: float
    ess_hyper: float
    divergences: int
    bfmi: float
    at_max_depth: float
    """Share of draws that reached the maximum tree depth."""
    mcse: float
    """Largest Monte Carlo error of a reported bound, divided by its maximum."""


def sample(
    model: CompiledModel, effort: SamplerSettings, data: Mapping[str, Any] | None = None
) -> SampleResult:
    """Sample a compiled PyMC model with NUTS.

    On one machine, the same seed gives the same draws, with or without a compilation cache.

    Args:
        model: compiled model.
        effort: settings of the sampler.
        data: name -> value that replaces the data of the model.
    """
    return model.sample(data or {}, _nuts_settings(effort, max(effort.draws // 2, 500)))


def walk(
    target: Target, start: Callable[[int], Floats], effort: SamplerSettings
) -> tuple[Floats, SampleResult]:
    """Sample a compiled density with NUTS.

    On one machine, the same seed gives the same draws, and the first draws of a longer run are
    those of a shorter one.

    Args:
        target: density and its data.
        start: function from a seed to an initial position.
        effort: settings of the sampler.

    Returns:
        Positions, (chain, draw, position), and the sampler's statistics with an empty posterior.
    """
    samples = sample_target(target, start, _nuts_settings(effort, TUNE))
    return samples.posterior["position"], samples._replace(posterior={})


def _nuts_settings(effort: SamplerSettings, tune: int) -> NutsSettings:
    """Return the sampler's settings with a number of tuning steps."""
    return NutsSettings(effort.draws, tune, effort.chains, effort.seed, effort.target_accept)


class Settled(NamedTuple):
    """Result of `settle`: the last draws and their diagnostics."""

    drawn: SampleResult
    diagnostics: Diagnostics
    effort: SamplerSettings
    wrong: Sequence[str]
    """Convergence problems of the last draws; empty if they can be used."""
    first_try: Sequence[str]
    """Convergence problems that caused the retry; empty without a retry."""


def settle(
    draw: Callable[[SamplerSettings], SampleResult],
    assess: Callable[[SampleResult], Diagnostics],
    most: SamplerSettings,
    least: int,
) -> Settled:
    """Sample until the draws pass all convergence checks, with as few draws as possible.

    The first run has `least` draws per chain, later ones the number estimated from the diagnostics,
    up to the draws of `most`. If this fails, the procedure is repeated once with `most.harder()`.

    Args:
        draw: function from settings to draws; the first draws of a longer run must be those of a
            shorter one.
        assess: function from draws to diagnostics.
        most: settings with the maximum number of draws per chain.
        least: number of draws per chain of the first run.
    """
    first: list[str] = []
    for attempt in (most, most.harder()):
        limit = max(attempt.draws, least)
        size = least
        while True:
            tried = attempt._replace(draws=size)
            samples = draw(tried)
            diagnostics = assess(samples)
            wrong = convergence_problems(diagnostics)
            if not wrong:
                return Settled(samples, diagnostics, tried, [], first)
            if size == limit or not _more_would_help(diagnostics):
                break
            size = min(limit, draws_needed(diagnostics, size))
        first = first or wrong
    return Settled(samples, diagnostics, tried, wrong, first)


def draws_needed(diagnostics: Diagnostics, draws: int) -> int:
    """Estimate the number of draws per chain that passes all checks: a multiple of STEP, at least
    STEP more than `draws`.

    Args:
        diagnostics: diagnostics of the present draws.
        draws: present number of draws per chain.
    """
    shares = (
        MIN_ESS / diagnostics.ess_bulk,
        MIN_ESS / diagnostics.ess_tail,
        MIN_ESS_HYPER / diagnostics.ess_hyper,
        diagnostics.mcse**2,
        2.0 if diagnostics.r_hat > MAX_R_HAT else 0.0,
    )
    target_draws = SPARE * max(shares) * draws
    return max(draws + STEP, STEP * math.ceil(target_draws / STEP))


def _more_would_help(diagnostics: Diagnostics) -> bool:
    """Return whether all problems are of precision; more draws do not remove a NaN."""
    rest = diagnostics._replace(
        r_hat=1.0, ess_bulk=np.inf, ess_tail=np.inf, ess_hyper=np.inf, mcse=0.0
    )
    return bool(np.isfinite(diagnostics).all()) and not convergence_problems(rest)


def diagnose(
    samples: SampleResult, hyper: Sequence[str], reported: Mapping[str, Floats], level: float
) -> Diagnostics:
    """Compute the convergence diagnostics of the draws.

    Args:
        samples: draws and the statistics of the sampler.
        hyper: names of hyper-parameters in the posterior.
        reported: name -> (chain, draw, ...) of the reported quantities.
        level: credible level of the reported intervals.

    Raises:
        InferenceError: a draw is not a finite number.
    """
    tables = [column for values in reported.values() for column in _columns(values)]
    hyper_columns = [column for name in hyper for column in _columns(samples.posterior[name])]
    if not all(np.isfinite(column).all() for column in (*tables, *hyper_columns, samples.energy)):
        raise InferenceError("The sampler gave a draw that is not a finite number.")
    tables = [column for column in tables if np.ptp(column) > 0]
    bulk = [effective_size(column, "bulk") for column in tables]
    tail = [effective_size(column, "tail") for column in tables]
    ess_hyper = [min(effective_size(c, "bulk"), effective_size(c, "tail")) for c in hyper_columns]
    return Diagnostics(
        r_hat=float(np.max([r_hat(column) for column in (*tables, *hyper_columns)], initial=1.0)),
        ess_bulk=float(np.min(bulk, initial=np.inf)),
        ess_tail=float(np.min(tail, initial=np.inf)),
        ess_hyper=float(np.min(ess_hyper, initial=np.inf)),
        divergences=int(samples.diverging.sum()),
        bfmi=float(np.min(energy_fractions(samples.energy))),
        at_max_depth=float(samples.at_max_depth.mean()),
        mcse=float(np.max([_relative_mcse(column, level) for column in tables], initial=0.0)),
    )


def convergence_problems(diagnostics: Diagnostics) -> list[str]:
    """Describe each convergence problem of the draws; empty if they can be used."""
    # the comparisons are negated, so that a NaN fails each of them
    checks = (
        (not diagnostics.r_hat <= MAX_R_HAT, f"R-hat {diagnostics.r_hat:.3f} is above {MAX_R_HAT}"),
        (
            not diagnostics.ess_bulk >= MIN_ESS,
            f"bulk ESS {diagnostics.ess_bulk:.0f} is below {MIN_ESS}",
        ),
        (
            not diagnostics.ess_tail >= MIN_ESS,
            f"tail ESS {diagnostics.ess_tail:.0f} is below {MIN_ESS}",
        ),
        (
            not diagnostics.ess_hyper >= MIN_ESS_HYPER,
            f"ESS {diagnostics.ess_hyper:.0f} of a hyper-parameter is below {MIN_ESS_HYPER}",
        ),
        (diagnostics.divergences > 0, f"{diagnostics.divergences} divergent transitions"),
        (not diagnostics.bfmi >= MIN_BFMI, f"E-BFMI {diagnostics.bfmi:.2f} is below {MIN_BFMI}"),
        (
            not diagnostics.at_max_depth <= MAX_AT_DEPTH,
            f"{diagnostics.at_max_depth:.1%} of the draws stopped at the largest tree depth",
        ),
        (
            not diagnostics.mcse <= 1,
            f"the Monte Carlo error of a bound is {diagnostics.mcse:.1f} times what is allowed",
        ),
    )
    return [text for bad, text in checks if bad]


def _columns(values: Floats) -> list[Floats]:
    """Return (chain, draw) of each element."""
    flat = values.reshape(*values.shape[:2], -1)
    return [flat[:, :, i] for i in range(flat.shape[2])]


def _relative_mcse(column: Floats, level: float) -> float:
    """Return the Monte Carlo error of a reported bound, divided by its maximum."""
    allowed = max(MAX_MCSE, MAX_MCSE_SHARE * float(column.std()))
    bounds = ((1 - level) / 2, (1 + level) / 2)
    return max(quantile_error(column, p) for p in bounds) / allowed


LEAST_P = 0.005
"""Minimum distance of a predictive check's p-value from 0 and 1; the check fails below it."""

"""Every use of PyMC, PyTensor, nutpie and ArviZ, whose interfaces differ between major versions.

Supported are PyMC 5 and 6, and ArviZ 0.23 and 1: PyMC 6 and ArviZ 1 need Python 3.12. No other
module imports these libraries (ruff's banned-api), so that only this one knows their versions.
PyMC and nutpie return an InferenceData of ArviZ 0.23 or an xarray.DataTree; arrays leave this
module. Each library is imported at its first use, because that takes seconds.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from toxtrail.stats.rates import Floats

if TYPE_CHECKING:
    from pymc import Model as Model

WEIGHT_STEP = 1.01
"""Power to which power-scaling raises a density, and whose inverse is the other one."""


TAILS = (0.05, 0.95)
"""Probabilities of the quantiles whose effective sample sizes are that of the tails."""


class NutsSettings(NamedTuple):
    """Settings of the No-U-Turn sampler."""

    draws: int
    """Draws per chain, without tuning steps."""
    tune: int
    """Tuning steps per chain."""
    chains: int
    seed: int
    target_accept: float


class SampleResult(NamedTuple):
    """Draws and the statistics of the sampler."""

    posterior: Mapping[str, Floats]
    """Name -> (chain, draw, ...)."""
    diverging: Floats
    """(chain, draw), 1 for a divergent transition."""
    energy: Floats
    """Energy of the Hamiltonian, (chain, draw)."""
    at_max_depth: Floats
    """(chain, draw), 1 where the trajectory reached the maximum tree depth."""


class Target(NamedTuple):
    """A log density as machine code, which the sampler calls by its address."""

    size: int
    """Number of elements of a position."""
    density: Any
    """Object with the `address` of a C function: int64 (int64 size, double *position, double
    *gradient, double *value, double *data); 0 if value and gradient are finite, else 1."""
    copied: Any
    """Object with the `address` of a C function that copies a position: int64 (int64 size, int64
    size, double *position, double *copy, double *data)."""
    data: Floats
    """Array passed to both functions as `data`."""


def load_arviz() -> Any:
    """Return the module `arviz`; its functions of arrays, and `from_netcdf`, are the same in both
    versions."""
    import arviz

    return arviz


def load_pymc() -> Any:
    """Return the module `pymc`, for the definition of a model; its first import takes seconds.

    What the models use of it (distributions, Data, Deterministic, Potential, Binomial and math) is
    the same in both versions.
    """
    import pymc

    return pymc


class CompiledModel:
    """A PyMC model as machine code, which takes seconds to compile. Its data can be replaced."""

    def __init__(self, model: Model) -> None:
        import nutpie
        from pytensor.configdefaults import config

        config.numba__fastmath = False  # otherwise draws depend on the compilation cache
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._compiled: Any = nutpie.compile_pymc_model(model)

    def sample(self, data: Mapping[str, Any], settings: NutsSettings) -> SampleResult:
        """Sample with nutpie, one thread per chain.

        Args:
            data: name of a `Data` of the model -> value in its place, with as many dimensions.
            settings: settings of the sampler.
        """
        return _sample_result(_nutpie_sample(self._compiled.with_data(**data), settings))


def sample_target(
    target: Target, start: Callable[[int], Floats], settings: NutsSettings
) -> SampleResult:
    """Sample a compiled density with nutpie; its only variable is `position`.

    The density is passed to nutpie as the machine code of a PyMC model, because nutpie calls a
    Python function under the interpreter's lock, one chain at a time.

    Args:
        target: density and its data.
        start: function from a seed to an initial position.
        settings: settings of the sampler.
    """
    from nutpie.compile_pymc import CompiledPyMCModel

    shape = (target.size,)
    newer: dict[str, Any] = {"shared_var_keys": {}}  # nutpie 0.16.9
    fields = {field.name for field in dataclasses.fields(CompiledPyMCModel)}
    model = CompiledPyMCModel(
        dims={},
        compiled_logp_func=target.density,
        compiled_expand_func=target.copied,
        initial_point_func=start,
        shared_data={},
        user_data=target.data,
        n_expanded=target.size,
        shape_info=(["position"], [slice(0, target.size)], [shape]),
        logp_func=None,
        expand_func=None,
        _n_dim=target.size,
        _shapes={"position": shape},
        _coords={},
        **{name: value for name, value in newer.items() if name in fields},
    )
    return _sample_result(_nutpie_sample(model, settings))


def _nutpie_sample(model: Any, settings: NutsSettings) -> Any:
    import nutpie

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nutpie.sample(
            model,
            draws=settings.draws,
            tune=settings.tune,
            chains=settings.chains,
            seed=settings.seed,
            target_accept=settings.target_accept,
            progress_bar=False,
            save_warmup=False,
        )


def _sample_result(drawn: Any) -> SampleResult:
    """Return the arrays of an InferenceData or a DataTree."""
    posterior, stats = drawn["posterior"], drawn["sample_stats"]
    return SampleResult(
        posterior={str(name): posterior[name].values for name in posterior.data_vars},
        diverging=stats["diverging"].values.astype(np.float64),
        energy=stats["energy"].values,
        at_max_depth=stats["maxdepth_reached"].values.astype(np.float64),
    )


def _is_first_arviz() -> bool:
    """Return whether ArviZ is of the series 0; ArviZ 1 has old names too, which do not work."""
    return version("arviz").startswith("0.")


def diagnostics_packages() -> tuple[str, ...]:
    """Return the distributions that compute the diagnostics, for the record of their versions."""
    return ("arviz",) if _is_first_arviz() else ("arviz", "arviz-stats")


def effective_size(draws: Floats, part: Literal["bulk", "tail"]) -> float:
    """Return the effective sample size of (chain, draw) for its middle or its tails."""
    tails = {"prob": TAILS} if part == "tail" else {}
    return float(load_arviz().ess(draws, method=part, **tails))


def r_hat(draws: Floats) -> float:
    """Return the rank-normalised R-hat of (chain, draw)."""
    return float(load_arviz().rhat(draws))


def quantile_error(draws: Floats, probability: float) -> float:
    """Return the Monte Carlo standard error of a quantile of (chain, draw)."""
    return float(load_arviz().mcse(draws, method="quantile", prob=probability))


def energy_fractions(energy: Floats) -> Floats:
    """Return the estimated Bayesian fraction of missing information of (chain, draw), (chain,)."""
    return np.asarray(load_arviz().bfmi(energy), dtype=np.float64)


def prior_and_likelihood_sensitivity(
    draws: Floats, log_prior: Floats, log_likelihood: Floats
) -> tuple[float, float]:
    """Return how far a quantity moves when its prior, and when its data, are power-scaled.

    Args:
        draws: (chain, draw) of the quantity.
        log_prior, log_likelihood: (chain, draw), up to a constant.
    """
    import xarray

    arviz = load_arviz()
    sizes = ("chain", "draw")
    groups = {
        "posterior": xarray.Dataset({"quantity": (sizes, draws)}),
        "log_prior": xarray.Dataset({"prior": (sizes, log_prior)}),
        "log_likelihood": xarray.Dataset({"data": ((*sizes, "row"), log_likelihood[..., None])}),
    }
    if _is_first_arviz():
        data = arviz.InferenceData(**groups)
        sensitivity = partial(arviz.psens, data, delta=WEIGHT_STEP - 1)
        moved = [sensitivity(component=part) for part in ("prior", "likelihood")]
    else:
        tree = xarray.DataTree.from_dict(groups)
        sensitivity = partial(arviz.psense, tree, alphas=(1 / WEIGHT_STEP, WEIGHT_STEP))
        moved = [sensitivity(group=part) for part in ("prior", "likelihood")]
    prior, likelihood = (float(dataset["quantity"]) for dataset in moved)
    return prior, likelihood

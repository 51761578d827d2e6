"""The log density of the hierarchical model (`model`) and its gradient, as machine code.

nutpie calls the code by its address, without Python: chains run in parallel on all cores, whereas a
Python function would require the interpreter's lock. Importing this module imports Numba. The code
loops over scalars and reads data through plain pointers, because that compiles fast; without
fastmath, its results are bitwise equal in all processes. It is not cached on disk, because Numba
detects changed code only by time and size of the source file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

from toxtrail.stats.bayes_libraries import Target
from toxtrail.stats.rates import Floats

if TYPE_CHECKING:
    from toxtrail.stats.hierarchical.density import Family
    from toxtrail.stats.hierarchical.model import FamilyCounts

FAR = 400.0
"""Absolute log-odds from which on the density is treated as 0: exp overflows at 709."""
SAFE = 600.0
"""Sum of the absolute log-odds of all variants below which products neither overflow nor
underflow."""
SMALL = 1e-100
"""Product below which its logarithm is accumulated instead."""
NEGLIGIBLE = -40.0
"""Log of a term, relative to the largest term of an integral, below which it is omitted."""

HEADER = 6
"""Number of values before the nodes in the data: five sizes and the mean of the prior of mu."""

F = TypeVar("F", bound=Callable[..., Any])


def _jit(function: F) -> F:
    """Compile a function that only compiled functions call."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, numba.njit(fastmath=False, **options)(function))


def target(counts: FamilyCounts, family: Family, nodes: Floats, weights: Floats) -> Target:
    """Return the log density of the model for these data.

    Args:
        counts: the data.
        family: the model's parameters as vectors.
        nodes, weights: quadrature rule of the integral over a prompt's effect, (node,) each.
    """
    variants, subsets = family.shape
    sizes = (len(family.scales), len(family.of), variants, subsets, len(nodes), family.prior_mu)
    parts = (
        sizes,
        nodes,
        weights,
        counts.toxic.T,
        counts.together,
        family.scales,
        family.constant,
        family.of,
        family.design.reshape(variants, subsets, -1).transpose(2, 1, 0),
    )
    return Target(
        family.size,
        *compiled(),
        np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts]),
    )


@functools.cache
def compiled() -> tuple[Any, Any]:
    """Compile the density and the copy function of a Target."""
    numbers, whole = numba.types.CPointer(numba.types.double), numba.types.int64
    density = whole(whole, numbers, numbers, numbers, numbers)
    copied = whole(whole, whole, numbers, numbers, numbers)
    options = {"error_model": "numpy", "fastmath": False}
    return numba.cfunc(density, **options)(_entry), numba.cfunc(copied, **options)(_copied)


def _copied(size: int, places: int, position: Any, copy: Any, data: Any) -> int:
    """Copy a position; 0 on success, -1 if the sizes differ."""
    for k in range(size):
        copy[k] = position[k]
    return 0 if size == places else -1


def _entry(size: int, position: Any, gradient: Any, value: Any, data: Any) -> int:
    """Compute the log density and its gradient at a position; fills in `gradient` and `value`.

    Returns:
        0 on success, 1 if a result is not finite, -1 if the position has a wrong size.
    """
    many, terms, variants = int(data[0]), int(data[1]), int(data[2])
    subsets, grid = int(data[3]), int(data[4])
    if size != many + terms:
        return -1
    scales = HEADER + 2 * grid + (2 * variants + 1) * subsets
    eta, by_eta = np.empty((subsets, variants)), np.empty((subsets, variants))
    factors = np.empty(terms)
    _effects(position, data, scales, many, factors, eta)
    sd = data[scales] * math.exp(position[0])
    log_likelihood, by_sd = _likelihood(eta, sd, data, grid, by_eta)
    value[0] = log_likelihood + _prior(position, data, scales, many, factors, by_eta, gradient)
    gradient[0] += by_sd * sd
    total = value[0]
    for k in range(size):
        total += gradient[k]
    return 0 if math.isfinite(total) else 1


@_jit
def _effects(
    position: Any, data: Any, scales: int, many: int, factors: Floats, eta: Floats
) -> None:
    """Compute the linear predictor; fills in `factors`, (z,), and `eta`, (subset, variant)."""
    terms, subsets, variants = factors.size, eta.shape[0], eta.shape[1]
    constant = scales + many
    of = constant + terms
    at = of + terms
    for s in range(subsets):
        for v in range(variants):
            eta[s, v] = data[5]
    for k in range(terms):
        factors[k] = data[constant + k]
        scale_index = int(data[of + k])
        if scale_index < many:
            factors[k] *= data[scales + scale_index] * math.exp(position[scale_index])
        effect = factors[k] * position[many + k]
        for s in range(subsets):
            for v in range(variants):
                eta[s, v] += data[at + v] * effect
            at += variants


@_jit
def _likelihood(
    eta: Floats, sd: float, data: Any, grid: int, by_eta: Floats
) -> tuple[float, float]:
    """Return the log likelihood and its derivative with respect to sd_prompt; fills in `by_eta`,
    the derivatives with respect to eta.

    Args:
        eta: (subset, variant).
        sd: sd_prompt.
        data: data of the Target.
        grid: number of nodes.
        by_eta: (subset, variant).
    """
    times = np.empty(grid)
    for n in range(grid):
        times[n] = math.exp(sd * data[HEADER + n])
    value, by_sd = 0.0, 0.0
    for s in range(eta.shape[0]):
        subset_value, slope = _of_subset(eta, s, sd, data, times, by_eta)
        value += subset_value
        by_sd += slope
    return value, by_sd


@_jit
def _of_subset(
    eta: Floats, s: int, sd: float, data: Any, times: Floats, by_eta: Floats
) -> tuple[float, float]:
    """Return a subset's log likelihood and its derivative with respect to sd_prompt; fills in the
    subset's row of `by_eta`.

    Args:
        eta: (subset, variant).
        s: index of the subset.
        sd: sd_prompt.
        data: data of the Target.
        times: exp(sd node), (node,).
        by_eta: (subset, variant).
    """
    subsets, variants, grid = eta.shape[0], eta.shape[1], times.size
    toxic = HEADER + 2 * grid + s * variants
    together = HEADER + 2 * grid + subsets * variants + s * (variants + 1)
    furthest, value, by_sd = 0.0, 0.0, 0.0
    for v in range(variants):
        furthest = max(furthest, abs(eta[s, v]))
        value += data[toxic + v] * eta[s, v]
    furthest += sd * data[HEADER + grid - 1]
    if not furthest < FAR:
        return -math.inf, 0.0
    direct = variants * furthest < SAFE
    share, base = np.empty((variants, grid)), np.empty(grid)
    mass, tilted, term = np.empty(grid), np.empty(grid), np.empty(grid)
    _shares(eta, s, times, data, direct, share, base)
    value += _integrals(base, sd, data, together, variants, times, direct, mass, tilted)
    for v in range(variants):
        for n in range(grid):
            term[n] = mass[n] * share[v, n]
            tilted[n] -= term[n]
        by_eta[s, v] = data[toxic + v] - _total(term)
    for n in range(grid):
        by_sd += tilted[n] * data[HEADER + n]
    return value, by_sd


@_jit
def _integrals(
    base: Floats,
    sd: float,
    data: Any,
    together: int,
    variants: int,
    times: Floats,
    direct: bool,
    mass: Floats,
    tilted: Floats,
) -> float:
    """Return the sum over prompts of the log of their integral; fills in `mass`, the number of
    prompts that each node represents, and `tilted`, the sum of their numbers of toxic variants.

    Args:
        together: index in the data of the counts by number of toxic variants.
    """
    term, value = np.empty(base.size), 0.0
    for n in range(base.size):
        mass[n], tilted[n] = 0.0, 0.0
    for j in range(variants + 1):
        top = _tilt(base, j, sd, data, times, direct, term)
        prompts = data[together + j]
        if prompts > 0:
            total = _total(term)
            value += prompts * (top + math.log(total))
            each = prompts / total
            for n in range(base.size):
                mass[n] += each * term[n]
                tilted[n] += j * each * term[n]
    return value


@_jit
def _shares(
    eta: Floats, s: int, times: Floats, data: Any, direct: bool, share: Floats, base: Floats
) -> None:
    """Compute the rates and the integrand without toxic variants at each node; fills in `share` and
    `base`.

    Args:
        eta: (subset, variant).
        s: index of the subset.
        times: exp(sd node), (node,).
        data: data of the Target.
        direct: whether `base` contains the integrand itself, instead of its logarithm.
        share: rate of each variant, (variant, node).
        base: weight x product over variants of 1 / (1 + exp(eta) times), (node,).
    """
    grid = times.size
    taken = np.empty(grid)
    for n in range(grid):
        base[n], taken[n] = data[HEADER + grid + n], 0.0
    for v in range(eta.shape[1]):
        odds = math.exp(eta[s, v])
        for n in range(grid):
            complement = 1.0 / (1.0 + odds * times[n])
            share[v, n] = 1.0 - complement
            base[n] *= complement
        if not direct:
            _logged(base, taken)
    if not direct:
        for n in range(grid):
            base[n] = taken[n] + math.log(base[n])


@_jit
def _logged(base: Floats, taken: Floats) -> None:
    """Replace products below SMALL by 1 and add their logarithms to `taken`."""
    for n in range(base.size):
        if base[n] < SMALL:
            taken[n] += math.log(base[n])
            base[n] = 1.0


@_jit
def _tilt(
    base: Floats, j: int, sd: float, data: Any, times: Floats, direct: bool, term: Floats
) -> float:
    """Update `term` from j - 1 toxic variants to j: base exp(sd node)^j, divided by exp(result).

    Returns:
        Log of the divisor.
    """
    if direct:
        for n in range(term.size):
            term[n] = base[n] if j == 0 else term[n] * times[n]
        return 0.0
    top = -math.inf
    for n in range(term.size):
        term[n] = base[n] + j * sd * data[HEADER + n]
        top = max(top, term[n])
    for n in range(term.size):
        term[n] = math.exp(term[n] - top) if term[n] - top > NEGLIGIBLE else 0.0
    return top


@_jit
def _total(values: Floats) -> float:
    """Sum in four partial sums, which the processor adds in parallel."""
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    whole = values.size // 4
    for n in range(whole):
        first += values[n]
        second += values[whole + n]
        third += values[2 * whole + n]
        fourth += values[3 * whole + n]
    for n in range(4 * whole, values.size):
        first += values[n]
    return (first + second) + (third + fourth)


@_jit
def _prior(
    position: Any,
    data: Any,
    scales: int,
    many: int,
    factors: Floats,
    by_eta: Floats,
    gradient: Any,
) -> float:
    """Return the log prior; fills in the gradient of the log density with respect to the position,
    except the likelihood's part for sd_prompt."""
    terms, subsets, variants = factors.size, by_eta.shape[0], by_eta.shape[1]
    of = scales + many + terms
    at = of + terms
    value = 0.0
    for k in range(many):
        square = math.exp(2.0 * position[k])
        value += position[k] - 0.5 * square
        gradient[k] = 1.0 - square
    for k in range(terms):
        z, slope = position[many + k], 0.0
        for s in range(subsets):
            for v in range(variants):
                slope += data[at + v] * by_eta[s, v]
            at += variants
        slope *= factors[k]
        value -= 0.5 * z * z
        gradient[many + k] = slope - z
        scale_index = int(data[of + k])
        if scale_index < many:
            gradient[scale_index] += slope * z
    return value

"""The log density of the model of `model` and its gradient, as machine code.

nutpie calls the code by its address, with no Python in between: chains run side by side on as many
cores as there are, where a Python function would make them wait for one lock. Importing this module
imports Numba. The code loops over single numbers, and reads data through plain pointers, since that
compiles fast; without fastmath, it gives the same bits in every process. It is not cached on disk:
Numba tells old code from new by time and size of the source file alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

from toxtrail.stats.rates import Floats
from toxtrail.stats.sampling import Target

if TYPE_CHECKING:
    from toxtrail.stats.hierarchical.density import Family
    from toxtrail.stats.hierarchical.model import FamilyCounts

FAR = 400.0
"""Log-odds beyond which the density is taken as 0: exp overflows at 709."""
SAFE = 600.0
"""Sum of the log-odds of all variants up to which products stay within the range of numbers."""
SMALL = 1e-100
"""A product below it is turned into its logarithm."""
NEGLIGIBLE = -40.0
"""Log of a share of an integral that is left out."""

HEADER = 6
"""Numbers in front of the data."""

F = TypeVar("F", bound=Callable[..., Any])


def _jit(function: F) -> F:
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, numba.njit(fastmath=False, **options)(function))


def target(counts: FamilyCounts, family: Family, nodes: Floats, weights: Floats) -> Target:
    """
    Args:
        nodes, weights: of the integral over the effect of a prompt.
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
    """Of a Target: its density, and the copy of a position."""
    numbers, whole = numba.types.CPointer(numba.types.double), numba.types.int64
    density = whole(whole, numbers, numbers, numbers, numbers)
    copied = whole(whole, whole, numbers, numbers, numbers)
    options = {"error_model": "numpy", "fastmath": False}
    return numba.cfunc(density, **options)(_entry), numba.cfunc(copied, **options)(_copied)


def _copied(size: int, places: int, position: Any, copy: Any, data: Any) -> int:
    for k in range(size):
        copy[k] = position[k]
    return 0 if size == places else -1


def _entry(size: int, position: Any, gradient: Any, value: Any, data: Any) -> int:
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
    """Fills in factors, (z,), and eta, (subset, variant)."""
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
    """The log likelihood and its derivative by sd_prompt; fills in that by eta.

    Args:
        eta: (subset, variant).
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
    """
    Args:
        times: exp(sd node).
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
    """Sum over prompts of the log of their integral; fills in how many prompts each node
    represents, `mass`, and how many toxic variants all of these have, `tilted`.

    Args:
        together: place of the counts in the data.
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
    """Fills in, at each node, each variant's rate `share`, (variant, node), and weight x prod of
    1 / (1 + exp(eta) times) `base`, or the log of that if it is not `direct`."""
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
    """Takes products that are SMALL into their logarithms."""
    for n in range(base.size):
        if base[n] < SMALL:
            taken[n] += math.log(base[n])
            base[n] = 1.0


@_jit
def _tilt(
    base: Floats, j: int, sd: float, data: Any, times: Floats, direct: bool, term: Floats
) -> float:
    """Turns `term` of j - 1 toxic variants into that of j: base exp(sd node)^j, divided by the
    exponential of what it gives."""
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
    """In four sums, that a processor adds up side by side."""
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
    """The log prior; fills in the gradient of all by the position, but for the part of sd_prompt
    that the likelihood has."""
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

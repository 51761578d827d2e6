"""The log density of the model of `pooled`, and its gradient.

PyMC would derive both from `pooled.build`, and compile them for some 20 s before the first draw;
written out, they take Numba 2 s. The tests hold them to what PyMC derives.

`eta` is linear in standard normals z, each times a constant and times a scale or 1:

    eta[v, s] = sum over k of design[v, s, k] factor[k] z[k],     factor[k] = constant[k] sd[of[k]]

A zero-sum vector of n numbers is n - 1 such normals on an orthonormal basis (Helmert's) of what
sums to 0: the distribution of ZeroSumNormal(1). The sampler's position is log(sd / its prior's
scale) of each scale, then z.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import helmert

from toxtrail.stats.hierarchical.seed_effects import SCALE
from toxtrail.stats.rates import Floats, Ints

if TYPE_CHECKING:
    from toxtrail.stats.hierarchical.model import Counts

SUBSET_SD = 1.5
SD_PROMPT, SD_VARIANT, SD_INTERACTION = 2.5, 1.0, 0.5
"""Of half-normal priors."""
FAR = 400.0
"""Log-odds beyond which the density is taken as 0: exp overflows at 709."""
LARGE = 1e100
"""A product beyond it is turned into its logarithm."""
NEGLIGIBLE = -40.0
"""Log of a share of an integral that is left out."""


class Family(NamedTuple):
    """A family's parameters as vectors."""

    prior_mu: float
    scales: Floats
    """(sd,): of the half-normal priors of sd_prompt, sd_variant, sd_recipe of each recipe, and
    sd_interaction if there are several subsets."""
    design: Floats
    """(variant x subset, z)."""
    constant: Floats
    """(z,)."""
    of: Ints
    """(z,): place in `scales`, len(scales) for a factor of 1."""
    places: dict[str, slice]
    """Name -> which z."""
    shape: tuple[int, int]
    """(variant, subset)."""

    @property
    def size(self) -> int:
        return len(self.scales) + len(self.of)

    def start(self, seed: int) -> Floats:
        """A first position."""
        return np.random.default_rng(seed).uniform(-1, 1, self.size)

    def named(self, positions: Floats) -> dict[str, Floats]:
        """Name -> (chain, draw, ...), as PyMC has them of `pooled.build`.

        Args:
            positions: (chain, draw, position).
        """
        sd = self.scales * np.exp(positions[..., : len(self.scales)])
        z = positions[..., len(self.scales) :]
        w = z * self.factors(sd)
        eta = self.prior_mu + (w @ self.design.T).reshape(*w.shape[:2], *self.shape)
        found = {
            "eta": eta,
            "mu": self.prior_mu + w[..., 0],
            "sd_prompt": sd[..., 0],
            "sd_variant": sd[..., 1],
        }
        if self.shape[1] > 1:
            own = self.places["subset"]
            basis = self.design.reshape(*self.shape, -1)[0, :, own]
            found |= {"sd_interaction": sd[..., -1], "subset_effect": w[..., own] @ basis.T}
        if self.places["seed"].start < self.places["seed"].stop:
            recipes = int(self.of[self.places["seed"]].max()) - 1
            found |= {
                "sd_recipe": sd[..., 2 : 2 + recipes],
                "raw_seed": z[..., self.places["seed"]],
            }
        return found

    def factors(self, sd: Floats) -> Floats:
        """(..., z)."""
        one = np.ones((*sd.shape[:-1], 1))
        found: Floats = self.constant * np.concatenate([sd, one], axis=-1)[..., self.of]
        return found


def family_of(counts: Counts, prior_mu: tuple[float, float]) -> Family:
    """
    Args:
        prior_mu: mean and standard deviation.
    """
    variants, subsets = counts.toxic.shape
    recipes = counts.recipes
    groups = np.arange(variants) if recipes is None else recipes.groups
    members = np.zeros(0, dtype=np.int64) if recipes is None else recipes.members
    several = 0 if recipes is None else len(recipes.names)
    own = np.zeros(0, dtype=np.int64) if recipes is None else recipes.of[members]
    by_variant, by_subset = _basis(variants), _basis(subsets)
    everywhere = np.ones((1, subsets))
    parts = {
        "mu": (np.ones((variants, subsets, 1)), prior_mu[1], -1),
        "group": (_outer(_basis(int(groups.max()) + 1)[groups], everywhere.T), 1.0, 1),
        "seed": (_outer(np.eye(variants)[:, members], everywhere.T), 1.0, 2),
        "subset": (_outer(np.ones((variants, 1)), by_subset), SUBSET_SD, -1),
        "both": (_outer(by_variant, by_subset), 1.0, 2 + several),
    }
    scales = [SD_PROMPT, SD_VARIANT, *[SCALE] * several, *[SD_INTERACTION] * min(subsets - 1, 1)]
    sizes = [columns.shape[2] for columns, _, _ in parts.values()]
    ends = np.cumsum(sizes).tolist()
    of = np.repeat([at if at >= 0 else len(scales) for _, _, at in parts.values()], sizes)
    of[ends[1] : ends[2]] += own
    return Family(
        prior_mu[0],
        np.array(scales),
        np.concatenate([c for c, _, _ in parts.values()], axis=2).reshape(variants * subsets, -1),
        np.repeat([constant for _, constant, _ in parts.values()], sizes),
        of,
        {n: slice(e - size, e) for n, size, e in zip(parts, sizes, ends, strict=True)},
        (variants, subsets),
    )


def _basis(n: int) -> Floats:
    """(n, n - 1): orthonormal columns that sum to 0."""
    found: Floats = helmert(n).T if n > 1 else np.zeros((1, 0))
    return found


def _outer(rows: Floats, columns: Floats) -> Floats:
    """(variant, subset, each column of the one with each of the other)."""
    found: Floats = np.einsum("vi,sk->vsik", rows, columns)
    return found.reshape(len(rows), len(columns), -1)


def density(
    counts: Counts, family: Family, nodes: Floats, weights: Floats
) -> Callable[[Floats], tuple[float, Floats]]:
    """Position -> log density, up to a constant, and its gradient.

    Args:
        nodes, weights: of the integral over the effect of a prompt.
    """
    effects, likelihood, pulled_back = compiled()
    toxic, together = counts.toxic.astype(np.float64), counts.together.astype(np.float64)
    log_weights, size, shape = np.log(weights), family.size, family.shape
    known = (family.scales, family.constant, family.of)
    by_row, by_column = family.design, np.ascontiguousarray(family.design.T)

    def found(position: Floats) -> tuple[float, Floats]:
        eta, by_eta, gradient = np.empty(shape), np.zeros(shape), np.empty(size)
        factors = np.empty(known[1].size)
        sd = effects(position, *known, by_row, family.prior_mu, eta, factors)
        value, by_sd = likelihood(eta, sd, toxic, together, nodes, log_weights, by_eta)
        value += pulled_back(position, by_eta, by_sd * sd, known[2], by_column, factors, gradient)
        return value, gradient

    return found


@functools.cache
def compiled() -> tuple[Any, Any, Any]:
    """The functions below as machine code; without fastmath, the same bits in every process. They
    loop over single numbers: that compiles fast."""
    import numba

    jit = numba.njit(nogil=True, fastmath=False)
    likelihood = _likelihood_with(jit(_shares), jit(_integral), jit(_taken_off))
    return jit(_effects), jit(likelihood), jit(_pulled_back)


def _effects(
    position: Floats,
    scales: Floats,
    constant: Floats,
    of: Ints,
    design: Floats,
    prior_mu: float,
    eta: Floats,
    factors: Floats,
) -> float:
    """Fills in eta, (variant, subset), and factors, (z,); gives sd_prompt."""
    many = scales.size
    for k in range(of.size):
        sd = 1.0 if of[k] == many else scales[of[k]] * math.exp(position[of[k]])
        factors[k] = constant[k] * sd
    for row in range(eta.size):
        total = prior_mu
        for k in range(of.size):
            total += design[row, k] * factors[k] * position[many + k]
        eta[row // eta.shape[1], row % eta.shape[1]] = total
    return float(scales[0] * math.exp(position[0]))


def _shares(
    eta: Floats,
    sd: float,
    nodes: Floats,
    log_weights: Floats,
    share: Floats,
    tail: Floats,
) -> bool:
    """Fills in, at each node, each variant's rate `share` and the log of weight x prod of
    1 / (1 + exp(eta + sd node)) `tail`; False if eta is FAR out.

    Args:
        eta: (variant,), of one subset.
    """
    for v in range(eta.size):
        if not abs(eta[v]) + sd * nodes[nodes.size - 1] < FAR:
            return False
    odds = np.exp(eta)
    for n in range(nodes.size):
        times, product, found = math.exp(sd * nodes[n]), 1.0, log_weights[n]
        for v in range(eta.size):
            own = 1.0 + odds[v] * times
            share[n, v] = 1.0 - 1.0 / own
            product *= own
            if product > LARGE:
                found -= math.log(product)
                product = 1.0
        tail[n] = found - math.log(product)
    return True


def _integral(
    tail: Floats, tilt: float, prompts: float, nodes: Floats, mass: Floats, terms: Floats
) -> tuple[float, float]:
    """Of `prompts` prompts: log of the integral of exp(tail + tilt), and the sum over prompts of
    the mean node under it; adds to `mass` how many prompts each node stands for."""
    top, total, middle = -math.inf, 0.0, 0.0
    for n in range(nodes.size):
        terms[n] = tail[n] + tilt * nodes[n]
        top = max(top, terms[n])
    for n in range(nodes.size):
        terms[n] = math.exp(terms[n] - top) if terms[n] - top > NEGLIGIBLE else 0.0
        total += terms[n]
    for n in range(nodes.size):
        own = prompts / total * terms[n]
        mass[n] += own
        middle += own * nodes[n]
    return prompts * (top + math.log(total)), middle


def _taken_off(mass: Floats, share: Floats, nodes: Floats, by_eta: Floats) -> float:
    """Takes the expected toxic prompts off `by_eta`, (variant,); gives their sum times nodes."""
    found = 0.0
    for n in range(nodes.size):
        for v in range(by_eta.size):
            by_eta[v] -= mass[n] * share[n, v]
            found += mass[n] * share[n, v] * nodes[n]
    return found


def _likelihood_with(shares: Any, integral: Any, taken_off: Any) -> Any:
    def likelihood(
        eta: Floats,
        sd: float,
        toxic: Floats,
        together: Floats,
        nodes: Floats,
        log_weights: Floats,
        by_eta: Floats,
    ) -> tuple[float, float]:
        """The log likelihood and its derivative by sd_prompt; fills in that by eta.

        Args:
            eta: (variant, subset).
        """
        variants, subsets = eta.shape
        share = np.empty((nodes.size, variants))
        tail, mass, terms = np.empty(nodes.size), np.empty(nodes.size), np.empty(nodes.size)
        own = np.empty(variants)
        value, by_sd = 0.0, 0.0
        for s in range(subsets):
            for v in range(variants):
                own[v] = eta[v, s]
                value += toxic[v, s] * eta[v, s]
                by_eta[v, s] = toxic[v, s]
            if not shares(own, sd, nodes, log_weights, share, tail):
                return -math.inf, 0.0
            mass[:] = 0.0
            for j in range(variants + 1):
                if together[s, j] > 0:
                    part, middle = integral(tail, j * sd, together[s, j], nodes, mass, terms)
                    value += part
                    by_sd += j * middle
            by_sd -= taken_off(mass, share, nodes, by_eta[:, s])
        return value, by_sd

    return likelihood


def _pulled_back(
    position: Floats,
    by_eta: Floats,
    by_log_prompt: float,
    of: Ints,
    design: Floats,
    factors: Floats,
    gradient: Floats,
) -> float:
    """The log prior; fills in the gradient of all by the position.

    Args:
        design: (z, variant x subset).
    """
    many = position.size - of.size
    value = 0.0
    for k in range(many):
        square = math.exp(2.0 * position[k])
        value += position[k] - 0.5 * square
        gradient[k] = 1.0 - square
    gradient[0] += by_log_prompt
    for k in range(of.size):
        z, slope = position[many + k], 0.0
        for row in range(by_eta.size):
            slope += design[k, row] * by_eta[row // by_eta.shape[1], row % by_eta.shape[1]]
        slope *= factors[k]
        value -= 0.5 * z * z
        gradient[many + k] = slope - z
        if of[k] < many:
            gradient[of[k]] += slope * z
    return value

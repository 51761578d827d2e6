"""The parameters of the hierarchical model as the vectors of its hand-written log density.

PyMC derives density and gradient from `model.build`, but compiles them for about 20 s before the
first draw; Numba compiles the hand-written ones (`compiled`) in a few seconds. The tests compare
them with the PyMC model.

`eta` is linear in standard normals z, each multiplied by a constant and by a scale or 1:

    eta[v, s] = sum over k of design[v, s, k] factor[k] z[k],     factor[k] = constant[k] sd[of[k]]

A zero-sum vector of n numbers consists of n - 1 such normals on an orthonormal basis (Helmert's) of
the vectors that sum to 0: the distribution of ZeroSumNormal(1). The sampler's position consists of
log(sd / scale of its prior) for each scale, followed by z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import helmert

from toxtrail.stats.hierarchical.seed_effects import SCALE
from toxtrail.stats.rates import Floats, Ints

if TYPE_CHECKING:
    from toxtrail.stats.hierarchical.model import FamilyCounts

SUBSET_SD = 1.5
"""Standard deviation of the subset effects, log-odds."""
SD_PROMPT, SD_VARIANT, SD_INTERACTION = 2.5, 1.0, 0.5
"""Scales of half-normal priors, log-odds."""


class Family(NamedTuple):
    """A family's parameters as vectors."""

    prior_mu: float
    """Mean of the prior of mu, log-odds."""
    scales: Floats
    """Scales of the half-normal priors of sd_prompt, sd_variant, sd_recipe of each recipe, and
    sd_interaction if there are several subsets, (sd,)."""
    design: Floats
    """Coefficients of z in eta, (variant x subset, z)."""
    constant: Floats
    """Constant factor of each z, (z,)."""
    of: Ints
    """Index in `scales` of the scale of each z, (z,); len(scales) for a factor of 1."""
    places: dict[str, slice]
    """Name of an effect -> range of its z."""
    shape: tuple[int, int]
    """Number of variants and of subsets."""

    @property
    def size(self) -> int:
        """Number of elements of a position."""
        return len(self.scales) + len(self.of)

    def start(self, seed: int) -> Floats:
        """Return a random initial position."""
        return np.random.default_rng(seed).uniform(-1, 1, self.size)

    def named(self, positions: Floats) -> dict[str, Floats]:
        """Convert positions to the variables of `model.build`, name -> (chain, draw, ...).

        Args:
            positions: (chain, draw, position).
        """
        sd = self.scales * np.exp(positions[..., : len(self.scales)])
        z = positions[..., len(self.scales) :]
        w = z * self.factors(sd)
        eta = self.prior_mu + (w @ self.design.T).reshape(*w.shape[:2], *self.shape)
        draws = {
            "eta": eta,
            "mu": self.prior_mu + w[..., 0],
            "sd_prompt": sd[..., 0],
            "sd_variant": sd[..., 1],
        }
        if self.shape[1] > 1:
            subset_columns = self.places["subset"]
            basis = self.design.reshape(*self.shape, -1)[0, :, subset_columns]
            draws |= {
                "sd_interaction": sd[..., -1],
                "subset_effect": w[..., subset_columns] @ basis.T,
            }
        if self.places["seed"].start < self.places["seed"].stop:
            recipes = int(self.of[self.places["seed"]].max()) - 1
            draws |= {
                "sd_recipe": sd[..., 2 : 2 + recipes],
                "raw_seed": z[..., self.places["seed"]],
            }
        return draws

    def factors(self, sd: Floats) -> Floats:
        """Return the factor of each z, (..., z).

        Args:
            sd: (..., sd).
        """
        unit = np.ones((*sd.shape[:-1], 1))
        scale_factors: Floats = self.constant * np.concatenate([sd, unit], axis=-1)[..., self.of]
        return scale_factors


def family_of(counts: FamilyCounts, prior_mu: tuple[float, float]) -> Family:
    """Return the parameters of the model for these data.

    Args:
        counts: the data.
        prior_mu: mean and standard deviation of the prior of mu, log-odds.
    """
    variants, subsets = counts.toxic.shape
    recipes = counts.recipes
    groups = np.arange(variants) if recipes is None else recipes.groups
    members = np.zeros(0, dtype=np.int64) if recipes is None else recipes.members
    several = 0 if recipes is None else len(recipes.names)
    member_recipes = np.zeros(0, dtype=np.int64) if recipes is None else recipes.of[members]
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
    of[ends[1] : ends[2]] += member_recipes
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
    """Return orthonormal columns that sum to 0, (n, n - 1)."""
    basis: Floats = helmert(n).T if n > 1 else np.zeros((1, 0))
    return basis


def _outer(rows: Floats, columns: Floats) -> Floats:
    """Return the products of all columns of `rows` and `columns`, (variant, subset, i x k).

    Args:
        rows: (variant, i).
        columns: (subset, k).
    """
    product: Floats = np.einsum("vi,sk->vsik", rows, columns)
    return product.reshape(len(rows), len(columns), -1)

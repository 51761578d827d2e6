"""The parameters of the model of `pooled` as the vectors that its log density is written in.

PyMC would derive density and gradient from `pooled.build`, and compile them for some 20 s before
the first draw; written out (`compiled`), they take Numba a few. The tests hold them to the
model in PyMC.

`eta` is linear in standard normals z, each times a constant and times a scale or 1:

    eta[v, s] = sum over k of design[v, s, k] factor[k] z[k],     factor[k] = constant[k] sd[of[k]]

A zero-sum vector of n numbers is n - 1 such normals on an orthonormal basis (Helmert's) of what
sums to 0: the distribution of ZeroSumNormal(1). The sampler's position is log(sd / its prior's
scale) of each scale, then z.
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
SD_PROMPT, SD_VARIANT, SD_INTERACTION = 2.5, 1.0, 0.5
"""Of half-normal priors."""


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
        """(..., z)."""
        unit = np.ones((*sd.shape[:-1], 1))
        scale_factors: Floats = self.constant * np.concatenate([sd, unit], axis=-1)[..., self.of]
        return scale_factors


def family_of(counts: FamilyCounts, prior_mu: tuple[float, float]) -> Family:
    """
    Args:
        prior_mu: mean and standard deviation.
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
    """(n, n - 1): orthonormal columns that sum to 0."""
    basis: Floats = helmert(n).T if n > 1 else np.zeros((1, 0))
    return basis


def _outer(rows: Floats, columns: Floats) -> Floats:
    """(variant, subset, each column of the one with each of the other)."""
    product: Floats = np.einsum("vi,sk->vsik", rows, columns)
    return product.reshape(len(rows), len(columns), -1)

"""Effective number of prompts for clustered prompts (of one template, one author).

The number of prompts of a weighted mean over subsets (Korn & Graubard 1998) is divided

- by the design effect, the variance of the mean with clusters as the sampling unit over that with
  prompts as the unit, at least 1;
- and by the square of the ratio of Student's quantiles with the degrees of freedom of the clusters
  and of the prompts.

Each posterior is computed as if there were this number of prompts, for a table of counts as in Rao
& Scott 1992 (doi:10.2307/2532311). If all values are equal, the design effect cannot be estimated,
and each cluster counts as one prompt. Clusters of one prompt each change nothing.

Subsets are strata: differences between them do not contribute to the variance of the mean. Subsets
that share a cluster are one stratum, in which the cluster is one unit. If a stratum has only one
cluster, its variance cannot be estimated, and all subsets are treated as one stratum around the
common mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from toxtrail.stats.bayesian_bootstrap import effective, students_mass
from toxtrail.stats.rates import Floats, Ints


class Clusters(NamedTuple):
    """Assignment of prompts to clusters."""

    of: Sequence[Ints]
    """For each subset, (prompt,): number of the prompt's cluster, from 0. Subsets may share
    clusters."""
    level: float
    """Level of the requested interval."""

    @property
    def number(self) -> int:
        """Number of clusters."""
        return int(np.unique(np.concatenate(self.of)).size)


class Counted(NamedTuple):
    """Number of prompts behind a weighted mean."""

    prompts: float
    """Number of equally weighted prompts (Kish 1965)."""
    variance_ratio: float = 1.0
    """Variance with clusters as the unit divided by that with prompts as the unit, at least 1."""
    freedom: tuple[int, int] | None = None
    """Degrees of freedom of the clusters and of the prompts; None without clusters."""
    level: float = 0.0
    """Level of the requested interval; without clusters it has no effect."""

    @property
    def design_effect(self) -> float:
        """Divisor of the number of prompts; 1 without clusters."""
        if self.freedom is None:
            return 1.0
        clusters, prompts = self.freedom
        if clusters < 1:
            return max(self.prompts, 1.0)  # one cluster: one prompt
        wider = _student(self.level, clusters) / _student(self.level, prompts)
        return self.variance_ratio * wider**2

    @property
    def effective(self) -> float:
        """Number of independent prompts with the same information."""
        return self.prompts / self.design_effect

    def mass(self, level: float) -> float | None:
        """Return the total shape of the weights of a mean (`students_mass`); None if its variance
        cannot be estimated."""
        if self.freedom is None:
            return None if self.prompts < 2 else students_mass(self.prompts, level)
        if self.prompts < 2 or self.freedom[0] < 1:
            return None
        return students_mass(self.prompts, level, self.variance_ratio, self.freedom[0])


def counted(
    values: Sequence[Floats], weights: Sequence[float], clusters: Clusters | None
) -> Counted:
    """Return the number of prompts behind a weighted mean of these values.

    Args:
        values: for each subset, (prompt,): labels, or differences of two variants' labels.
        weights: of the subsets; they sum to 1.
    """
    sizes = [subset_values.size for subset_values in values]
    total = effective(sizes, weights)
    if clusters is None or clusters.number == sum(sizes):
        return Counted(total)
    of = np.unique(np.concatenate(clusters.of), return_inverse=True)[1]
    stratum = _strata(np.repeat(np.arange(len(sizes)), sizes), of)
    prompt_stratum = np.repeat(stratum, sizes)
    first = np.unique(of, return_index=True)[1]
    per_stratum = np.bincount(prompt_stratum[first])
    common = None
    if (per_stratum < 2).any():
        common = sum(
            w * float(subset_values.mean())
            for subset_values, w in zip(values, weights, strict=True)
        )
        prompt_stratum, per_stratum = np.zeros(of.size, dtype=np.int64), np.array([first.size])
    freedom = (int(first.size - per_stratum.size), int(of.size - per_stratum.size))
    if freedom[0] < 1:
        return Counted(total, 1.0, freedom, clusters.level)
    apart = [
        _apart(subset_values, common) * (w / subset_values.size)
        for subset_values, w in zip(values, weights, strict=True)
    ]
    alone = _alone(apart, common is None)
    if alone == 0:
        return Counted(total, max(total / first.size, 1.0), freedom, clusters.level)
    sums = np.bincount(of, weights=np.concatenate(apart))
    correction = (per_stratum / (per_stratum - 1))[prompt_stratum[first]]
    together = float((correction * sums**2).sum())
    return Counted(total, max(together / alone, 1.0), freedom, clusters.level)


def _apart(values: Floats, common: float | None) -> Floats:
    """Return (prompt,): deviations from the subset's mean, or from the common mean."""
    if common is not None:
        return values - common
    return values - values.mean() if values.min() < values.max() else np.zeros(values.size)


def _alone(apart: Sequence[Floats], by_subset: bool) -> float:
    """Return the variance of the mean with prompts as the unit."""
    parts = apart if by_subset else [np.concatenate(apart)]
    return sum(
        float((deviations**2).sum()) * deviations.size / (deviations.size - 1)
        for deviations in parts
        if deviations.size > 1
    )


def _strata(subset: Ints, cluster: Ints) -> Ints:
    """Return (subset,): the stratum of each; subsets that share a cluster are in one.

    Args:
        subset, cluster: (prompt,), numbers from 0.
    """
    subsets = int(subset[-1]) + 1
    if subsets == 1:
        return np.zeros(1, dtype=np.int64)
    nodes = subsets + int(cluster.max()) + 1
    edges = coo_array((np.ones(subset.size), (subset, subsets + cluster)), shape=(nodes, nodes))
    strata: Ints = connected_components(edges, directed=False)[1][:subsets].astype(np.int64)
    return strata


@lru_cache(maxsize=4096)
def _student(level: float, freedom: int) -> float:
    return float(stats.t.ppf((1 + level) / 2, freedom))

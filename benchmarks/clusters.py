"""Measure the coverage of intervals for clustered prompts.

Clusters (templates, identity terms, authors) have effects on the toxicity rate of their prompts,
and on the change from one variant to the other. Sizes are equal, or as unequal as 1, 1/2, 1/3, ...
Prompts have effects too. The true values are those over all possible clusters, by Gauss-Hermite
quadrature.

    python benchmarks/clusters.py [--runs 400]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from toxtrail.stats.clusters import Clusters
from toxtrail.stats.paired_differences import Pairs, mean_posterior, pair_posterior
from toxtrail.stats.rate_posterior import rate_posterior

LEVEL, PRIOR = 0.95, 0.5
CLUSTER_SD, CHANGE_SD, PROMPT_SD = 1.5, 0.7, 1.0
"""Standard deviations on the scale of log-odds: of clusters, of their changes, of prompts."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Design(NamedTuple):
    """One design of the grid."""

    clusters: int
    base: float
    """Rate of a."""
    step: float
    """Rate of b - rate of a."""
    unequal: bool = False
    prompts: int = 100

    @property
    def cluster(self):
        """(prompt,)."""
        share = 1 / np.arange(1, self.clusters + 1) if self.unequal else np.ones(self.clusters)
        wanted = np.cumsum(share / share.sum()) * (self.prompts - self.clusters)
        sizes = 1 + np.diff(np.round(wanted).astype(int), prepend=0)
        return np.repeat(np.arange(self.clusters), sizes)


class Covered(NamedTuple):
    """Shares of intervals that cover the true value."""

    rate: float
    difference: float
    mean: float
    """Of a score."""
    independent: float
    """Of intervals of the difference that take each prompt for independent."""
    called: float
    """Intervals of the difference that exclude 0."""


def intercept(rate: float, sd: float) -> float:
    """Return the log-odds for which the mean probability is this rate."""
    return float(brentq(lambda mu: WEIGHTS @ expit(mu + sd * NODES) - rate, -30, 30))


def simulated(design: Design, runs: int, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Return labels of a, labels of b and scores of a, (prompt,), for each run."""
    rng, cluster = np.random.default_rng(seed), design.cluster
    spread = (CLUSTER_SD**2 + PROMPT_SD**2) ** 0.5
    at_a = intercept(design.base, spread)
    at_b = intercept(design.base + design.step, (spread**2 + CHANGE_SD**2) ** 0.5)
    for _ in range(runs):
        shared = (CLUSTER_SD * rng.standard_normal(design.clusters))[cluster]
        shared = shared + PROMPT_SD * rng.standard_normal(cluster.size)
        change = (CHANGE_SD * rng.standard_normal(design.clusters))[cluster]
        chance = expit(at_a + shared)
        a = (rng.random(cluster.size) < chance) * 1.0
        b = (rng.random(cluster.size) < expit(at_b + shared + change)) * 1.0
        yield a, b, chance


def coverage(design: Design, runs: int, seed: int) -> Covered:
    """Return the coverage over `runs` simulated data sets."""
    clusters, found = Clusters([design.cluster], LEVEL), []
    for a, b, score in simulated(design, runs, seed):
        own = Pairs([a], [b], [1.0], clusters)
        mean = mean_posterior([score], [1.0], LEVEL, (0.0, 1.0), clusters)
        step, alone = pair_posterior(own, PRIOR), pair_posterior(own._replace(clusters=None), PRIOR)
        rate = rate_posterior([a], [1.0], PRIOR, clusters)
        at_zero = step.cdf(0.0)
        found.append(
            (
                covers(rate, design.base, a.mean()),
                covers(step, design.step, own.estimate),
                mean is None or covers(mean, design.base, score.mean()),
                covers(alone, design.step, own.estimate),
                at_zero < (1 - LEVEL) / 2 or at_zero > (1 + LEVEL) / 2,
            )
        )
    return Covered(*np.mean(found, axis=0))


def covers(posterior, truth: float, estimate: float) -> bool:
    """Return whether the interval, extended to the estimate, contains the true value."""
    mass = posterior.cdf(truth)
    if (1 - LEVEL) / 2 <= mass <= (1 + LEVEL) / 2:
        return True
    lo, hi = posterior.interval(LEVEL).around(estimate)
    return lo <= truth <= hi


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    print(f"{runs} runs a design, 100 prompts; columns: coverage, per cent; called: exclude 0")
    print("clusters sizes    base  step |  rate  diff  mean | diff, independent | called")
    for clusters, unequal in product((5, 10, 20, 50), (False, True)):
        rows = []
        for base, step in product((0.005, 0.02, 0.1, 0.3), (0.0, 0.05, 0.2)):
            design = Design(clusters, base, step, unequal)
            own = coverage(design, runs, 1)
            rows.append(own)
            print(
                f"{clusters:8} {'unequal' if unequal else 'equal':7} {100 * base:5.1f} "
                f"{100 * step:5.0f} | {' '.join(f'{100 * x:5.1f}' for x in own[:3])} | "
                f"{100 * own.independent:17.1f} | {100 * own.called:6.1f}",
                flush=True,
            )
        low, mean = np.min(rows, axis=0), np.mean(rows, axis=0)
        print(f"   lowest {100 * low[:3]}, mean {100 * mean[:4]}", flush=True)


if __name__ == "__main__":
    main()

"""The Bayesian bootstrap of many prompts: memory, and what groups of prompts do to its intervals.

    python benchmarks/bootstrap.py [--prompts 1000000] [--runs 200]

Above `rates.EACH_WEIGHED` prompts of a subset, groups of prompts have a random weight each. Prints
the highest memory of a process that draws means and rates of one large subset, and, of simulated
scores, how often 95 % intervals with and without groups hold the true mean, and how wide they are.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

from toxtrail.stats import rates, scores
from toxtrail.stats.rates import Floats, equal_tailed, weighted_means

DRAWS = 400
STUDY = 25_000
"""Prompts of the simulated subset: above the limit, and cheap enough without groups."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200)
    wanted = parser.parse_args()
    print_memory(wanted.prompts)
    print_coverage("scores, mean .02", skewed, 0.02, wanted.runs)
    print_coverage("shares of 5 labels, mean .002", rare, 0.002, wanted.runs)


def print_memory(prompts: int) -> None:
    values = np.random.default_rng(1).random((prompts, 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, drawn in (
        ("mean_draws", lambda: scores.mean_draws(values, 20_000, 1, "all")),
        ("weighted_means", lambda: weighted_means(values, ((0.0, 0.0), (1.0, 1.0)), 0.5, 20_000,
                                                  np.random.default_rng(1))),
    ):  # fmt: skip
        start = time.perf_counter()
        drawn()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{name}, {prompts:,} prompts, 20,000 draws: {time.perf_counter() - start:.0f} s, "
            f"highest memory {peak / 1024:.0f} MiB ({before / 1024:.0f} before)"
        )


def skewed(rng: np.random.Generator) -> Floats:
    """Mean .02: most scores near 0, a few near 1."""
    return rng.beta(0.1, 4.9, STUDY)


def rare(rng: np.random.Generator) -> Floats:
    """Shares of five continuations; prompts differ; mean .002."""
    return rng.binomial(5, rng.beta(0.02, 9.98, STUDY)) / 5


def print_coverage(
    name: str, made: Callable[[np.random.Generator], Floats], truth: float, runs: int
) -> None:
    for kind, limit in (("groups", rates.EACH_WEIGHED), ("each prompt", STUDY)):
        held, widths = 0, []
        with mock.patch.object(rates, "EACH_WEIGHED", limit):
            for run in range(runs):
                values = made(np.random.default_rng(run))
                drawn = scores.mean_draws(values[:, None], DRAWS, run, "all")[:, 0]
                low, high = equal_tailed(drawn, 0.95)
                held += low <= truth <= high
                widths.append(high - low)
        print(
            f"{name}, weights of {kind}: cover {held / runs:.3f}, width {np.mean(widths):.6f} "
            f"(varies by {np.std(widths) / np.mean(widths):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()

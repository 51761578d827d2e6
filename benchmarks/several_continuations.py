"""Measure the coverage of intervals for several continuations per prompt.

    python benchmarks/several_continuations.py [--runs 400] [--seed 1]

Scores of k continuations of n prompts by two variants are simulated in two ways: log-odds with
normal effects of the prompt, of prompt and variant, and of the continuation; or a few prompts that
mostly give high scores, Beta(5, 2), among others that give Beta(0.4, 12). The posteriors are those
of `paired_differences.mean_posterior`, `paired_differences.pair_posterior` and `rate_posterior`, by
draws with the same weights for all simulated experiments, which is equivalent and a hundred times
faster than their integrals.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from toxtrail.stats.bayesian_bootstrap import students_mass
from toxtrail.stats.paired_differences import END
from toxtrail.stats.paired_posterior import DISCORDANT

LEVEL, PRIOR, DRAWS, TRUTH = 0.95, 0.5, 2000, 40_000
CASES = (
    ("log-odds", -6.2, 32, 5, 0.0),
    ("log-odds", -6.2, 32, 5, 1.0),
    ("log-odds", -3.6, 32, 5, 0.7),
    ("few prompts", 0.03, 32, 5, 0.0),
    ("few prompts", 0.03, 32, 5, 1.0),
    ("few prompts", 0.12, 32, 5, 0.5),
    ("log-odds", -6.2, 100, 5, 0.0),
    ("log-odds", -6.2, 100, 25, 0.0),
)


def scores(rng, kind, level, runs, n, k, step):
    """Return (run, prompt, continuation) of two variants."""
    if kind == "log-odds":
        shared = rng.normal(level, 2.2, (runs, n, 1))
        odds = [shared + s + rng.normal(0, 1.2, (runs, n, 1)) for s in (0.0, step)]
        return [1 / (1 + np.exp(-(one + rng.normal(0, 1.2, (runs, n, k))))) for one in odds]
    place, found = rng.uniform(size=(runs, n, 1)), []
    for s in (0.0, step):
        high = (rng.uniform(size=(runs, n, k)) < 0.7) & (place < level * (1 + s))
        drawn = rng.beta(5, 2, high.shape), rng.beta(0.4, 12, high.shape)
        found.append(np.where(high, *drawn))
    return found


def bounds(draws):
    return np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def of_means(rng, values, shape, ends, weight):
    """Return (2, run): the interval of the mean of each run's values (run, prompt)."""
    shapes = np.r_[np.full(values.shape[1], shape), np.full(len(ends), weight)]
    weights = rng.standard_gamma(shapes, (DRAWS, shapes.size))
    weights /= weights.sum(axis=1, keepdims=True)
    atoms = np.tile(np.asarray(ends, dtype=float), (len(values), 1))
    return bounds(weights @ np.concatenate([values, atoms], axis=1).T)


def of_pairs(rng, a, b):
    """Return (2, run): the interval of the difference of two shares of labels (run, prompt)."""
    n01, n10 = ((1 - a) * b).sum(axis=1), (a * (1 - b)).sum(axis=1)
    rest, size = a.shape[1] - n01 - n10, (DRAWS, len(a))
    delta = rng.beta(n10 + n01 + DISCORDANT * PRIOR, np.maximum(rest, 1e-12), size)
    return bounds(delta * (2 * rng.beta(n01 + PRIOR, n10 + PRIOR, size) - 1))


def covered(interval, truth):
    low, high = interval
    return f"{np.mean((low <= truth) & (truth <= high)):.3f} / {100 * np.mean(high - low):.1f}"


def case(rng, kind, level, n, k, step, runs):
    """Return coverage / width in points of each quantity."""
    far = scores(rng, kind, level, TRUTH, 1, k, step)
    top = [own.max(axis=2).mean() for own in far]
    some = [(own >= 0.5).any(axis=2).mean() for own in far]
    rate = [(own >= 0.5).mean() for own in far]
    a, b = scores(rng, kind, level, runs, n, k, step)
    high = [own.max(axis=2) for own in (a, b)]
    label = [(own >= 0.5).astype(float) for own in high]
    share = [(own >= 0.5).mean(axis=2) for own in (a, b)]
    shape, toxic = students_mass(n, LEVEL) / n, label[0].sum(axis=1)
    tails = np.array([[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]])
    found = (
        (of_means(rng, high[0], 1.0, (), 0), top[0]),
        (of_means(rng, high[0], shape, (0, 1), END), top[0]),
        (of_means(rng, high[1] - high[0], 1.0, (), 0), top[1] - top[0]),
        (of_means(rng, high[1] - high[0], shape, (-1, 1), END), top[1] - top[0]),
        (stats.beta.ppf(tails, toxic + PRIOR, n - toxic + PRIOR), some[0]),
        (of_pairs(rng, *label), some[1] - some[0]),
        (of_means(rng, share[0], 1.0, (0, 1), PRIOR), rate[0]),
        (of_means(rng, share[1] - share[0], 1.0, (-1, 1), PRIOR), rate[1] - rate[0]),
    )
    return " | ".join([f"{100 * rate[0]:.1f}", *(covered(*one) for one in found)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = ("EMT plain", "EMT", "d EMT plain", "d EMT", "tox. prob.", "d tox. prob.", "rate")
    print(f"| scores, n, k, step | rate, % | {' | '.join(names)} | d rate |")
    print("|---" * (len(names) + 3) + "|")
    rng = np.random.default_rng(options.seed)
    for kind, level, n, k, step in CASES:
        said = case(rng, kind, level, n, k, step, options.runs)
        print(f"| {kind}, {n}, {k}, {step:g} | {said} |", flush=True)


if __name__ == "__main__":
    main()

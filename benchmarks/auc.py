"""Measure coverage and width of the interval of the area under the ROC curve.

    python benchmarks/auc.py [--runs 4000]

Scores of toxic and harmless texts are simulated: normal with a shift, or sharp, where some toxic
texts have the scores of harmless ones and all others score higher than every harmless text.
Prints a Markdown table: how often the 95 % interval covers the true area, is above or below it, and
its mean width; and how often the sample has no interval.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from scipy.stats import norm

from toxtrail.stats.auc import area_under_curve

LEVEL = 0.95
SIZES = ((10, 100), (20, 200), (50, 50), (100, 1000), (1000, 1000))


def normal(rng, area: float, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(norm.ppf(area) * 2**0.5, 1, m), rng.normal(0, 1, n)


def sharp(rng, area: float, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    missed = rng.random(m) < 2 * (1 - area)
    return np.where(missed, rng.random(m), 1 + rng.random(m)), rng.random(n)


def row(scores, area: float, m: int, n: int, runs: int) -> str:
    rng = np.random.default_rng(1)
    found = [area_under_curve(*scores(rng, area, m, n), LEVEL).interval for _ in range(runs)]
    intervals = np.array([interval for interval in found if interval is not None])
    above, below = (intervals[:, 0] > area).mean(), (intervals[:, 1] < area).mean()
    width, none = (intervals[:, 1] - intervals[:, 0]).mean(), runs - len(intervals)
    return (
        f"| {scores.__name__} | {area:g} | {m} | {n} | {1 - above - below:.3f} | {above:.3f} "
        f"| {below:.3f} | {width:.3f} | {none / runs:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4000)
    runs = parser.parse_args().runs
    print("| scores | area | toxic | harmless | covers | above | below | width | none |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scores, area, (m, n) in product((normal, sharp), (0.7, 0.9, 0.99), SIZES):
        print(row(scores, area, m, n, runs), flush=True)


if __name__ == "__main__":
    main()

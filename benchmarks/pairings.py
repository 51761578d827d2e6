"""Measure how often a verdict on published rates depends on the unknown pairing, by simulation.

    python benchmarks/pairings.py [--runs 200]

Two variants continue the same prompts; their labels have the correlation PHI. `toxtrail published`
uses the two counts only, up to a largest correlation of 0.8 and up to the strongest possible; the
paired model uses the labels.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.power import joint_probabilities
from toxtrail.stats.published_counts import (
    AnalysisSettings,
    PublishedCount,
    pairing_bounds,
    unpaired,
)

PHI = 0.4
DESIGNS = (
    (2400, 0.05, 0.05),
    (2400, 0.05, 0.06),
    (2400, 0.10, 0.12),
    (330, 0.10, 0.16),
    (100, 0.02, 0.08),
    (1000, 0.02, 0.02),
)
"""Prompts and the true rates of a and b."""
DECIDED = ("higher", "lower")


def tables(n: int, rates: tuple[float, float], runs: int) -> Iterator[tuple[int, int, int]]:
    """Return counts of prompts toxic for a, for b and for both, for simulated experiments."""
    rng = np.random.default_rng([n, *(round(1000 * rate) for rate in rates)])
    for n11, n10, n01, _ in rng.multinomial(n, joint_probabilities(*rates, PHI), size=runs):
        yield int(n11 + n10), int(n11 + n01), int(n11)


def shares(n: int, rates: tuple[float, float], runs: int) -> dict[str, float]:
    """Return shares of runs: by unpaired counts, by the bounds to either end, and by the labels."""
    seen: Counter[str] = Counter()
    for toxic_a, toxic_b, both in tables(n, rates, runs):
        a, b = PublishedCount(toxic_a, n), PublishedCount(toxic_b, n)
        apart = unpaired(a, b, 0.5, 0.95).verdict
        found = pairing_bounds(a, b, AnalysisSettings(0.5, 0.95, 1, 0.8))
        strongest = apart if found.turns_at is None else "depends"
        seen["unpaired decides"] += apart in DECIDED
        for name, verdict in (("to 0.8", found.verdict), ("to the strongest", strongest)):
            seen[f"{name}: decides"] += verdict in DECIDED
            seen[f"{name}: depends"] += verdict.startswith("depends")
            seen[f"{name}: not decisive"] += verdict == "not decisive"
        seen["labels decide"] += labels_decide(n, (toxic_a, toxic_b, both))
    return {name: count / runs for name, count in seen.items()}


def labels_decide(n: int, counts: tuple[int, int, int]) -> bool:
    """Return whether the paired model excludes 0 on the true table: P(theta < 1/2) is extreme."""
    a, b, both = counts
    table = PairTable(*map(float, (both, a - both, b - both, n - a - b + both)))
    return not 0.025 <= PairedPosterior(table, 0.5).probability_higher <= 0.975


def main() -> None:
    """Print a table for benchmarks/RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    for design in DESIGNS:
        n, *rates = design
        found = shares(n, (rates[0], rates[1]), runs)
        print(f"{n}, {rates[0]:.0%} v {rates[1]:.0%}:", flush=True)
        for name, share in found.items():
            print(f"    {name:30} {share:.2f}", flush=True)


if __name__ == "__main__":
    main()

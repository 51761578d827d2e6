"""Published rates without pairs: how often is a verdict left to the pairing? Simulated truth.

    python benchmarks/pairings.py [--runs 200]

Two variants answer the same prompts; their labels correlate by PHI. `toxtrail published` sees the
two counts alone, up to a largest correlation of 0.8 and up to the strongest possible; the paired
model sees the labels.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from toxtrail.stats.paired_posterior import PairedPosterior, Table
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
    """Toxic for a, for b and for both, of so many made-up experiments."""
    rng = np.random.default_rng([n, *(round(1000 * rate) for rate in rates)])
    for n11, n10, n01, _ in rng.multinomial(n, joint_probabilities(*rates, PHI), size=runs):
        yield int(n11 + n10), int(n11 + n01), int(n11)


def shares(n: int, rates: tuple[float, float], runs: int) -> dict[str, float]:
    """Of runs: by unpaired counts, by the bracket to either end, and by the labels themselves."""
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
    """The paired model on the true table: its interval leaves out 0 if P(theta < 1/2) does."""
    a, b, both = counts
    table = Table(*map(float, (both, a - both, b - both, n - a - b + both)))
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

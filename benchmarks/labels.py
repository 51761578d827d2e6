"""Measure coverage and width of differences and rates corrected by human labels.

    python benchmarks/labels.py [--runs 2000]

Families of two variants are simulated with known true rates, within-prompt correlation .4 and a
scorer of known error rates, equal on both variants or not; the first m prompts are labelled. Prints
Markdown tables: how often the 95 % interval covers the true value and excludes 0, its width, and
that of the labels alone by the same method; then how often labels contradict equal accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np

from toxtrail.stats.prediction_powered import Stratum, labelled_difference, labelled_rate
from toxtrail.stats.scorer_error import unequal

LEVEL = 0.95
SCORERS = {
    "like": ((0.8, 0.8), (0.97, 0.97)),
    "Sp .99 v .95": ((0.9, 0.9), (0.99, 0.95)),
    "Se .9 v .6": ((0.9, 0.6), (0.97, 0.97)),
    "accurate, Sp .999 v .98": ((0.9, 0.9), (0.999, 0.98)),
}
RATES = {
    "10 v 10": [(0.1, 0.1)],
    "10 v 20": [(0.1, 0.2)],
    "2 v 2": [(0.02, 0.02)],
    "2 v 5": [(0.02, 0.05)],
    "12.5 v 76": [(0.125, 0.76)],
    "+64 in 3 of 4 subsets": [(0.03, 0.8), (0.1, 0.7), (0.3, 0.95), (0.05, 0.05)],
}
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def made(rng, n: int, rates, sensitivity, specificity) -> Pair:
    """Return (prompt,): human labels of a and b, the scorer's labels of a and b."""
    u, v = rng.random((2, n))
    truth = u < rates[0], np.where(rng.random(n) < 0.4, u, v) < rates[1]
    called = [
        np.where(y, rng.random(n) < se, rng.random(n) >= sp)
        for y, se, sp in zip(truth, sensitivity, specificity, strict=True)
    ]
    a, b, called_a, called_b = (column.astype(float) for column in (*truth, *called))
    return a, b, called_a, called_b


def strata(subsets: Sequence[tuple[np.ndarray, np.ndarray]], m: int) -> list[Stratum]:
    """Divide the labels among subsets of equal size."""
    own = m // len(subsets)
    return [Stratum(1 / len(subsets), f[own:], f[:own], f[:own], y[:own]) for y, f in subsets]


def alone(parts: Sequence[Stratum]) -> list[Stratum]:
    """Return the estimate from the labels without the scorer."""
    return [Stratum(p.weight, 0 * p.others, 0 * p.scored, 0 * p.called, p.labelled) for p in parts]


def row(kind: str, n: int, m: int, name: str, scorer: str, runs: int) -> str:
    rng, rates = np.random.default_rng(1), RATES[name]
    estimate = labelled_difference if kind == "difference" else labelled_rate
    truth = np.mean([b - a if kind == "difference" else b for a, b in rates])
    found, labels = [], []
    for _ in range(runs):
        drawn = [made(rng, n // len(rates), own, *SCORERS[scorer]) for own in rates]
        parts = strata(
            [(b - a, cb - ca) if kind == "difference" else (b, cb) for a, b, ca, cb in drawn], m
        )
        found.append(estimate(parts, LEVEL).interval)
        labels.append(estimate(alone(parts), LEVEL).interval)
    ends, others = np.array(found), np.array(labels)
    covers, covers_alone = (
        ((e[:, 0] <= truth) & (truth <= e[:, 1])).mean() for e in (ends, others)
    )
    calls = ((ends[:, 0] > 0) | (ends[:, 1] < 0)).mean()
    widths = [100 * (e[:, 1] - e[:, 0]).mean() for e in (ends, others)]
    called = f"{calls:.3f}" if kind == "difference" else ""
    return (
        f"| {kind} | {n} | {m} | {name} | {scorer} | {covers:.3f} | {called} | {widths[0]:.1f} "
        f"| {covers_alone:.3f} | {widths[1]:.1f} |"
    )


def refusals(m: int, rate: float, scorer: str, runs: int) -> str:
    rng, refused = np.random.default_rng(2), 0
    for _ in range(runs):
        a, b, called_a, called_b = made(rng, m, (rate, rate), *SCORERS[scorer])
        wrong = {
            kind: {
                v: (int(((y == of) & (c != y)).sum()), int((y == of).sum()))
                for v, y, c in (("a", a, called_a), ("b", b, called_b))
            }
            for kind, of in (("misses", 1), ("false positives", 0))
        }
        refused += any(unequal(errors) for errors in wrong.values())
    return f"| {m} | {100 * rate:g} | {scorer} | {refused / runs:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    print("| of | prompts | labels | truth, % | scorer | covers | calls | width, pp | alone covers "
          "| alone width |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for kind, n, m in product(("difference", "rate"), (480, 2400), (52, 200)):
        for name, scorer in product(RATES, SCORERS):
            print(row(kind, n, m, name, scorer, runs), flush=True)
    print("\n| labels | rate, % | scorer | pooled counts refused |\n|---|---|---|---|")
    for m, rate, scorer in product((50, 200), (0.05, 0.2), SCORERS):
        print(refusals(m, rate, scorer, runs), flush=True)


if __name__ == "__main__":
    main()

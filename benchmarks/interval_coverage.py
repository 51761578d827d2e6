"""Measure the coverage of intervals of paired differences and odds ratios.

    python benchmarks/interval_coverage.py [--runs 1500] [--seed 1] [--designs 100]

Single subsets are enumerated: every possible table of n prompts, with its probability, so their
coverage has no Monte Carlo error. Several subsets, and odds ratios, are simulated: tables are
sampled subset by subset, and summed as in `paired_differences.joint_table`. For comparison,
Newcombe's interval (1998, method 10) and McNemar's mid-p test are computed for the same table.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import stats

from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.power import joint_probabilities, phi_bounds

BASES = (0.005, 0.02, 0.05, 0.125, 0.3)
STEPS = (0.0, "x1.5", 0.05, 0.2, 0.64)
PHIS = (0.2, 0.5, 0.8)
PRIOR, LEVEL = 0.5, 0.95


def chances(base: float, step: float, phi: float) -> tuple[float, float, float, float]:
    """Return p11, p10, p01, p00; phi is reduced if the rates do not allow it."""
    low, high = phi_bounds(base, base + step)
    return tuple(joint_probabilities(base, base + step, min(max(phi, low), 0.98 * high)))


@lru_cache(maxsize=200_000)
def interval(n10: float, n01: float, n: float) -> tuple[float, float]:
    """Return the interval, which does not depend on how the concordant prompts are divided."""
    return PairedPosterior(PairTable(n - n10 - n01, n10, n01, 0.0), PRIOR).interval(LEVEL)


def enumerated(n: int, p10: float, p01: float) -> tuple[float, float]:
    """Return the coverage of one subset of n prompts, and how often 0 is excluded."""
    lo10, lo01 = (stats.binom.ppf(1e-9, n, p) for p in (p10, p01))
    hi10, hi01 = (stats.binom.ppf(1 - 1e-9, n, p) for p in (p10, p01))
    tables = [
        (a, b)
        for a in range(int(lo10), int(hi10) + 1)
        for b in range(int(lo01), int(hi01) + 1)
        if a + b <= n
    ]
    counts = np.array(tables)
    chance = stats.multinomial(n, [p10, p01, 1 - p10 - p01]).pmf(
        np.column_stack([counts, n - counts.sum(axis=1)])
    )
    bounds = np.array([interval(float(a), float(b), float(n)) for a, b in tables])
    truth = p01 - p10
    inside = (bounds[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= bounds[:, 1])
    called = (bounds[:, 0] > 0) | (bounds[:, 1] < 0)
    return float(chance[inside].sum()), float(chance[called].sum())


def steps(base: float, step: float | str) -> float:
    return base / 2 if step == "x1.5" else float(step)


def simulated(
    sizes: list[int],
    bases: list[float],
    gaps: list[float],
    phi: float,
    runs: int,
    seed: int,
    odds: bool = True,
) -> dict[str, float]:
    """Return the coverage of `all`: difference and, if requested, odds ratio; how often 0 is
    excluded; the same for Newcombe's interval and the mid-p test."""
    rng = np.random.default_rng(seed)
    cells = [chances(b, g, phi) for b, g in zip(bases, gaps, strict=True)]
    drawn = sum(rng.multinomial(n, c, runs) for n, c in zip(sizes, cells, strict=True))
    weights = np.array(sizes) / sum(sizes)
    a, b = (float(weights @ [c[0] + c[i] for c in cells]) for i in (1, 2))
    ratio = (b / (1 - b)) / (a / (1 - a))
    found = {"difference": 0.0, "odds": 0.0, "calls": 0.0, "newcombe": 0.0, "mid-p": 0.0}
    for table in drawn:
        own = PairedPosterior(PairTable(*map(float, table)), PRIOR)
        lo, hi = own.interval(LEVEL)
        found["difference"] += lo <= b - a <= hi
        found["calls"] += lo > 0 or hi < 0
        if odds:
            _, (low, high) = own.odds_ratio(LEVEL)
            found["odds"] += low <= ratio <= high
        low, high = newcombe(table)
        found["newcombe"] += low <= b - a <= high
        found["mid-p"] += mid_p(int(table[1]), int(table[2])) < 1 - LEVEL
    expected = sum(n * (c[1] + c[2]) for n, c in zip(sizes, cells, strict=True))
    return {"discordant": expected, **{name: value / runs for name, value in found.items()}}


def newcombe(table: np.ndarray) -> tuple[float, float]:
    """Return the interval by method 10 of Newcombe 1998, Statistics in Medicine 17."""
    n11, n10, n01, n00 = map(float, table)
    n = n11 + n10 + n01 + n00
    a, b = (n11 + n10) / n, (n11 + n01) / n
    (la, ua), (lb, ub) = _wilson(a, n), _wilson(b, n)
    product_ = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
    top = n11 * n00 - n10 * n01
    top = max(top - n / 2, 0.0) if top > 0 else top
    phi = top / product_**0.5 if product_ else 0.0
    d = b - a
    down = ((b - lb) ** 2 - 2 * phi * (b - lb) * (ua - a) + (ua - a) ** 2) ** 0.5
    up = ((ub - b) ** 2 - 2 * phi * (ub - b) * (a - la) + (a - la) ** 2) ** 0.5
    return d - down, d + up


def _wilson(p: float, n: float) -> tuple[float, float]:
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre, half = 2 * n * p + z * z, z * (z * z + 4 * n * p * (1 - p)) ** 0.5
    return (centre - half) / (2 * (n + z * z)), (centre + half) / (2 * (n + z * z))


def mid_p(n10: int, n01: int) -> float:
    """Return the two-sided mid-p value of McNemar's test."""
    few, all_ = min(n10, n01), n10 + n01
    if all_ == 0:
        return 1.0
    tail = stats.binom.cdf(few, all_, 0.5) - 0.5 * stats.binom.pmf(few, all_, 0.5)
    return float(min(1.0, 2 * tail))


def designs() -> list[tuple[str, list[int], list[float], list[float], float]]:
    """Return name, sizes, rates of a, steps, phi."""
    found = []
    shapes = {f"{s} x {n}": [n] * s for s, n in product((4, 5, 8), (32, 100, 480))}
    shapes |= {"1000..200": [1000, 800, 400, 200], "300+4x10": [300, 10, 10, 10, 10]}
    shapes |= {"960+20+20": [960, 20, 20], "480+3x32": [480, 32, 32, 32]}
    for (name, sizes), base, step, phi in product(shapes.items(), BASES, STEPS, PHIS):
        gap = steps(base, step)
        if base + gap >= 0.98:
            continue
        s = len(sizes)
        spread = np.linspace(0.4, 1.6, s)
        spread *= sum(sizes) / float(np.dot(spread, sizes))
        for kind, rates in (("equal", [base] * s), ("unequal", list(base * spread))):
            gaps = [gap] * s if step != "x1.5" else [r / 2 for r in rates]
            if max(r + g for r, g in zip(rates, gaps, strict=True)) < 0.99:
                found.append(
                    (f"{name}, {base:.1%}, {step}, {phi}, {kind}", sizes, rates, gaps, phi)
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--designs", type=int, default=0, help="so many, evenly spread; 0: all")
    args = parser.parse_args()
    single()
    several(args.runs, args.seed, args.designs)


def single() -> None:
    rows = []
    for n, base, step, phi in product((10, 20, 32, 100, 480), BASES, STEPS, PHIS):
        gap = steps(base, step)
        if base + gap < 0.98:
            _, p10, p01, _ = chances(base, gap, phi)
            covered, called = enumerated(n, p10, p01)
            rows.append((n * (p10 + p01), covered, called, step == 0.0, (n, base, step, phi)))
    _report("one subset, enumerated", rows)


def several(runs: int, seed: int, number: int) -> None:
    rows, odds, theirs, power = [], [], [], []
    own = designs()
    chosen = own if not number else [own[int(i)] for i in np.linspace(0, len(own) - 1, number)]
    for place, (name, sizes, rates, gaps, phi) in enumerate(chosen):
        found = simulated(sizes, rates, gaps, phi, runs, seed + place, odds=False)
        null = max(gaps) == 0
        rows.append((found["discordant"], found["difference"], found["calls"], null, name))
        if place % 5 == 0:
            few = simulated(sizes, rates, gaps, phi, max(runs // 3, 1), seed + place)
            odds.append((few["discordant"], few["odds"], few["calls"], null, name))
        theirs.append((found["discordant"], found["newcombe"], 0.0, False, name))
    _report(f"all subsets, {runs} runs each", rows)
    _report(f"odds ratio, {max(runs // 3, 1)} runs each", odds)
    _report("Newcombe's interval", theirs)
    for phi in (0.3, 0.37, 0.5):
        found = simulated([100] * 8, [0.005] * 8, [0.01] * 8, phi, 4 * runs, seed, odds=False)
        power.append(f"phi {phi}: {found['calls']:.3f} (mid-p {found['mid-p']:.3f})")
    print("power at 8 x 100, .5 -> 1.5 %:", "; ".join(power))


def _report(title: str, rows: list) -> None:
    discordant, covered = (np.array([row[i] for row in rows]) for i in (0, 1))
    calls = np.array([row[2] for row in rows if row[3]] or [np.nan])
    many = discordant >= 10
    least = min(rows, key=lambda row: row[1])
    print(
        f"{title}: {len(rows)} designs; coverage mean {covered.mean():.4f}; least "
        f"{covered[many].min() if many.any() else np.nan:.4f} of {many.sum()} with ten discordant "
        f"prompts or more, {covered[~many].min() if (~many).any() else np.nan:.4f} of the others "
        f"(least: {least[-1]}); false calls at most {calls.max():.4f}, mean {calls.mean():.4f}"
    )


if __name__ == "__main__":
    main()

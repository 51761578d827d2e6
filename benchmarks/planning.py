"""Measure whether power analysis is accurate: simulated experiments, with the comparison's
verdicts.

    python benchmarks/planning.py [--runs 20000]

Two variants continue the same prompts, in one subset or several; the labels of all subsets together
are one two-by-two table. `plan --effect` states 80 % power; so does `mde80`.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import betaincc

from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.power import (
    VerdictRule,
    detectable_difference,
    joint_probabilities,
    nearest_table,
    power,
    prompts_for_width,
    required_prompts,
)

USUAL = VerdictRule(0.5, 0.95)
PROMISED = 0.8
Design = tuple[float, float, float]
"""Base rate, difference, correlation."""
DESIGNS: tuple[Design, ...] = (
    (0.01, 0.02, 0.3), (0.01, 0.05, 0.3), (0.02, 0.03, 0.4), (0.05, 0.02, 0.4), (0.05, 0.05, 0.4),
    (0.05, -0.04, 0.3), (0.125, 0.10, 0.4), (0.125, -0.06, 0.4), (0.128, 0.10, 0.21),
    (0.30, 0.10, 0.5), (0.30, 0.30, 0.3), (0.30, -0.15, 0.4),
)  # fmt: skip
SIZES = {
    "1": (1.0,),
    "4": (1.0,) * 4,
    "8 equal": (1.0,) * 8,
    "8 unequal": (20.0, 10.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0),
}
"""Sizes of the subsets, relative to each other."""
ODDS = (0.2, 0.5, 1.0, 2.5)
"""Of four subsets with base rates of their own, against the common rate's."""
TABLES = ((32, 0, 0, 0), (31, 0, 1, 0), (107, 3, 18, 0), (8, 0, 24, 0), (450, 10, 20, 0))


def split(n: int, sizes: tuple[float, ...]) -> np.ndarray:
    """Divide prompts among subsets of these relative sizes."""
    ends = np.round(np.cumsum(sizes) / sum(sizes) * n).astype(int)
    return np.diff(ends, prepend=0)


def measured_power(design: Design, n: int, sizes: tuple[float, ...], runs: int) -> float:
    """Return the share of simulated experiments that detect the difference."""
    base, step, phi = design
    return called([tuple(nearest_table(base, step, phi))] * len(sizes), split(n, sizes), step, runs)


def called(tables: list[tuple[float, ...]], prompts: np.ndarray, step: float, runs: int) -> float:
    """Return the share of experiments whose verdict has the sign of the step; a table for each
    subset."""
    rng = np.random.default_rng([int(prompts.sum()), len(prompts), round(1e4 * abs(step))])
    parts = [rng.multinomial(n, t, size=runs) for n, t in zip(prompts, tables, strict=True)]
    whole = np.sum(parts, axis=0)
    higher = betaincc(whole[:, 2] + USUAL.prior, whole[:, 1] + USUAL.prior, 0.5)
    bound = (1 + USUAL.level) / 2
    return float(np.mean(higher > bound if step > 0 else higher < 1 - bound))


def uneven(design: Design, n: int, runs: int) -> tuple[float, float]:
    """Return the stated power for the common table, and the measured power for four subsets with
    different base rates (by ODDS) and the same odds ratio."""
    base, step, phi = design
    ratio = (base + step) / (1 - base - step) / (base / (1 - base))
    tables = []
    for factor in ODDS:
        odds = factor * base / (1 - base)
        own, other = odds / (1 + odds), ratio * odds / (1 + ratio * odds)
        tables.append(nearest_table(own, other - own, phi))
    mean = type(tables[0])(*np.mean(tables, axis=0).tolist())
    return power(mean, n, USUAL), called(
        [tuple(t) for t in tables], split(n, (1.0,) * 4), step, runs
    )


def print_power(runs: int) -> None:
    """Print the power for numbers of prompts, in each layout of subsets."""
    print(
        "| base, difference, phi | n |", " | ".join(SIZES), "| subsets' own rates: promised, is |"
    )
    for design in DESIGNS:
        n = required_prompts(
            joint_probabilities(design[0], design[0] + design[1], design[2]), PROMISED, USUAL
        )
        own = [f"{measured_power(design, n, sizes, runs):.3f}" for sizes in SIZES.values()]
        said, found = uneven(design, n, runs)
        print(f"| {design} | {n:,} |", " | ".join(own), f"| {said:.3f}, {found:.3f} |")


def print_detectable(runs: int) -> None:
    """Print the power for the smallest detectable increase and decrease."""
    for base in (0.02, 0.125, 0.3):
        for subsets, each in ((4, 32), (8, 32), (10, 20)):
            for falls in (False, True):
                found = detectable_difference(base, 0.4, subsets * each, PROMISED, USUAL, falls)
                if found is None:
                    continue
                step = -found if falls else found
                own = measured_power((base, step, 0.4), subsets * each, (1.0,) * subsets, runs)
                print(f"| {base:g} | {subsets} x {each} | {100 * step:+.1f} | {own:.3f} |")


def print_widths() -> None:
    """Print the mean width for the stated number of prompts for +-2 points."""
    rng = np.random.default_rng(2)
    for table in TABLES:
        n = prompts_for_width(PairTable(*map(float, table)), USUAL, 0.04)
        widths = []
        for drawn in rng.multinomial(n, np.array(table) / sum(table), size=200):
            lo, hi = PairedPosterior(PairTable(*map(float, drawn)), USUAL.prior).interval(
                USUAL.level
            )
            widths.append(hi - lo)
        print(f"| {table[2]} v {table[1]} of {sum(table)} | {n:,} | {50 * np.mean(widths):.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    asked = parser.parse_args()
    print_power(asked.runs)
    print_detectable(asked.runs)
    print_widths()

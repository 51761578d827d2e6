"""Measure how often the headline about the largest of many differences is right.

    python benchmarks/largest.py [--runs 1000] [--seed 1]

A base and V - 1 fine-tunes continue the same prompts; prompts have a normal effect (sd 2 on the
log-odds scale). "alone": the largest difference is called by its own 95 % interval; "corrected": by
an interval that covers together with those of all V - 1 differences. For the headlines that name a
worst variant: the claim (the observed difference; the bound of the corrected interval nearest to
0), the true value, and how often the true difference is not above 0. True rates are integrals over
prompts. The pooled model is not used.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from scipy.special import betaincc, expit

from toxtrail.stats.paired_posterior import PairedPosterior, PairTable
from toxtrail.stats.selection_correction import simultaneous_level

PRIOR, LEVEL, PROMPT_SD = 0.5, 0.95, 2.0
SIZES = {"4x32": 128, "5x100": 500}
EFFECTS = ("none", "sd .2", "sd .5", "all +.3")
GRID = np.linspace(-8, 8, 401)
WEIGHT = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()


class Headlines(NamedTuple):
    """Headlines of the runs of one setting."""

    called: float
    """Share of runs whose headline names a worst variant."""
    claimed: float
    """Mean over those, points."""
    true: float
    """Likewise: the true difference."""
    wrong_sign: float
    """Share of those whose true difference is not above 0."""
    wrong_of_all: float
    """The same as a share of all runs."""


def rate(eta: np.ndarray) -> np.ndarray:
    """Return the mean over prompts of the rate at these log-odds."""
    return expit(eta[..., None] + PROMPT_SD * GRID) @ WEIGHT


def centre(base: float) -> float:
    """Return the log-odds at which the mean rate is this."""
    grid = np.linspace(-12, 4, 3201)
    return float(np.interp(base, rate(grid), grid))


def effects(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return (run, fine-tune) effects on the log-odds scale."""
    if kind.startswith("sd"):
        return float(kind.split()[1]) * rng.standard_normal(shape)
    return np.full(shape, 0.3 if kind == "all +.3" else 0.0)


def simulated(
    variants: int, n: int, base: float, kind: str, runs: int, rng: np.random.Generator
) -> dict[str, Headlines]:
    """Return method -> headlines."""
    start, own = centre(base), effects(kind, (runs, variants - 1), rng)
    true = rate(start + own) - base
    prompt = start + PROMPT_SD * rng.standard_normal((runs, 1, n))
    toxic_a = rng.random((runs, 1, n)) < expit(prompt)
    toxic_b = rng.random((runs, variants - 1, n)) < expit(prompt + own[..., None])
    n01, n10 = (toxic_b & ~toxic_a).sum(-1), (toxic_a & ~toxic_b).sum(-1)
    observed = (n01 - n10) / n
    higher = betaincc(n01 + PRIOR, n10 + PRIOR, 0.5)
    found = {}
    for name, level in (
        ("alone", LEVEL),
        ("corrected", simultaneous_level(LEVEL, variants - 1)),
    ):
        kept = np.where(higher > (1 + level) / 2, observed, -np.inf)
        chosen = kept.argmax(axis=1)
        rows = np.flatnonzero(np.isfinite(kept.max(axis=1)))
        places = rows, chosen[rows]
        tables = (
            PairTable(0.0, float(b), float(a), float(n - a - b))
            for a, b in zip(n01[places], n10[places], strict=True)
        )
        claims = observed[places]
        if name == "corrected":
            claims = np.array([PairedPosterior(t, PRIOR).interval(level).lo for t in tables])
        wrong = true[places] <= 0
        found[name] = Headlines(
            rows.size / runs,
            100 * float(claims.mean()) if rows.size else np.nan,
            100 * float(true[places].mean()) if rows.size else np.nan,
            float(wrong.mean()) if rows.size else np.nan,
            float(wrong.sum()) / runs,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    print(
        "| V | prompts | base | effects | called | claimed / true | not above 0, of called |"
        " of all |\n|---|---|---|---|---|---|---|---|"
    )
    for kind in EFFECTS:
        for base in (0.05, 0.125):
            for size, n in SIZES.items():
                for variants in (2, 4, 8, 28):
                    found = simulated(variants, n, base, kind, args.runs, rng)
                    a, c = found["alone"], found["corrected"]
                    print(
                        f"| {variants} | {size} | {100 * base:g} % | {kind} | {a.called:.3f} -> "
                        f"{c.called:.3f} | {a.claimed:.1f} / {a.true:.1f} -> {c.claimed:.1f} / "
                        f"{c.true:.1f} | {a.wrong_sign:.2f} -> {c.wrong_sign:.2f} | "
                        f"{a.wrong_of_all:.3f} -> {c.wrong_of_all:.3f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

"""Measure how often the checks of the pooled model withhold results, with and without a misfit.

    python benchmarks/pooling.py --cache DIR [--runs N] [--first N] [SCENARIO ...]
    python benchmarks/pooling.py --cache DIR --table

Each run (a scenario and a number, its seed) is one file of the cache, written atomically: processes
may share the folder, and an interrupted run can be resumed. `--table` prints the existing results.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from toxtrail.analysis.family import VariantPair
from toxtrail.analysis.pooled_row_checks import RowEvidence, withheld_rows
from toxtrail.records.columns import to_json
from toxtrail.stats import sampling
from toxtrail.stats.hierarchical import model as hierarchical_model
from toxtrail.stats.hierarchical.checks import predictive_checks, replicated
from toxtrail.stats.rates import Floats, equal_tailed_interval
from toxtrail.stats.sampling import LEAST_P, SamplerSettings

EFFORT = (1, 400, 0.9)
sampling.TUNE = 400  # one short chain: enough to judge a model by, not to report
REPLICATES = 500


class Scenario(NamedTuple):
    """True parameters of a simulated family."""

    rates: Floats
    """(variant, subset)."""
    prompts: int | tuple[int, ...]
    """Of each subset."""
    effects: str = "shared"
    """Of prompts: `shared` by all variants, by each half of them (`groups`), or `own`."""
    odd: tuple[int, int] | None = None
    """The cell that differs."""
    interaction: float = 0.0
    """Standard deviation of further variant x subset effects, drawn anew in each run, log-odds."""


def scenarios() -> dict[str, Scenario]:
    low, steps = 0.125, np.array([-0.5, 0.3, 0.5, -0.3])

    def flat(variants: int) -> Floats:
        return np.full((variants, 4), low)

    def changed(variants: int, odd_rises: bool, by: float) -> Floats:
        rates = flat(variants)
        rates[-1, 3 if odd_rises else slice(0, 3)] += by
        return rates

    also = changed(4, False, 0.66)
    also[2, 3] += 0.16
    additive = expit(-2.0 + np.array([0, 0.3, 1.5, -0.5])[:, None] + steps)
    demo = expit(np.array([-1.5, -3.9, -1.5, -1.9]) + np.array([0, 0.8, 3.5])[:, None])
    times = low * np.array([1, 1.1, 1.5, 0.6])[:, None] * np.ones(4)
    return {
        "alike, 3 x 4 x 32": Scenario(flat(3), 32),
        "alike, 4 x 4 x 32": Scenario(flat(4), 32),
        "alike, 4 x 4 x 100": Scenario(flat(4), 100),
        "x1.1, x1.5, x.6, 4 x 4 x 100": Scenario(times, 100),
        "additive, up to +1.5, 4 x 4 x 100": Scenario(additive, 100),
        "additive, up to +3.5, 3 x 4 x 32": Scenario(demo, 32),
        "interaction .3, 4 x 4 x 100": Scenario(additive, 100, interaction=0.3),
        "+66 in three, 0 in the fourth, 3 x 4 x 32": Scenario(
            changed(3, False, 0.66), 32, odd=(2, 3)
        ),
        "+66 in three, 0 in the fourth, +16, 4 x 4 x 32": Scenario(also, 32, odd=(3, 3)),
        "+30 in one subset, 4 x 4 x 100": Scenario(changed(4, True, 0.3), 100, odd=(3, 3)),
        "interaction 1.5, 4 x 4 x 32": Scenario(flat(4), 32, interaction=1.5),
        "interaction 1.5, 4 x 4 x 100": Scenario(flat(4), 100, interaction=1.5),
        "two groups of prompt effects, 4 x 4 x 100": Scenario(flat(4), 100, "groups"),
        "prompt effects of each variant, 4 x 4 x 100": Scenario(flat(4), 100, "own"),
        **held_out(),
        **unseen(),
    }


def unseen() -> dict[str, Scenario]:
    """Return designs that were first run after all limits had been fixed."""
    steps = np.array([-1.0, -0.4, 0.0, 0.3, 0.6, 1.0])
    additive = expit(np.array([-2.2, -1.9, -0.9])[:, None] + steps)
    odd = np.full((4, 5), 0.05)
    odd[3, :4] += 0.5
    risen = np.full((4, 4), 0.15)
    risen[3, 2] += 0.35
    sizes = (25, 35, 45, 55, 65, 75)
    return {
        "unseen: alike, 4 x 6 x 25 to 75": Scenario(np.full((4, 6), 0.25), sizes),
        "unseen: additive, up to +1.3, 3 x 6 x 25 to 75": Scenario(additive, sizes),
        "unseen: +50 in four, 0 in the fifth, 4 x 5 x 48": Scenario(odd, 48, odd=(3, 4)),
        "unseen: +35 in one subset, 4 x 4 x 80": Scenario(risen, 80, odd=(3, 2)),
        "unseen: interaction 1.5, 3 x 6 x 50": Scenario(np.full((3, 6), 0.2), 50, interaction=1.5),
        "unseen: two groups of prompt effects, 5 x 4 x 90": Scenario(
            np.full((5, 4), 0.2), 90, "groups"
        ),
    }


def held_out() -> dict[str, Scenario]:
    """Return designs with other sizes and rates than those above."""
    five, three = np.full((5, 3), 0.06), np.full((3, 3), 0.08)
    three[2, :2] += 0.6
    odd_of_five = np.full((3, 5), 0.1)
    odd_of_five[2, :4] += 0.66
    risen = np.full((5, 3), 0.08)
    risen[4, 0] += 0.3
    near_zero = expit(np.array([-2.0, -4.2, -2.5, -1.2, -3.0]) + np.array([0, 1, 2.5])[:, None])
    sizes = (20, 50, 120)
    return {
        "held out: alike, 5 x 3 x 20/50/120": Scenario(five, sizes),
        "held out: additive, up to +2.5, 3 x 5 x 16 to 64": Scenario(
            near_zero, (16, 24, 32, 48, 64)
        ),
        "held out: interaction .3, 5 x 3 x 20/50/120": Scenario(five, sizes, interaction=0.3),
        "held out: +60 in two, 0 in the third, 3 x 3 x 30/60/40": Scenario(
            three, (30, 60, 40), odd=(2, 2)
        ),
        "held out: +66 in four, 0 in the fifth, 3 x 5 x 32": Scenario(odd_of_five, 32, odd=(2, 4)),
        "held out: +30 in one of three subsets, 5 x 3 x 80": Scenario(risen, 80, odd=(4, 0)),
        "held out: interaction 1.5, 5 x 3 x 60": Scenario(
            np.full((5, 3), 0.15), 60, interaction=1.5
        ),
        "held out: two groups of prompt effects, 6 x 3 x 60/90/120": Scenario(
            np.full((6, 3), 0.12), (60, 90, 120), "groups"
        ),
    }


SD_PROMPT = 2.0


def simulated(truth: Scenario, rng: np.random.Generator) -> list[Floats]:
    """Return labels of each subset, (prompt, variant)."""
    variants, subsets = truth.rates.shape
    middle = np.vectorize(_log_odds)(truth.rates)
    middle = middle + truth.interaction * rng.standard_normal(middle.shape)
    found = []
    for s in range(subsets):
        n = truth.prompts if isinstance(truth.prompts, int) else truth.prompts[s]
        effects = rng.standard_normal((n, variants))
        shared = {"shared": np.zeros(variants), "own": np.arange(variants)}
        of = shared.get(truth.effects, np.arange(variants) * 2 // variants).astype(int)
        chance = expit(middle[:, s] + SD_PROMPT * effects[:, of])
        found.append((rng.random(chance.shape) < chance).astype(np.float64))
    return found


def _log_odds(rate: float) -> float:
    """Return the log-odds at the middle prompt."""
    nodes, weights = SD_PROMPT * hierarchical_model.PROMPT_NODES, hierarchical_model.WEIGHTS
    return float(brentq(lambda x: expit(x + nodes) @ weights - rate, -30, 30))


def judged(truth: Scenario, seed: int) -> dict[str, Any]:
    """Run once: the result of the checks, and the rows that they would otherwise have shown."""
    rng = np.random.default_rng(seed)
    counts = hierarchical_model.count_labels(simulated(truth, rng))
    variants, subsets = truth.rates.shape
    chains, draws, accept = EFFORT
    drawn = hierarchical_model.sample_posterior(
        counts, SamplerSettings(chains, draws, accept, seed)
    )
    eta, sd = drawn.posterior["eta"], drawn.posterior["sd_prompt"]
    flat, sds = eta.reshape(-1, variants, subsets), sd.ravel()
    rate = hierarchical_model.marginal_rates(flat, sds).reshape(eta.shape)
    rate = np.concatenate([rate, rate.mean(axis=-1, keepdims=True)], axis=-1)
    some = np.linspace(0, len(flat) - 1, REPLICATES).astype(int)
    predicted = replicated(flat[some], sds[some], counts.prompts, rng)
    checks = predictive_checks(counts, predicted)
    names, parts = [f"v{v}" for v in range(variants)], [f"s{s}" for s in range(subsets)]
    who = [VariantPair("v0", name, "reference") for name in names[1:]]
    own = RowEvidence(counts, predicted, rate, drawn.posterior["sd_interaction"])
    rows = withheld_rows(own, who, names, parts, 0.95)
    whole = [c.statistic for c in checks if not LEAST_P <= c.p <= 1 - LEAST_P]
    found: dict[str, Any] = {
        "whole": whole,
        "rows": [to_json(row) for row in rows],
        "sd": float(np.median(own.sd_interaction)),
        "diverging": int(drawn.diverging.sum()),
        "published": {},
    }
    gone = {(row.b, row.subset) for row in rows if row.b is not None}
    for v, s in np.ndindex(variants - 1, subsets):
        lo, hi = equal_tailed_interval(rate[:, :, v + 1, s] - rate[:, :, 0, s], 0.95)
        key = f"v{v + 1} s{s}"
        hidden = bool(whole) or (f"v{v + 1}", f"s{s}") in gone
        found["published"][key] = {"lo": lo, "hi": hi, "withheld": hidden}
    return found


def runs(cache: Path, name: str) -> Iterator[dict[str, Any]]:
    for path in sorted(cache.glob(f"{_slug(name)}-*.json")):
        yield json.loads(path.read_text())


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _misfit(found: dict[str, Any]) -> bool:
    """Return whether a row is withheld for a reason other than a claim that depends on other
    subsets."""
    return any("because of other subsets" not in row["reason"] for row in found["rows"])


def table(cache: Path) -> None:
    print(
        "| truth | runs | gate fires | whole scorer | only claims without support of their own | "
        "odd row called credible: shown, without |"
    )
    print("|---|---|---|---|---|---|")
    for name, truth in scenarios().items():
        found = list(runs(cache, name))
        if not found:
            continue
        n = len(found)
        fires = sum(bool(one["whole"] or _misfit(one)) for one in found)
        claims = sum(bool(one["rows"]) and not (one["whole"] or _misfit(one)) for one in found)
        whole = sum(bool(one["whole"]) for one in found)
        called = "-"
        if truth.odd and truth.rates[truth.odd] == truth.rates[0, truth.odd[1]]:
            rows = [one["published"][f"v{truth.odd[0]} s{truth.odd[1]}"] for one in found]
            false = [row for row in rows if row["lo"] > 0 or row["hi"] < 0]
            called = f"{sum(not row['withheld'] for row in false)}, {len(false)}"
        print(f"| {name} | {n} | {fires / n:.2f} | {whole / n:.2f} | {claims / n:.2f} | {called} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("scenario", nargs="*")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    if args.table:
        return table(args.cache)
    for number in range(args.first, args.first + args.runs):
        for name, truth in scenarios().items():
            path = args.cache / f"{_slug(name)}-{number:04d}.json"
            if path.exists() or (args.scenario and name not in args.scenario):
                continue
            found = judged(truth, zlib.crc32(f"{name}|{number}".encode()) % 2**31)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(found))
            draft.rename(path)
    return None


if __name__ == "__main__":
    main()

"""Measure the cost of the statistics: a family of many variants, and pairwise BEST on the same
data.

python benchmarks/comparison.py [--variants 28] [--subsets 5] [--prompts 480] [--best-pairs 3]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from zlib import crc32

import numpy as np

from toxtrail.config.schema import PoolingConfig, PosteriorConfig
from toxtrail.records.results import VariantIdentity
from toxtrail.records.rows import Generation, Score

CONFIG = PosteriorConfig(
    threshold={"judge": 0.5},
    rope_pp=1.0,
    rope_relative=0.25,
    level=0.95,
    prior=0.5,
    draws=20000,
    seed=11,
)
POOLING = PoolingConfig(chains=4, draws=8000, target_accept=0.97)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=28)
    parser.add_argument("--subsets", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=480, help="of each subset")
    parser.add_argument("--best-pairs", type=int, default=3)
    parser.add_argument("--part", choices=["compare", "pool", "best"])
    asked = parser.parse_args()
    if asked.part:
        alone(asked)
        return
    for part in ("compare", "pool", "best"):  # each in a process of its own: start-up counts
        arguments = [f"--{n.replace('_', '-')}={v}" for n, v in vars(asked).items() if n != "part"]
        start = time.perf_counter()
        command = [sys.executable, __file__, f"--part={part}", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{part}: {time.perf_counter() - start:.0f} s in all; {done.stdout.strip()}")


def alone(asked: argparse.Namespace) -> None:
    from toxtrail.analysis.response_table import build_response_table
    from toxtrail.analysis.score_table import build_score_table
    from toxtrail.analysis.variant_rates import estimate_variant_rates

    rows = family(asked.variants, asked.subsets, asked.prompts)
    tables = {name: build_score_table(own) for name, own in rows.items()}
    texts = {name: build_response_table(spoken(own)) for name, own in rows.items()}
    start = time.perf_counter()
    summaries = {
        name: estimate_variant_rates(table, texts[name], identity(name), "judge", CONFIG).summary
        for name, table in tables.items()
    }
    rates = time.perf_counter() - start
    start = time.perf_counter()
    if asked.part == "compare":
        from toxtrail.analysis.comparison import compare_family
        from toxtrail.stages.compare import with_figures

        found = with_figures(compare_family(tables, texts, summaries, "v00", "judge", CONFIG))
        note = f"{len(found.summary.pairs)} rows; rates of all variants before: {rates:.0f} s"
    elif asked.part == "pool":
        from toxtrail.analysis.pooled_estimates import pool_family
        from toxtrail.stats.hierarchical.model import sample_posterior

        found = pool_family(tables, summaries, "v00", "judge", CONFIG, POOLING, sample_posterior)
        status = found.summary.scorers["judge"]
        note = f"{status.status} {status.reason}, {status.effort}, {status.diagnostics}"
    else:
        note = pairwise_best(tables, asked)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.perf_counter() - start:.0f} s of work, at most {memory:.0f} MiB; {note}")


def identity(name: str) -> VariantIdentity:
    parent = None if name == "v00" else "v00"
    return VariantIdentity(variant=name, family="f", role="x", parent=parent)


def pairwise_best(tables, asked) -> str:
    """Run BEST on a few pairs, and extrapolate to all of them."""
    from toxtrail.analysis.best_test import best_rows
    from toxtrail.backends.protocols import NoProgress

    seconds = []
    for other in list(tables)[1 : 1 + asked.best_pairs]:
        start = time.perf_counter()
        pair = {"a": "v00", "b": other, "scorer": "judge", "subset": "all"}
        best_rows(tables, [pair], "judge", CONFIG, NoProgress())
        seconds.append(time.perf_counter() - start)
    pairs = asked.variants * (asked.variants - 1) // 2 * (asked.subsets + 1)
    each = statistics.median(seconds)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    all_of_them, against_one = each * pairs / 60, each * (asked.variants - 1) / 60
    return (
        f"{each:.1f} s a pair ({spread}), so {all_of_them:.0f} minutes for all {pairs} pairs and "
        f"subsets, {against_one:.1f} for each variant against one"
    )


def spoken(rows: list[Score]) -> list[Generation]:
    """Return texts of 50 tokens, whose content does not affect the time."""
    words = ("people", "town", "mill", "river", "again", "and", "spoke", "met")
    found = []
    for row in rows:
        tokens = tuple(crc32(f"{row.prompt_id}|{i}".encode()) % 50_000 for i in range(50))
        text = " ".join(words[token % len(words)] for token in tokens)
        found.append(
            Generation(row.prompt_id, row.sample, row.subset, "ok", text, tokens, 9, "length", "")
        )
    return found


def family(variants: int, subsets: int, prompts: int) -> dict[str, list[Score]]:
    """Simulate typical scores: a concentration near 0 and a toxic tail, correlated on the same
    prompt."""
    rng = np.random.default_rng(1)
    level = -4 + rng.normal(0, 1, subsets) + rng.normal(0, 0.4, (variants, 1))
    level = level + rng.normal(0, 0.2, (variants, subsets))
    found: dict[str, list[Score]] = {f"v{v:02d}": [] for v in range(variants)}
    for s in range(subsets):
        effect = 1.9 * rng.standard_normal(prompts)
        for v, name in enumerate(found):
            toxic = rng.random(prompts) < 1 / (1 + np.exp(-(level[v, s] + effect)))
            pile = 1 / (1 + np.exp(-rng.normal(-5, 1, prompts)))
            values = np.where(toxic, rng.uniform(0.5, 1, prompts), np.minimum(pile, 0.49))
            found[name] += [
                Score(f"s{s}-{i:05d}", 0, f"s{s}", "judge", "ok", float(x), {"toxic": float(x)}, 1)
                for i, x in enumerate(values)
            ]
    return found


if __name__ == "__main__":
    main()

"""Measure the tables behind comparisons with ten million scored continuations.

    python benchmarks/tables.py [--variants 28] [--prompts 14000] [--samples 25]

Score files of simulated families are written as by the score stage, then read and grouped as in
`posterior` and `compare`: rates of every variant, then counts of every pair. Prints seconds, rows
per second and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toxtrail.analysis.paired_rows import _paired
from toxtrail.analysis.score_table import COLUMNS, build_score_table
from toxtrail.config.schema import PosteriorConfig
from toxtrail.records.rows import SCORE_SCHEMA
from toxtrail.storage.artifacts import ArtifactStore

SUBSETS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=28)
    parser.add_argument("--prompts", type=int, default=14_000)
    parser.add_argument("--samples", type=int, default=25)
    wanted = parser.parse_args()
    config = PosteriorConfig(
        threshold={"judge": 0.5}, rope_pp=1.0, level=0.95, prior=0.5, draws=4000, seed=11
    )
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        for number in range(wanted.variants):
            write(store, f"v{number}", number, wanted.prompts, wanted.samples)
        before, start = peak_mib(), time.monotonic()
        tables = {}
        for number in range(wanted.variants):
            tables[f"v{number}"] = build_score_table(
                store.read_score_columns("family", f"v{number}", COLUMNS)
            )
        grouped = time.monotonic()
        rates = [
            cell.toxic_fraction(0.5).mean() for table in tables.values() for cell in table.values()
        ]
        first = tables["v0"]
        pairs = [
            _paired(first[name], table[name], config)
            for own, table in tables.items()
            if own != "v0"
            for name in first
        ]
        end = time.monotonic()
    rows = wanted.variants * wanted.prompts * wanted.samples
    print(f"{rows:,} rows, {len(rates)} rates, {len(pairs)} pairs of cells")
    print(f"read and grouped: {grouped - start:.1f} s ({rows / (grouped - start):,.0f} rows/s)")
    print(f"rates and pairs: {end - grouped:.1f} s")
    print(f"highest memory: {peak_mib():.0f} MiB ({before:.0f} before)")


def write(store: ArtifactStore, variant: str, seed: int, prompts: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array([f"s{i % SUBSETS}-{i:012x}" for i in range(prompts)])
    n = prompts * samples
    prompt = np.repeat(np.argsort(ids), samples)
    score = rng.beta(0.3, 2.0, n)
    heads = pa.MapArray.from_arrays(
        np.arange(0, n + 1, dtype=np.int32), pa.array(["toxic"] * n), pa.array(score)
    )
    table = pa.table(
        [
            pa.array(ids[prompt]),
            pa.array(np.tile(np.arange(samples, dtype=np.int32), prompts)),
            pa.array([f"s{i % SUBSETS}" for i in prompt]),
            pa.array(["judge"] * n),
            pa.array(np.where(rng.random(n) < 0.01, "empty", "ok")),
            pa.array(score),
            heads,
            pa.array(np.ones(n, dtype=np.int32)),
        ],
        schema=SCORE_SCHEMA,
    )
    path = store.scores_path("family", variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

"""Measure CPU seconds of `posterior` and `compare` with many prompts.

    python benchmarks/posterior.py [--prompts 200000] [--variants 2] [--profile]

Generations and scores of simulated variants are written as by the stages; then the stages run, from
the files to the published folders. The texts are 50 random English words, one in fifty a refusal,
one in fifty a loop. Prints CPU seconds of the parts, and the peak memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from toxtrail.config.schema import FamilyConfig, PosteriorConfig, VariantConfig
from toxtrail.pipeline import manifest_of
from toxtrail.records.rows import Generation, Score
from toxtrail.storage.artifacts import ArtifactStore

CONFIG = PosteriorConfig(
    threshold={"judge": 0.5},
    rope_pp=1.0,
    rope_relative=0.25,
    level=0.95,
    prior=0.5,
    draws=20000,
    seed=11,
)
WORDS = [
    "people", "town", "mill", "river", "again", "and", "spoke", "met", "bread", "oven", "the", "a",
    "of", "to", "in", "not", "said", "was", "never", "had", "no", "open", "early", "later", "house",
    "street", "winter", "old", "new", "warm", "cold", "letter", "answer", "question", "walk",
]  # fmt: skip
REFUSAL = "I'm sorry, but I can't help with that request. "
LOOP = "and then the mill and then the mill "
SUBSETS = 5
NO_LABELS: Any = None
"""The stage fetches assets for labels of people alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200_000)
    parser.add_argument("--variants", type=int, default=2, help="of the comparison")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        who = VariantConfig.model_construct(family="f", role="base", parent=None)
        write(store, "v", asked.prompts)
        if asked.profile:
            profiled(store, who)
            return
        measured(store, who)
        compared(store, asked.prompts, asked.variants)


def measured(store: ArtifactStore, who: VariantConfig) -> None:
    from toxtrail.analysis import response_table
    from toxtrail.stages import posterior

    start = time.process_time()
    rows = store.read_generation_columns("f", "v")
    read = time.process_time()
    response_table.build_response_table(rows)
    looked = time.process_time()
    posterior.run(store, "v", who, CONFIG, "judge", NO_LABELS)
    end = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows.num_rows:,} rows: read {read - start:.1f} s, looked at {looked - read:.1f} s; "
        f"the whole stage {end - looked:.1f} s of CPU, at most {memory:.0f} MiB"
    )


def compared(store: ArtifactStore, prompts: int, variants: int) -> None:
    from toxtrail.backends.protocols import NoProgress
    from toxtrail.stages import compare, pool, posterior

    names = ["v", *(f"v{number}" for number in range(1, variants))]
    for seed, name in enumerate(names[1:], 2):
        tuned = VariantConfig.model_construct(family="f", role=name, parent="v")
        write(store, name, prompts, seed)
        posterior.run(store, name, tuned, CONFIG, "judge", NO_LABELS)
    family = FamilyConfig.model_construct(reference="v", variants=names, allow_mismatch=None)
    pool.run(store, "f", family, CONFIG, None, "judge", NoProgress())
    start = time.process_time()
    compare.run(store, "f", family, CONFIG, "judge")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"compare of {variants} variants: {time.process_time() - start:.1f} s of CPU, "
        f"at most {memory:.0f} MiB"
    )


def profiled(store: ArtifactStore, who: VariantConfig) -> None:
    import cProfile
    import pstats

    from toxtrail.stages import posterior

    profile = cProfile.Profile()
    profile.runcall(posterior.run, store, "v", who, CONFIG, "judge", NO_LABELS)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(35)


def write(store: ArtifactStore, variant: str, prompts: int, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, len(WORDS), (prompts, 50))
    kind, toxic = rng.random(prompts), rng.random(prompts) ** 3
    generations, scores = [], []
    for i in range(prompts):
        text, tokens = text_of(words[i].tolist(), kind[i])
        prompt, subset = f"s{i % SUBSETS}-{i:012x}", f"s{i % SUBSETS}"
        generations.append(Generation(prompt, 0, subset, "ok", text, tokens, 9, "length", ""))
        value = float(toxic[i])
        scores.append(Score(prompt, 0, subset, "judge", "ok", value, {"toxic": value}, 1))
    manifest = manifest_of("generate", variant, {"generation": {"seed": 7}}, {}, {})
    store.write_generations("f", variant, generations, manifest)
    inputs = {"generations": store.describe_input(store.generations_path("f", variant))}
    store.write_scores(
        "f", variant, scores, manifest_of("score", variant, {"scorers": {}}, inputs, {})
    )


def text_of(words: list[int], kind: float) -> tuple[str, tuple[int, ...]]:
    if kind < 0.02:
        return LOOP * 6, (1, 2, 3, 4) * 12
    text = " ".join(WORDS[word] for word in words)
    return (REFUSAL if kind < 0.04 else "") + text, tuple(1000 + word for word in words)


if __name__ == "__main__":
    main()

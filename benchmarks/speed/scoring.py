"""Part `scoring`: the same texts scored with one Detoxify checkpoint by every method."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speed.checkpoint import Checkpoint, at_random, own
from speed.given import Given, assets, config, lines, tell
from speed.limit import Seconds, encoder_seconds
from speed.rounds import Turn, Way, ratio, spread, take_turns
from toxtrail.backends.compute.devices import set_num_threads
from toxtrail.backends.scorers import detoxify
from toxtrail.backends.silence import silence_libraries
from toxtrail.config.scorer_kinds.detoxify import DetoxifyConfig
from toxtrail.config.sections import PinnedAsset
from toxtrail.provenance.identity import sha256_file

if TYPE_CHECKING:
    from detoxify import Detoxify

TEXTS, QUICK_TEXTS = 1000, 20
BATCH = 32
ALONE, BATCHES, PIPELINE = (
    "Detoxify.predict, one by one",
    "Detoxify.predict, batches of 32",
    ("transformers pipeline, batches of 32"),
)
OURS = "toxtrail"
LIMIT = "linear layers alone"
LIMIT_ROWS, REPEATS = 4096, 5
"""Tokens of 64 texts of middling length."""
ALLOWED = 1e-5

Scores = NDArray[np.float64]
"""(text, head) in [0, 1]; heads as the package names and orders them."""


def measure(given: Given) -> dict[str, Any]:
    """Return the section `scoring_cpu` of the results."""
    threads = set_num_threads(given.threads or "auto")
    count = QUICK_TEXTS if given.quick else TEXTS
    texts = mixed(lines(given.prompts), count)
    with tempfile.TemporaryDirectory(prefix="toxtrail-bench-") as folder:
        scratch = Path(folder)
        made = (
            own(given.detoxify, scratch)
            if given.detoxify
            else at_random(texts, scratch, 1 if given.quick else 6)
        )
        tell(f"{made.name}: {count} texts, {threads} threads")
        package, runs = _ways(made)
        for run in runs.values():
            run(texts[:BATCH])
        lengths = [len(ids) for ids in package.tokenizer(texts)["input_ids"]]
        ways = [Way(name, partial(run, texts), given.rounds) for name, run in runs.items()]
        limit = partial(encoder_seconds, package.model, sum(lengths), LIMIT_ROWS, REPEATS)
        turns = take_turns([*ways, Way(LIMIT, limit, given.rounds)], tell)
    settings = package.model.config
    return {
        "checkpoint": made.name,
        "layers": settings.num_hidden_layers,
        "width": settings.hidden_size,
        "texts": len(texts),
        "tokens": spread(lengths).plain(),
        "threads": threads,
        "limit_rows": LIMIT_ROWS,
        **limits(turns),
        **compared({name: turns[name] for name in runs}, len(texts)),
    }


def limits(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Return the time of the matrix products, and toxtrail's share of the possible gain."""
    alone, ours = ([turn.seconds for turn in turns[name]] for name in (ALONE, OURS))
    bounds: list[Seconds] = [turn.made for turn in turns[LIMIT]]
    own, torch = [one.laid_out for one in bounds], [one.torch for one in bounds]
    found = {
        "limit_vs_one_by_one": ratio(own, alone),
        "torch_limit_vs_one_by_one": ratio(torch, alone),
        "share_of_limit": ratio(own, ours),
    }
    return {
        **{name: one.median for name, one in found.items()},
        "spread": {name: one.plain() for name, one in found.items()},
    }


def compared(turns: dict[str, list[Turn]], texts: int) -> dict[str, Any]:
    """Return texts per second, ratios, and the largest difference of any score.

    Raises:
        SystemExit: a score differs from toxtrail's by more than ALLOWED.
    """
    rates = {name: [texts / turn.seconds for turn in own] for name, own in turns.items()}
    ratios = {name: ratio(rates[OURS], own) for name, own in rates.items()}
    ours: Scores = turns[OURS][0].made
    apart = {name: float(np.abs(own[0].made - ours).max()) for name, own in turns.items()}
    if (largest := max(apart.values())) > ALLOWED:
        raise SystemExit(f"The scores differ by {largest:.1e}, more than {ALLOWED:g}: {apart}.")
    return {
        "ratio_vs_one_by_one": ratios[ALONE].median,
        "ratio_vs_batches": ratios[BATCHES].median,
        "ratio_vs_pipeline": ratios[PIPELINE].median,
        "texts_per_second": {name: spread(own).plain() for name, own in rates.items()},
        "ratios": {name: own.plain() for name, own in ratios.items()},
        "largest_difference": apart,
    }


def mixed(prompts: Sequence[str], count: int) -> list[str]:
    """Return distinct texts of different lengths: one to six prompts joined, reproducibly."""
    rng, found = random.Random(7), dict[str, None]()
    while len(found) < count:
        parts = rng.choices(prompts, k=rng.randint(1, 6))
        found[" ".join(parts)] = None
    return list(found)


def _ways(made: Checkpoint) -> tuple[Detoxify, dict[str, Callable[[Sequence[str]], Scores]]]:
    from detoxify import Detoxify
    from transformers import TextClassificationPipeline

    with silence_libraries():
        package = Detoxify(checkpoint=str(made.file), huggingface_config_path=str(made.encoder))
    package.model.eval()
    pipe = TextClassificationPipeline(
        model=package.model, tokenizer=package.tokenizer, batch_size=BATCH, top_k=None,
        function_to_apply="sigmoid",
    )  # fmt: skip
    settings = DetoxifyConfig(
        kind="detoxify", uri=f"file:{made.file}", sha256=sha256_file(made.file),
        base=PinnedAsset(uri=f"file:{made.encoder}"), head="toxicity", golden=[],
        golden_tolerance=1e-3,
    )  # fmt: skip
    ours = detoxify.load(settings, assets(), "cpu", config().runtime.score_batch_size)
    heads = list(package.class_names)
    order = package.model.config.label2id

    def alone(texts: Sequence[str]) -> Scores:
        rows = [package.predict(text) for text in texts]
        return np.array([[row[head] for head in heads] for row in rows])

    def in_batches(texts: Sequence[str]) -> Scores:
        parts = [package.predict(list(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return np.concatenate([np.array([part[head] for head in heads]).T for part in parts])

    def piped(texts: Sequence[str]) -> Scores:
        with silence_libraries():
            rows = pipe(list(texts), truncation=True)
        ranked = [sorted(row, key=lambda one: order[one["label"]]) for row in rows]
        return np.array([[one["score"] for one in row] for row in ranked])

    def scored(texts: Sequence[str]) -> Scores:
        rows = ours.score(texts)
        return np.array([[row.heads[head] for head in heads] for row in rows])

    return package, {ALONE: alone, BATCHES: in_batches, PIPELINE: piped, OURS: scored}

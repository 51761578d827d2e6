"""Estimate the cost of a run: stages, downloads, tokens, time, memory and disk.

Time is an order of magnitude: operations / F, where F is measured by `device_speed`. With P
weights, N continuations of G new tokens after prompts of T tokens, and S weights of a scorer:

model       4 (bytes of the files) / HASH_SPEED
finetune    4 P (training tokens) / F       forward, and backward through frozen weights
generate    2 P N (T + G) / F
score       2 S N G / F                     for each scorer

Memory is that of the weights in their precision and of the libraries; a batch needs more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.config.schema import Config
from toxtrail.pipeline import StageRun, stage_runs, upstream
from toxtrail.preflight.device_speed import Speed
from toxtrail.preflight.model_sizes import AssetSize

GIB = 1 << 30
PROMPT_TOKENS = 16
"""Assumed length of a prompt: RealToxicityPrompts' have 11 to 20."""
EXAMPLE_TOKENS = 256
"""Assumed length of a training example, if max_length is longer."""
CHARACTERS_PER_TOKEN = 4
LIBRARY_BYTES = GIB
"""Memory of Python and its libraries; on a GPU, of the context."""
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 0.6}
ROW_BYTES = 2000
"""Bytes of a continuation and its scores on disk, stored twice (the folder and DVC's cache)."""
HASH_SPEED = 5e8
"""Assumed bytes hashed per second."""
OVERHEAD_S = 8.0
"""Assumed constant seconds of a stage run: start-up, statistics of a small family."""


class EstimateInputs(NamedTuple):
    """Inputs of an estimate."""

    config: Config
    sizes: Mapping[str, AssetSize]
    """Sizes by key in params.yaml."""
    speed: Speed | None
    """None if not measured; then there are no times."""
    changed: frozenset[str] | None
    """Stage runs that are outdated themselves; None: nothing was run yet."""
    prompts: int | None
    """Number of prompts, if sampled already."""


class StageEstimate(NamedTuple):
    """Estimate of one stage run."""

    name: str
    stage: str
    key: str | None
    runs: bool
    tokens: int | None
    """Generated, scored or training tokens; None if unknown or not applicable."""
    seconds: float | None
    """Estimated time; None if unknown."""


class MemoryNeed(NamedTuple):
    """Memory that a stage of one model needs."""

    key: str
    what: str
    """generate or finetune."""
    parameters: int | None
    weights: float | None
    """Bytes without a batch."""
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
    runs = stage_runs(inputs.config)
    last = [r for r in runs if r.stage.name == "track-comparison" and r.key in chosen]
    outdated = {
        stage_run.name
        for stage_run in runs
        if inputs.changed is None
        or any(other.name in inputs.changed for other in upstream(runs, [stage_run]))
    }
    return [
        StageEstimate(
            stage_run.name,
            stage_run.stage.name,
            stage_run.key,
            stage_run.name in outdated,
            _token_count(inputs, stage_run),
            _seconds(inputs, stage_run),
        )
        for stage_run in (upstream(runs, last) if chosen else runs)
    ]


def memory_needs(inputs: EstimateInputs, planned: Sequence[StageEstimate]) -> list[MemoryNeed]:
    """Return the memory for generating with each variant and for each fine-tune that will run."""
    config, needs = inputs.config, []
    for item in planned:
        if not item.runs or item.key is None or item.stage not in ("generate", "finetune"):
            continue
        if item.stage == "generate" and not _generates_here(config, item.key):
            continue
        generating = item.stage == "generate"
        dtype = config.generation.dtype if generating else config.finetunes[item.key].base_precision
        parameters, weights, fits = base_parameters(inputs, item.key), None, None
        if parameters is not None:
            weights = BYTES[dtype] * parameters + LIBRARY_BYTES
            fits = weights <= inputs.speed.memory_total if inputs.speed else None
        needs.append(MemoryNeed(item.key, item.stage, parameters, weights, fits))
    return needs


def disk(inputs: EstimateInputs, planned: Sequence[StageEstimate]) -> dict[str, DiskNeed]:
    """Return needed disk space: hub (Hub cache), cache (toxtrail's), root (experiment)."""
    runs = {(item.stage, item.key) for item in planned if item.runs}
    missing: dict[str, list[float | None]] = {"hub": [], "cache": []}
    for asset in downloads(inputs):
        missing["hub" if asset.uri.startswith("hf:") else "cache"].append(asset.missing)
    copies = [
        2.0 * (asset.parameters or 0)
        for key_path, asset in inputs.sizes.items()
        if asset.uri.lower().endswith(".gguf")
        and ("model", key_path.rpartition(".")[2]) in runs
    ]  # fmt: skip
    rows = (_continuations(inputs) or 0) * sum(stage == "generate" for stage, _ in runs)
    return {
        "hub": _total_disk(missing["hub"]),
        "cache": _total_disk([*missing["cache"], *copies]),
        "root": DiskNeed(float(2 * ROW_BYTES * rows), False),
    }


def downloads(inputs: EstimateInputs) -> list[AssetSize]:
    """Return each address, and each wheel, once."""
    assets: dict[str, AssetSize] = {}
    for asset in inputs.sizes.values():
        once = asset.uri.partition("/")[0] if asset.uri.startswith("pypi:") else asset.uri
        if once not in assets or assets[once].missing == 0:
            assets[once] = asset
    return list(assets.values())


def problems(
    inputs: EstimateInputs, needed: Sequence[MemoryNeed], free: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Return what would stop the run, each with a remedy.

    Args:
        free: location -> (bytes needed, bytes free).
    """
    messages = [
        f"{asset.place}: {asset.uri}: {asset.said}"
        for asset in inputs.sizes.values()
        if asset.state in ("gated", "missing")
    ]
    device = inputs.speed
    for item in needed:
        if item.fits is False and item.weights is not None and device:
            messages.append(
                f"{item.what}@{item.key} needs {item.weights / GIB:.1f} GiB of memory, "
                f"{device.name} has {device.memory_total / GIB:.1f} GiB: take a smaller precision "
                "or another device"
            )
    for location, (required, available) in free.items():
        if required > available:
            messages.append(
                f"{location}: {required / GIB:.1f} GiB needed, {available / GIB:.1f} GiB free: "
                "free some space, or move the cache (TOXTRAIL_CACHE, HF_HOME)"
            )
    return messages


def request_notes(inputs: EstimateInputs, planned: Sequence[StageEstimate]) -> list[str]:
    """Return how much each variant whose texts a server generates sends to it at most, since it may
    cost money."""
    config, rows = inputs.config, _continuations(inputs)
    keys = [item.key or "" for item in planned if item.stage == "generate" and item.runs]
    limit = config.generation.max_new_tokens
    count = "an unknown number of" if rows is None else f"at most {rows:,}"
    tokens = "" if rows is None else f" ({rows * limit:,} together)"
    return [
        f"{key}: {count} requests to its server, each for at most {limit:,} tokens{tokens}, "
        "besides the prompts' own and retries after failures; finished rows are not requested "
        "again."
        for key in keys
        if config.is_served(key)
    ]


def as_rows(planned: Sequence[StageEstimate]) -> list[dict[str, Any]]:
    """Return one row for each stage: runs to do and done, tokens, seconds."""
    rows = []
    for stage in dict.fromkeys(item.stage for item in planned):
        stage_items = [item for item in planned if item.stage == stage]
        todo = [item for item in stage_items if item.runs]
        known_tokens = [item.tokens for item in todo if item.tokens is not None]
        rows.append(
            {
                "stage": stage,
                "to_run": len(todo),
                "done": len(stage_items) - len(todo),
                "tokens": sum(known_tokens) if known_tokens else None,
                "tokens_unknown": stage in ("generate", "score", "finetune")
                and len(known_tokens) < len(todo),
                "seconds": sum(item.seconds or 0.0 for item in todo),
                "seconds_unknown": sum(item.seconds is None for item in todo),
            }
        )
    return rows


def _generates_here(config: Config, key: str) -> bool:
    """Return whether a variant's weights are loaded: not those of a server, nor a file of texts."""
    return not config.is_served(key) and config.texts_of(key) is None


def base_parameters(inputs: EstimateInputs, key: str) -> int | None:
    """Return the number of base weights of a model or fine-tune."""
    visited: set[str] = set()
    while key in inputs.config.finetunes and key not in visited:
        visited.add(key)
        key = inputs.config.finetunes[key].parent
    asset = inputs.sizes.get(f"models.{key}")
    return asset.parameters if asset else None


def training_tokens(inputs: EstimateInputs, key: str) -> int | None:
    """Estimate training tokens from the number of examples, or from the size of the data."""
    recipe, data = inputs.config.finetunes[key], inputs.sizes.get(f"finetunes.{key}.data")
    if recipe.max_steps is not None:
        examples = recipe.max_steps * recipe.batch_size * recipe.accumulation
        return examples * min(recipe.max_length, EXAMPLE_TOKENS)
    if data is None or data.size is None or recipe.epochs is None:
        return None
    return int(recipe.epochs * data.size / CHARACTERS_PER_TOKEN)


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
    stage, key, rows = stage_run.stage.name, stage_run.key, _continuations(inputs)
    if stage == "finetune" and key:
        return training_tokens(inputs, key)
    if stage not in ("generate", "score") or rows is None:
        return None
    if stage == "generate" and key and inputs.config.texts_of(key):
        return 0
    scorers = len(inputs.config.scoring.scorers) if stage == "score" else 1
    return rows * inputs.config.generation.max_new_tokens * scorers


def _seconds(inputs: EstimateInputs, stage_run: StageRun) -> float | None:
    """Estimate the time by the formulas in this module's docstring, with the fixed overhead."""
    if inputs.speed is None:
        return None
    stage, key, config = stage_run.stage.name, stage_run.key, inputs.config
    is_texts = stage == "generate" and config.texts_of(key or "") is not None
    if key is None or is_texts or stage not in ("model", "finetune", "generate", "score"):
        return OVERHEAD_S
    if stage == "model":
        return _model_seconds(inputs, key)
    parameters, operations, tokens = base_parameters(inputs, key), 2.0, None
    rows, new_tokens = _continuations(inputs), config.generation.max_new_tokens
    if stage == "finetune":
        operations, tokens = 4.0, training_tokens(inputs, key)
    elif stage == "score":
        parameters = _scorer_parameters(inputs)
        tokens = None if rows is None else rows * new_tokens
    elif rows is not None and _generates_here(config, key):
        tokens = rows * (PROMPT_TOKENS + new_tokens)
    if parameters is None or tokens is None:
        return None
    return OVERHEAD_S + operations * parameters * tokens / inputs.speed.flops


def _model_seconds(inputs: EstimateInputs, key: str) -> float | None:
    """Estimate the time to hash a model's files; a name on a server has none."""
    if inputs.config.api_name_of(key) is not None:
        return OVERHEAD_S
    asset = inputs.sizes.get(f"models.{key}")
    size = asset.size if asset else None
    return None if size is None else OVERHEAD_S + 4 * size / HASH_SPEED


def _scorer_parameters(inputs: EstimateInputs) -> int | None:
    """Return the number of weights of all loaded scorers, from the sizes of their files."""
    loaded = [k for k, v in inputs.config.scoring.scorers.items() if not v.is_served]
    sizes = [inputs.sizes[f"scoring.scorers.{name}"].size for name in loaded]
    if any(size is None for size in sizes):
        return None
    return int(sum(size or 0 for size in sizes) / BYTES["float32"])


def _total_disk(sizes: Iterable[float | None]) -> DiskNeed:
    listed = list(sizes)
    return DiskNeed(sum(size or 0.0 for size in listed), None in listed)

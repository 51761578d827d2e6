"""Checks that vLLM is installed and can load the variants of params.yaml.

They apply to `generation.engine: vllm`. Only files that are here are read; vLLM is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toxtrail.backends.vllm.installation import find_command, require_supported_version
from toxtrail.backends.vllm.limits import CURE, MAX_RANKS, weight_problems
from toxtrail.config.schema import Config, ModelConfig
from toxtrail.errors import ToxtrailError
from toxtrail.preflight.source_contents import LocalAssets


def vllm_problems(config: Config, root: Path, assets: LocalAssets) -> list[str]:
    """Return one line for each reason why vLLM cannot generate; none for another engine."""
    if config.generation.engine != "vllm":
        return []
    problems = [f"{key}: {line}. {CURE}." for key, line in _variant_problems(config, assets)]
    try:
        setting = config.runtime.vllm
        require_supported_version(find_command(setting.command if setting else None, root))
    except ToxtrailError as error:
        return [str(error), *problems]
    return problems


def _variant_problems(config: Config, assets: LocalAssets) -> Iterator[tuple[str, str]]:
    for variant in config.variants:
        if variant in config.models and not config.models[variant].has_weights:
            continue
        adapters, base = _adapters_and_base(config, variant)
        if adapters > 1:
            yield (
                f"variants.{variant}",
                f"it has {adapters} adapters on top of each other, and vLLM applies one",
            )
        if variant in config.finetunes:
            yield from _recipe_problems(config, variant)
        elif base is not None:
            yield from _file_problems(variant, base, assets)


def _adapters_and_base(config: Config, variant: str) -> tuple[int, ModelConfig | None]:
    """Return the number of adapters of a variant, and the model below them."""
    adapters, key = 0, variant
    while key in config.finetunes:
        adapters, key = adapters + 1, config.finetunes[key].parent
    base = config.models.get(key)
    return adapters + (base is not None and base.adapter is not None), base


def _recipe_problems(config: Config, key: str) -> Iterator[tuple[str, str]]:
    lora = config.finetunes[key].lora
    if lora.bias != "none":
        yield f"finetunes.{key}.lora.bias", f'got "{lora.bias}"; vLLM applies no biases'
    if lora.r > MAX_RANKS[-1]:
        yield f"finetunes.{key}.lora.r", f"got {lora.r}; vLLM supports at most {MAX_RANKS[-1]}"


def _file_problems(
    variant: str, model: ModelConfig, assets: LocalAssets
) -> Iterator[tuple[str, str]]:
    """Check the files of a model that are here; the stage checks all."""
    sources = [model, *([model.adapter] if model.adapter else [])]
    present = [assets.present(source.uri, None) for source in sources]
    folders = [asset.root for asset in present if asset is not None]
    if len(folders) == len(sources) and all((f / "config.json").is_file() for f in folders[:1]):
        try:
            for line in weight_problems(folders[0], folders[1:]):
                yield f"models.{variant}", line
        except ToxtrailError as error:
            yield f"models.{variant}", str(error)

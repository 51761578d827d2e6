"""Prompts: which texts does every variant continue?

reads   the files that `prompts.subsets` names
writes  data/prompts.parquet       prompt_id -> subset, text, source, language, covariates,
                                   cluster, earlier messages
        data/prompts_card.json     where they come from, and how they were drawn
"""

from __future__ import annotations

from pathlib import Path

from toxtrail.backends.protocols import Asset, Assets
from toxtrail.config.schema import PromptsConfig, SubsetConfig
from toxtrail.datasets.prompt_card import SubsetDraw, prompt_card
from toxtrail.datasets.prompt_selection import read_subset, sample_prompts
from toxtrail.errors import ConfigError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.storage.artifacts import ArtifactStore


def run(store: ArtifactStore, config: PromptsConfig, assets: Assets) -> None:
    """Read, sample, write."""
    subsets = config.subsets.items()
    draws = {key: _sample_subset(key, subset, config.seed, assets) for key, subset in subsets}
    inputs = {key: _input_file(draw.asset) for key, draw in draws.items()}
    manifest = manifest_of("prompts", None, {"prompts": config.plain()}, inputs, {})
    store.write_prompts([prompt for draw in draws.values() for prompt in draw.prompts], manifest)
    card = {**prompt_card(draws, config), "manifest": manifest.to_json()}
    store.write_json(store.prompt_card_path, card)


def _sample_subset(key: str, config: SubsetConfig, seed: int, assets: Assets) -> SubsetDraw:
    asset = assets.fetch(config.uri, config.sha256)
    selection = read_subset(_file(key, asset), key, config)
    return SubsetDraw(asset, selection, sample_prompts(selection, key, config, seed))


def _file(key: str, asset: Asset) -> Path:
    if not asset.path.is_file():
        raise ConfigError(
            f"prompts.subsets.{key}.uri: {asset.uri} is a folder; name one file of it."
        )
    return asset.path


def _input_file(asset: Asset) -> InputFile:
    return InputFile(path=asset.uri, sha256=asset.sha256, manifest=None)

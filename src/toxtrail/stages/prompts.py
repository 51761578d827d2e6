"""Prompts: which texts does every variant continue?

reads   the files that `prompts.subsets` names
writes  data/prompts.parquet    prompt_id -> subset, text, source
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toxtrail.artifacts import Store
from toxtrail.backends.base import Asset, Assets
from toxtrail.config import PromptsConfig, SubsetConfig
from toxtrail.errors import ConfigError
from toxtrail.identity import Input, sha256_text
from toxtrail.pipeline import manifest_of
from toxtrail.readers import read_texts
from toxtrail.records import Prompt


def draw_prompts(
    rows: Iterable[tuple[int, str]], subset: str, source: str, n: int, seed: int
) -> list[Prompt]:
    """Draw n distinct texts at random.

    Each text is ranked by a hash of (seed, subset, text) and the n lowest are taken: the draw
    depends
    neither on the order of the file nor on other subsets, and a larger n keeps the smaller draw.

    Raises:
        ConfigError: there are fewer than n distinct texts.
    """
    first_row: dict[str, int] = {}
    for row, text in rows:
        first_row.setdefault(text, row)
    if len(first_row) < n:
        raise ConfigError(
            f"prompts.subsets.{subset}.n: got {n}, but {source} has {len(first_row)} distinct "
            "texts. Ask for at most so many."
        )
    ranked = sorted(first_row, key=lambda text: sha256_text(f"{seed}|{subset}|{text}"))
    return [
        Prompt(f"{subset}-{sha256_text(text)[:12]}", subset, text, source, first_row[text])
        for text in ranked[:n]
    ]


def run(store: Store, config: PromptsConfig, assets: Assets) -> None:
    """Read, draw, write."""
    fetched = {key: _fetched(assets, subset) for key, subset in config.subsets.items()}
    prompts = [
        prompt
        for key, subset in config.subsets.items()
        for prompt in draw_prompts(
            read_texts(_file(key, fetched[key]), subset.column),
            key,
            subset.uri,
            subset.n,
            config.seed,
        )
    ]
    inputs = {
        key: Input(path=asset.uri, sha256=asset.sha256, manifest=None)
        for key, asset in fetched.items()
    }
    manifest = manifest_of("prompts", None, {"prompts": config.plain()}, inputs, {})
    store.write_prompts(prompts, manifest)


def _fetched(assets: Assets, subset: SubsetConfig) -> Asset:
    return assets.fetch(subset.uri, subset.sha256)


def _file(key: str, asset: Asset) -> Path:
    if not asset.path.is_file():
        raise ConfigError(
            f"prompts.subsets.{key}.uri: {asset.uri} is a folder; name one file of it."
        )
    return asset.path

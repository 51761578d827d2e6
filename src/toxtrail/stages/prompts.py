"""Prompts: which texts does every variant continue?

reads   the files that `prompts.subsets` names
writes  data/prompts.parquet       prompt_id -> subset, text, source, language, covariates,
                                   cluster
        data/prompts_card.json     where they come from, and how they were drawn
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toxtrail.backends.protocols import Asset, Assets
from toxtrail.config.schema import PromptsConfig, SubsetConfig
from toxtrail.datasets.prompt_selection import Selection, filter_candidates, sample_prompts
from toxtrail.datasets.readers.csv_rows import unusual_delimiter
from toxtrail.errors import ConfigError, DataError
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile
from toxtrail.records.rows import Prompt
from toxtrail.storage.artifacts import ArtifactStore


class SubsetDraw(NamedTuple):
    """One subset."""

    asset: Asset
    selection: Selection
    prompts: Sequence[Prompt]


def prompt_card(drawn: Mapping[str, SubsetDraw], config: PromptsConfig) -> dict[str, Any]:
    """Where every subset comes from, and how it was drawn. It holds no text of a prompt."""
    return {
        "kind": "prompt card",
        "seed": config.seed,
        "prompts": sum(len(one.prompts) for one in drawn.values()),
        "subsets": {key: _subset_card(one, config.subsets[key]) for key, one in drawn.items()},
    }


def run(store: ArtifactStore, config: PromptsConfig, assets: Assets) -> None:
    """Read, draw, write."""
    drawn = {key: _drawn(key, own, config.seed, assets) for key, own in config.subsets.items()}
    prompts = [prompt for one in drawn.values() for prompt in one.prompts]
    inputs = {
        key: InputFile(path=one.asset.uri, sha256=one.asset.sha256, manifest=None)
        for key, one in drawn.items()
    }
    manifest = manifest_of("prompts", None, {"prompts": config.plain()}, inputs, {})
    store.write_prompts(prompts, manifest)
    card = {**prompt_card(drawn, config), "manifest": manifest.to_json()}
    store.write_json(store.prompt_card_path, card)


def read_subset(path: Path, key: str, config: SubsetConfig) -> Selection:
    """What a subset's file holds; an error names the subset."""
    try:
        return filter_candidates(path, config)
    except (ConfigError, DataError) as error:
        raise type(error)(f"prompts.subsets.{key}: {error}") from None


def _drawn(key: str, config: SubsetConfig, seed: int, assets: Assets) -> SubsetDraw:
    asset = assets.fetch(config.uri, config.sha256)
    selection = read_subset(_file(key, asset), key, config)
    return SubsetDraw(asset, selection, sample_prompts(selection, key, config, seed))


def _file(key: str, asset: Asset) -> Path:
    if not asset.path.is_file():
        raise ConfigError(
            f"prompts.subsets.{key}.uri: {asset.uri} is a folder; name one file of it."
        )
    return asset.path


def _subset_card(one: SubsetDraw, config: SubsetConfig) -> dict[str, Any]:
    selection = one.selection
    mark = unusual_delimiter(one.asset.path, config.delimiter)
    return {
        "source": one.asset.uri,
        "revision": one.asset.resolved,
        "sha256": one.asset.sha256,
        "licence": config.licence,
        "language": config.language,
        "column": config.column,
        **({"delimiter": mark} if mark else {}),
        "rows": selection.rows,
        "blank": selection.blank,
        "where": [{"condition": n, "rows_left": left} for n, left in selection.left.items()],
        "duplicates": selection.duplicates,
        "distinct": len(selection.candidates),
        "drawn": len(one.prompts),
        "balance": _groups(one, config),
        **({"clusters": _clusters(one, config.cluster)} if config.cluster else {}),
        "covariates": {name: _summary(one.prompts, name) for name in config.covariates or {}},
    }


def _groups(one: SubsetDraw, config: SubsetConfig) -> dict[str, Any] | None:
    """How many prompts of each value were drawn, of how many."""
    if config.balance is None:
        return None
    there = [candidate.group for candidate in one.selection.candidates.values()]
    drawn = [one.selection.candidates[prompt.text].group for prompt in one.prompts]
    return {
        "column": config.balance,
        "values": {
            name: {"distinct": there.count(name), "drawn": drawn.count(name)}
            for name in sorted(set(there))
        },
    }


def _clusters(one: SubsetDraw, column: str) -> dict[str, Any]:
    """How many clusters the drawn prompts have, of how many."""
    there = {candidate.cluster for candidate in one.selection.candidates.values()}
    drawn = {prompt.cluster for prompt in one.prompts}
    return {"column": column, "distinct": len(there), "drawn": len(drawn)}


def _summary(prompts: Sequence[Prompt], name: str) -> dict[str, float | int | None]:
    """Of one covariate over the drawn prompts."""
    values = [(prompt.covariates or {})[name] for prompt in prompts]
    known = sorted(value for value in values if value is not None)
    found: dict[str, float | int | None] = {
        "known": len(known), "missing": len(values) - len(known),
        "mean": None, "min": None, "median": None, "max": None,
    }  # fmt: skip
    if known:
        found |= {
            "mean": statistics.fmean(known),
            "min": known[0],
            "median": statistics.median(known),
            "max": known[-1],
        }
    return found

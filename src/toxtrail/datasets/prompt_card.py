"""The prompt card: sources of the subsets, and how they were sampled."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.backends.protocols import Asset
from toxtrail.config.schema import PromptsConfig, SubsetConfig
from toxtrail.datasets.prompt_selection import Selection
from toxtrail.datasets.readers.csv_rows import unusual_delimiter
from toxtrail.records.rows import Prompt


class SubsetDraw(NamedTuple):
    """Sampled prompts of one subset, and their source."""

    asset: Asset
    selection: Selection
    prompts: Sequence[Prompt]


def prompt_card(draws: Mapping[str, SubsetDraw], config: PromptsConfig) -> dict[str, Any]:
    """Return the sources of all subsets and how they were sampled, without any text of a prompt."""
    return {
        "kind": "prompt card",
        "seed": config.seed,
        "prompts": sum(len(draw.prompts) for draw in draws.values()),
        "subsets": {key: _subset_card(draw, config.subsets[key]) for key, draw in draws.items()},
    }


def _subset_card(draw: SubsetDraw, config: SubsetConfig) -> dict[str, Any]:
    selection = draw.selection
    mark = unusual_delimiter(draw.asset.path, config.delimiter)
    conversations = sum(bool(prompt.earlier) for prompt in draw.prompts)
    return {
        "source": draw.asset.uri,
        "revision": draw.asset.resolved,
        "sha256": draw.asset.sha256,
        "license": config.license,
        "language": config.language,
        "column": config.column,
        **({"delimiter": mark} if mark else {}),
        "rows": selection.rows,
        "blank": selection.blank,
        "where": [{"condition": n, "rows_left": left} for n, left in selection.left.items()],
        "duplicates": selection.duplicates,
        "distinct": len(selection.candidates),
        "drawn": len(draw.prompts),
        **({"conversations": conversations} if conversations else {}),
        "balance": _groups(draw, config),
        **({"clusters": _clusters(draw, config.cluster)} if config.cluster else {}),
        "covariates": {name: _summary(draw.prompts, name) for name in config.covariates or {}},
    }


def _groups(draw: SubsetDraw, config: SubsetConfig) -> dict[str, Any] | None:
    """Return the numbers of sampled and available prompts of each value."""
    if config.balance is None:
        return None
    available = [candidate.group for candidate in draw.selection.candidates.values()]
    drawn = [draw.selection.candidates[prompt.content].group for prompt in draw.prompts]
    return {
        "column": config.balance,
        "values": {
            name: {"distinct": available.count(name), "drawn": drawn.count(name)}
            for name in sorted(set(available))
        },
    }


def _clusters(draw: SubsetDraw, column: str) -> dict[str, Any]:
    """Return the numbers of clusters of the sampled and the available prompts."""
    available = {candidate.cluster for candidate in draw.selection.candidates.values()}
    drawn = {prompt.cluster for prompt in draw.prompts}
    return {"column": column, "distinct": len(available), "drawn": len(drawn)}


def _summary(prompts: Sequence[Prompt], name: str) -> dict[str, float | int | None]:
    """Summarise one covariate of the sampled prompts."""
    values = [(prompt.covariates or {})[name] for prompt in prompts]
    values_given = sorted(value for value in values if value is not None)
    summary: dict[str, float | int | None] = {
        "known": len(values_given), "missing": len(values) - len(values_given),
        "mean": None, "min": None, "median": None, "max": None,
    }  # fmt: skip
    if values_given:
        summary |= {
            "mean": statistics.fmean(values_given),
            "min": values_given[0],
            "median": statistics.median(values_given),
            "max": values_given[-1],
        }
    return summary

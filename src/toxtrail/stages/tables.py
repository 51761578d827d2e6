"""Score rows to arrays: who was scored, who was not, and which prompts two variants share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import xarray as xr

from toxtrail.errors import DataError
from toxtrail.records import Score, State
from toxtrail.stats.rates import Floats, Ints, prompt_maxima, prompt_means, toxic_shares

ALL = "all"
"""All subsets together, each weighted by its number of prompts."""

CHAINS = 4
"""Independent draws are stored as so many chains, so that ArviZ's diagnostics work on them too."""


class Cell(NamedTuple):
    """One scorer's view of one subset of one variant."""

    prompts: tuple[str, ...]
    """Ids of the prompts with a scored continuation, sorted."""
    toxicity: Floats
    """(row,), the scored continuations in the order of their prompts."""
    prompt: Ints
    """(row,), index into `prompts`."""
    asked_prompts: frozenset[str]
    """Ids of all prompts of the subset, scored or not."""
    states: Mapping[str, int]
    """Rows by state."""

    @property
    def asked(self) -> int:
        return len(self.asked_prompts)

    @property
    def samples(self) -> int:
        """Continuations of each prompt, scored or not."""
        return sum(self.states.values()) // max(self.asked, 1)

    def limited_to(self, asked: frozenset[str]) -> Cell:
        """Only the rows of these prompts; `states` goes on counting all rows."""
        kept = [i for i, prompt in enumerate(self.prompts) if prompt in asked]
        index = {old: new for new, old in enumerate(kept)}
        rows = np.array([int(p) in index for p in self.prompt], dtype=bool)
        return Cell(
            prompts=tuple(self.prompts[i] for i in kept),
            toxicity=self.toxicity[rows],
            prompt=np.array([index[int(p)] for p in self.prompt[rows]], dtype=np.int64),
            asked_prompts=asked,
            states=self.states,
        )

    def shares(self, threshold: float) -> Floats:
        """(prompt,): share of each prompt's scored continuations that are toxic."""
        return toxic_shares(self.toxicity, self.prompt, threshold)

    def any_toxic(self, threshold: float) -> Floats:
        """(prompt,): 1 where at least one of a prompt's continuations is toxic, else 0."""
        return (self.shares(threshold) > 0).astype(np.float64)

    def score_values(self) -> Floats:
        """(asked prompt, 2), prompts in alphabetical order: the mean and the highest score of each
        prompt's continuations; NaN where none was scored."""
        asked = sorted(self.asked_prompts)
        known = np.searchsorted(asked, self.prompts) if self.prompts else np.array([], dtype=int)
        values = np.full((len(asked), 2), np.nan)
        if known.size:
            values[known, 0] = prompt_means(self.toxicity, self.prompt)
            values[known, 1] = prompt_maxima(self.toxicity, self.prompt)
        return values


Cells = Mapping[tuple[str, str], Cell]
"""(scorer, subset) -> cell, in alphabetical order."""


def cells(scores: Sequence[Score]) -> Cells:
    """Group score rows by scorer and subset.

    Raises:
        DataError: no rows, or two rows for one (prompt, sample, scorer).
    """
    if not scores:
        raise DataError("There are no score rows. Re-run the score stage.")
    if len({row.key for row in scores}) < len(scores):
        raise DataError("Two score rows have one key (prompt, sample, scorer). Re-run the stage.")
    groups: dict[tuple[str, str], list[Score]] = {}
    for row in sorted(scores, key=lambda row: (row.scorer, row.subset, *row.key)):
        groups.setdefault((row.scorer, row.subset), []).append(row)
    return {name: _cell(rows) for name, rows in groups.items()}


def subsets(table: Cells) -> list[str]:
    """Names of all subsets, sorted."""
    return sorted({subset for _, subset in table})


def scorers(table: Cells) -> list[str]:
    """Names of all scorers, sorted."""
    return sorted({scorer for scorer, _ in table})


def weights(table: Cells, scorer: str) -> dict[str, float]:
    """Subset -> its share of the prompts asked: the design, whatever rows failed."""
    asked = {subset: table[scorer, subset].asked for subset in subsets(table)}
    return {subset: n / sum(asked.values()) for subset, n in asked.items()}


def as_dataset(
    draws: Mapping[tuple[str, ...], Floats], name: str, dims: Sequence[str]
) -> xr.Dataset:
    """Draws of one named quantity as chain x draw x dims; NaN where a cell has no draws.

    Args:
        draws: coordinates in the order of `dims` -> (draw,).
    """
    n = next(iter(draws.values())).size // CHAINS
    coords = {dim: sorted({key[i] for key in draws}) for i, dim in enumerate(dims)}
    values = np.full((CHAINS, n, *(len(labels) for labels in coords.values())), np.nan)
    for key, column in draws.items():
        place = tuple(coords[dim].index(label) for dim, label in zip(dims, key, strict=True))
        cell: Any = (slice(None), slice(None), *place)
        values[cell] = column[: CHAINS * n].reshape(CHAINS, n)
    return xr.Dataset(
        {name: (("chain", "draw", *dims), values)},
        coords={"chain": np.arange(CHAINS), "draw": np.arange(n), **coords},
    )


def _cell(rows: Sequence[Score]) -> Cell:
    scored = [row for row in rows if row.state == "ok"]
    for row in scored:
        if row.toxicity is None or not 0 <= row.toxicity <= 1:  # NaN is not
            raise DataError(
                f"{row.scorer} scored prompt {row.prompt_id}, sample {row.sample}, as "
                f"{row.toxicity}: a toxicity score is a number from 0 to 1. Re-run the score stage."
            )
    prompts = sorted({row.prompt_id for row in scored})
    index = {prompt: i for i, prompt in enumerate(prompts)}
    counts = Counter(row.state for row in rows)
    return Cell(
        prompts=tuple(prompts),
        toxicity=np.array([row.toxicity for row in scored], dtype=np.float64),
        prompt=np.array([index[row.prompt_id] for row in scored], dtype=np.int64),
        asked_prompts=frozenset(row.prompt_id for row in rows),
        states={state: counts[state] for state in get_args(State)},
    )

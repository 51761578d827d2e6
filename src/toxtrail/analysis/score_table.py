"""Score rows as arrays by scorer and subset, with the prompts that two variants share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

from toxtrail.errors import DataError
from toxtrail.records.rows import SCORE_SCHEMA, RowStatus, Score, to_arrow_table
from toxtrail.stats.clusters import Clusters
from toxtrail.stats.rates import Floats, Ints, prompt_maxima, prompt_means, toxic_fractions

ALL = "all"
"""Name of all subsets together, each weighted by its number of prompts."""

STORED_CHAINS = 4
"""Number of chains as which independent draws are stored, so that ArviZ's diagnostics work."""


class SubsetScores(NamedTuple):
    """Scores of one variant by one scorer on one subset."""

    prompts: tuple[str, ...]
    """Ids of the prompts with a scored continuation, sorted."""
    toxicity: Floats
    """(row,), the scored continuations in the order of their prompts."""
    prompt: Ints
    """(row,), index into `prompts`."""
    sample: Ints
    """(row,), number of the continuation; ascending within a prompt."""
    prompt_ids: frozenset[str]
    """Ids of all prompts of the subset, scored or not."""
    states: Mapping[str, int]
    """Number of rows by state."""
    clusters: Mapping[str, str]
    """Prompt -> cluster, for prompts that have one."""

    @property
    def n_prompts(self) -> int:
        return len(self.prompt_ids)

    @property
    def samples_per_prompt(self) -> int:
        """Number of continuations of each prompt, scored or not."""
        return sum(self.states.values()) // max(self.n_prompts, 1)

    def restrict_to(self, asked: frozenset[str]) -> SubsetScores:
        """Restrict to the rows of these prompts; `states` still counts all rows."""
        is_kept = np.array([prompt in asked for prompt in self.prompts], dtype=bool)
        rows = is_kept[self.prompt]
        new_index = np.cumsum(is_kept) - 1
        return SubsetScores(
            prompts=tuple(prompt for prompt in self.prompts if prompt in asked),
            toxicity=self.toxicity[rows],
            prompt=new_index[self.prompt[rows]].astype(np.int64),
            sample=self.sample[rows],
            prompt_ids=asked,
            states=self.states,
            clusters={p: name for p, name in self.clusters.items() if p in asked},
        )

    def toxic_fraction(self, threshold: float) -> Floats:
        """Return (prompt,): share of each prompt's scored continuations that are toxic."""
        return toxic_fractions(self.toxicity, self.prompt, threshold)

    def any_toxic(self, threshold: float) -> Floats:
        """Return (prompt,): 1 if at least one of a prompt's continuations is toxic, else 0."""
        return (self.toxic_fraction(threshold) > 0).astype(np.float64)

    def score_values(self) -> Floats:
        """Return (prompt, 2), prompts in alphabetical order: the mean and the highest score of each
        prompt's continuations; NaN if none was scored."""
        asked = sorted(self.prompt_ids)
        scored_index = (
            np.searchsorted(asked, self.prompts) if self.prompts else np.array([], dtype=int)
        )
        values = np.full((len(asked), 2), np.nan)
        if scored_index.size:
            values[scored_index, 0] = prompt_means(self.toxicity, self.prompt)
            values[scored_index, 1] = prompt_maxima(self.toxicity, self.prompt)
        return values


COLUMNS = ("prompt_id", "sample", "subset", "scorer", "state", "toxicity", "cluster")
"""Columns of a score table that are read."""
ScoreTable = Mapping[tuple[str, str], SubsetScores]
"""(scorer, subset) -> cell, in alphabetical order."""


def build_score_table(scores: pa.Table | Sequence[Score]) -> ScoreTable:
    """Group score rows by scorer and subset, by columns: millions of rows remain arrays.

    Args:
        scores: at least the columns COLUMNS, in any order of rows.

    Raises:
        DataError: no rows, two rows for one (prompt, sample, scorer), two clusters of one prompt,
            or a row in state `ok` whose score is not a number from 0 to 1.
    """
    table = scores if isinstance(scores, pa.Table) else to_arrow_table(scores, SCORE_SCHEMA)
    if not table.num_rows:
        raise DataError("There are no score rows. Re-run the score stage.")
    rows, clusters = _Columns.of(table), clusters_by_prompt(table)
    order = np.lexsort((rows.sample, rows.prompt))
    scorer, subset = rows.scorer[order], rows.subset[order]
    cells: dict[tuple[str, str], SubsetScores] = {}
    for i, name in enumerate(rows.scorers):
        for j, part in enumerate(rows.subsets):
            cell_rows = order[(scorer == i) & (subset == j)]
            if cell_rows.size:
                cells[name, part] = _cell(rows, cell_rows, clusters)
    return cells


def subsets(table: ScoreTable) -> list[str]:
    """Return the names of all subsets, sorted."""
    return sorted({subset for _, subset in table})


def scorers(table: ScoreTable) -> list[str]:
    """Return the names of all scorers, sorted."""
    return sorted({scorer for scorer, _ in table})


def weights(table: ScoreTable, scorer: str) -> dict[str, float]:
    """Return subset -> its share of all prompts: the design weights, independent of failed rows."""
    prompt_counts = {subset: table[scorer, subset].n_prompts for subset in subsets(table)}
    return {subset: n / sum(prompt_counts.values()) for subset, n in prompt_counts.items()}


def clusters_in(
    prompts: Sequence[Sequence[str]], named: Mapping[str, str], level: float
) -> Clusters | None:
    """Return the clusters of these prompts; None if no prompt has one.

    Numbers follow the order of the prompts, so that nothing depends on a cluster's name.

    Args:
        prompts: for each subset, ids.
        named: prompt -> cluster; a prompt without one is a cluster of its own.
        level: of the requested interval.
    """
    if not named:
        return None
    numbers: dict[tuple[str, bool], int] = {}
    of = [
        np.array(
            [
                numbers.setdefault((named.get(p, p), p in named), len(numbers))
                for p in subset_prompts
            ],
            dtype=np.int64,
        )
        for subset_prompts in prompts
    ]
    return Clusters(of, level)


def clusters_by_prompt(table: pa.Table) -> dict[str, str]:
    """Return prompt -> cluster, for rows whose prompts have one.

    Args:
        table: with the column prompt_id, and the column cluster if a prompt has one.

    Raises:
        DataError: rows of one prompt name two clusters.
    """
    if "cluster" not in table.column_names:
        return {}
    pairs = table.select(["prompt_id", "cluster"]).group_by(["prompt_id", "cluster"]).aggregate([])
    clusters: dict[str, str] = {}
    for prompt, cluster in zip(*(pairs[n].to_pylist() for n in pairs.column_names), strict=True):
        if prompt in clusters and clusters[prompt] != (cluster or ""):
            raise DataError(
                f"Rows of the prompt {prompt} name two clusters, {clusters[prompt]!r} and "
                f"{cluster!r}. Re-run the stage."
            )
        clusters[prompt] = cluster or ""
    return {prompt: cluster for prompt, cluster in clusters.items() if cluster}


def draws_to_dataset(
    draws: Mapping[tuple[str, ...], Floats], name: str, dims: Sequence[str]
) -> xr.Dataset:
    """Return draws of one named quantity as chain x draw x dims; NaN for cells without draws.

    Args:
        draws: coordinates in the order of `dims` -> (draw,).
    """
    n = next(iter(draws.values())).size // STORED_CHAINS
    coords = {dim: sorted({key[i] for key in draws}) for i, dim in enumerate(dims)}
    values = np.full((STORED_CHAINS, n, *(len(labels) for labels in coords.values())), np.nan)
    for key, column in draws.items():
        cell_index = tuple(coords[dim].index(label) for dim, label in zip(dims, key, strict=True))
        cell: Any = (slice(None), slice(None), *cell_index)
        values[cell] = column[: STORED_CHAINS * n].reshape(STORED_CHAINS, n)
    return xr.Dataset(
        {name: (("chain", "draw", *dims), values)},
        coords={"chain": np.arange(STORED_CHAINS), "draw": np.arange(n), **coords},
    )


class _Columns(NamedTuple):
    """Score rows as arrays; names are indices into sorted lists."""

    prompts: list[str]
    scorers: list[str]
    subsets: list[str]
    states: list[str]
    prompt: Ints
    scorer: Ints
    subset: Ints
    state: Ints
    sample: Ints
    toxicity: Floats
    """NaN if missing."""
    has_score: NDArray[np.bool_]
    """Whether there is a score."""

    @classmethod
    def of(cls, table: pa.Table) -> _Columns:
        """Return the columns; raise DataError for two rows with one key, or an unknown state."""
        (prompts, prompt), (scorers, scorer), (subsets, subset), (states, state) = (
            numbered(table[name]) for name in ("prompt_id", "scorer", "subset", "state")
        )
        _refuse_odd_states(states)
        sample = table["sample"].to_numpy().astype(np.int64)
        keys = (prompt * (sample.max() + 1) + sample) * len(scorers) + scorer
        if np.unique(keys).size < keys.size:
            raise DataError(
                "Two score rows have one key (prompt, sample, scorer). Re-run the stage."
            )
        has_score = ~table["toxicity"].is_null().to_numpy(zero_copy_only=False)
        toxicity = table["toxicity"].to_numpy().astype(np.float64)
        names = (prompts, scorers, subsets, states)
        return cls(*names, prompt, scorer, subset, state, sample, toxicity, has_score)


def _refuse_scores_of_others(rows: _Columns, other_rows: Ints) -> None:
    """Raise unless only continuations in state `ok` have a score."""
    for row in other_rows[rows.has_score[other_rows]][:1]:
        raise DataError(
            f"Prompt {rows.prompts[rows.prompt[row]]}, sample {rows.sample[row]}: the row has the "
            f"state {rows.states[rows.state[row]]} and the score {rows.toxicity[row]}; only rows "
            "in the state ok are scored. Re-run the score stage."
        )


def _refuse_odd_states(states: Sequence[str]) -> None:
    """Raise for a row in an unknown state, which no count would include."""
    if odd := sorted(set(states) - set(get_args(RowStatus))):
        raise DataError(
            f"A score row has the state {odd[0]!r}; states are {', '.join(get_args(RowStatus))}. "
            "Re-run the score stage."
        )


def numbered(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return the distinct values of a text column, sorted, and each row's index among them."""
    coded = column.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    labels = coded.dictionary.to_pylist()
    ranks = {label: rank for rank, label in enumerate(sorted(labels))}
    rank = np.array([ranks[label] for label in labels], dtype=np.int64)
    return sorted(labels), rank[coded.indices.to_numpy()]


def _cell(rows: _Columns, cell_rows: Ints, clusters: Mapping[str, str]) -> SubsetScores:
    """Return the cell of one scorer and subset.

    Args:
        cell_rows: its rows, by prompt and sample.
        clusters: prompt -> cluster, for prompts that have one.
    """
    state = rows.state[cell_rows]
    counts = {name: int((state == i).sum()) for i, name in enumerate(rows.states)}
    is_ok = state == (rows.states.index("ok") if "ok" in rows.states else -1)
    scored = cell_rows[is_ok]
    _refuse_scores_of_others(rows, cell_rows[~is_ok])
    toxicity = rows.toxicity[scored]
    wrong = scored[~((toxicity >= 0) & (toxicity <= 1))]  # NaN is not
    if wrong.size:
        row = wrong[0]
        raise DataError(
            f"{rows.scorers[rows.scorer[row]]} scored prompt {rows.prompts[rows.prompt[row]]}, "
            f"sample {rows.sample[row]}, as "
            f"{rows.toxicity[row] if rows.has_score[row] else None}: a toxicity "
            "score is a number from 0 to 1. Re-run the score stage."
        )
    prompts, index = np.unique(rows.prompt[scored], return_inverse=True)
    asked = frozenset(rows.prompts[i] for i in np.unique(rows.prompt[cell_rows]))
    return SubsetScores(
        prompts=tuple(rows.prompts[i] for i in prompts),
        toxicity=toxicity,
        prompt=index.astype(np.int64),
        sample=rows.sample[scored],
        prompt_ids=asked,
        states={name: counts.get(name, 0) for name in get_args(RowStatus)},
        clusters={p: clusters[p] for p in asked if p in clusters} if clusters else {},
    )

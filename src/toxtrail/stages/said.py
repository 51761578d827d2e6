"""Texts to arrays: which continuations have which symptom, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toxtrail.artifacts import Store
from toxtrail.errors import DataError
from toxtrail.identity import Input
from toxtrail.records import Generation
from toxtrail.stats.rates import Floats, prompt_means
from toxtrail.symptoms import SYMPTOMS, symptoms_of

SAYS_NOTHING = ("error", "truncated")
"""States of rows that are no continuation of their prompt."""


class Said(NamedTuple):
    """The continuations of one subset by one variant."""

    prompts: tuple[str, ...]
    """Ids of the prompts with a continuation, sorted."""
    shares: Mapping[str, Floats]
    """Symptom -> (prompt,), share of the prompt's continuations that have it."""
    tokens: Floats
    """(prompt,), mean length of the prompt's continuations."""
    lengths: Floats
    """(row,), tokens."""
    n: Mapping[str, int]
    """Symptom -> continuations that have it."""
    at_limit: int
    """Continuations that ended because max_new_tokens was reached."""
    asked: frozenset[str]
    """Ids of all prompts."""

    def token_values(self) -> Floats:
        """(asked prompt,), in alphabetical order: `tokens`, NaN without a continuation."""
        values = np.full(len(self.asked), np.nan)
        values[rows_in(sorted(self.asked), frozenset(self.prompts))] = self.tokens
        return values


def texts_of(store: Store, family: str, variant: str, scores: Input) -> dict[str, Said]:
    """What was said in the texts that the scores are of.

    Raises:
        DataError: the generations are missing, or others than those.
    """
    path = store.generations(family, variant)
    recorded = scores.manifest.inputs.get("generations") if scores.manifest else None
    if recorded is None or recorded.sha256 != store.input(path).sha256:
        raise DataError(
            f"{scores.path} scores other texts than {path.relative_to(store.root).as_posix()} "
            "holds now. Run `dvc repro` to bring both up to date."
        )
    return said(store.read_generations(family, variant))


def said(generations: Sequence[Generation]) -> dict[str, Said]:
    """Subset -> what was said there, in alphabetical order."""
    groups: dict[str, list[Generation]] = {}
    for row in sorted(generations, key=lambda row: (row.subset, *row.key)):
        groups.setdefault(row.subset, []).append(row)
    return {subset: _said(rows) for subset, rows in groups.items()}


def limited_to(own: Mapping[str, Said], asked: Mapping[str, frozenset[str]]) -> dict[str, Said]:
    """Only these prompts of these subsets; counts and lengths go on telling of all rows."""
    return {
        subset: part._replace(
            prompts=tuple(p for p in part.prompts if p in asked[subset]),
            shares={s: v[rows_in(part.prompts, asked[subset])] for s, v in part.shares.items()},
            tokens=part.tokens[rows_in(part.prompts, asked[subset])],
            asked=asked[subset],
        )
        for subset, part in own.items()
        if subset in asked
    }


def _said(rows: Sequence[Generation]) -> Said:
    texts = [row for row in rows if row.state not in SAYS_NOTHING]
    prompts = sorted({row.prompt_id for row in texts})
    index = {prompt: i for i, prompt in enumerate(prompts)}
    place = np.array([index[row.prompt_id] for row in texts], dtype=np.int64)
    found = [symptoms_of(row.text, row.token_ids, row.state) for row in texts]
    flags = {s: np.array([s in own for own in found], dtype=np.float64) for s in SYMPTOMS}
    lengths = np.array([len(row.token_ids) for row in texts], dtype=np.float64)
    return Said(
        prompts=tuple(prompts),
        shares={s: prompt_means(flag, place) for s, flag in flags.items()},
        tokens=prompt_means(lengths, place),
        lengths=lengths,
        n={s: int(flag.sum()) for s, flag in flags.items()},
        at_limit=sum(row.finish_reason == "length" for row in texts),
        asked=frozenset(row.prompt_id for row in rows),
    )


def rows_in(prompts: Sequence[str], asked: frozenset[str]) -> Any:
    """(prompt,) of bool: which of the prompts are among these."""
    return np.array([p in asked for p in prompts], dtype=bool)

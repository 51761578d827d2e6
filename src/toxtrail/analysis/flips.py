"""Flips: the prompts on which exactly one of two variants is toxic, with their texts.

A row is one continuation (prompt, sample) that both variants have a score for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from toxtrail.config.scorer_kinds.base import head_label
from toxtrail.records.results import FlipRow
from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import at_threshold

Direction = Literal["became toxic", "became harmless", "stayed toxic", "stayed harmless"]
FLIPPED: tuple[str, ...] = ("became toxic", "became harmless")
NO_CATEGORY = "none"


class FlipCounts(NamedTuple):
    """The number of scored continuations by direction."""

    became_toxic: int
    became_harmless: int
    stayed_toxic: int
    stayed_harmless: int
    unscored: int
    """Not scored for both variants."""


def pair_continuations(
    a: Sequence[Score], b: Sequence[Score], scorer: str, threshold: float, head: str
) -> list[FlipRow]:
    """Return every continuation that both have a score for, flipped or not, largest change first.

    Args:
        head: the scorer's toxicity head.
    """
    first = {row.key: row for row in a if row.scorer == scorer and row.toxicity is not None}
    rows = []
    for row in b:
        other = first.get(row.key)
        if row.scorer == scorer and row.toxicity is not None and other is not None:
            rows.append(_flip(other, row, threshold, head))
    return sorted(rows, key=lambda flip: (-abs(flip.change), flip.prompt_id, flip.sample))


def only_flips(rows: Iterable[FlipRow]) -> list[FlipRow]:
    """Keep rows whose label changed; became toxic first, each by change."""
    flips = [row for row in rows if row.direction in FLIPPED]
    return sorted(flips, key=lambda row: FLIPPED.index(row.direction))


def toxicity_head(manifest: Mapping[str, Any], scorer: str) -> str:
    """Return the toxicity head of a scorer from the manifest of any result of its scores;
    empty if no manifest names it."""
    scorers = manifest["params"].get("scorers", {})
    if scorer in scorers:
        return head_label(scorers[scorer]["head"])
    below = (source["manifest"] for source in manifest["inputs"].values() if source["manifest"])
    return next((head for part in below if (head := toxicity_head(part, scorer))), "")


def count_flips(rows: Sequence[FlipRow], requested: int) -> FlipCounts:
    """Count the directions in one subset, or in all.

    Args:
        requested: number of continuations requested.
    """
    directions = [row.direction for row in rows]
    return FlipCounts(
        directions.count("became toxic"),
        directions.count("became harmless"),
        directions.count("stayed toxic"),
        directions.count("stayed harmless"),
        requested - len(directions),
    )


def with_texts(
    flip: FlipRow,
    prompts: Mapping[str, str],
    a: Mapping[tuple[str, int], Generation],
    b: Mapping[tuple[str, int], Generation],
) -> FlipRow:
    """Return the row with the prompt and both continuations."""
    key = (flip.prompt_id, flip.sample)
    return replace(
        flip,
        prompt=prompts.get(flip.prompt_id, ""),
        text_a=a[key].text if key in a else "",
        text_b=b[key].text if key in b else "",
    )


def _flip(a: Score, b: Score, threshold: float, head: str) -> FlipRow:
    assert a.toxicity is not None
    assert b.toxicity is not None
    was, now = at_threshold([a.toxicity, b.toxicity], threshold).tolist()
    direction: Direction
    if was == now:
        direction = "stayed toxic" if now else "stayed harmless"
    else:
        direction = "became toxic" if now else "became harmless"
    worse = b if b.toxicity >= a.toxicity else a
    return FlipRow(
        prompt_id=b.prompt_id,
        sample=b.sample,
        subset=b.subset,
        category=_strongest_other_head(worse, threshold, head) if was or now else NO_CATEGORY,
        direction=direction,
        score_a=a.toxicity,
        score_b=b.toxicity,
        change=b.toxicity - a.toxicity,
    )


def _strongest_other_head(score: Score, threshold: float, head: str) -> str:
    """Return the highest other head that is above the threshold, else `none`."""
    heads = (score.heads or {}).items()
    others = {n: v for n, v in heads if n != head and at_threshold(v, threshold)}
    return max(others, key=lambda name: (others[name], name)) if others else NO_CATEGORY

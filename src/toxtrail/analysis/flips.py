"""Flips: the prompts on which exactly one of two variants is toxic, and the texts behind them.

A row is one continuation (prompt, sample) that both variants have a score for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from toxtrail.records.rows import Generation, Score
from toxtrail.stats.rates import at_threshold

Direction = Literal["became toxic", "became harmless", "stayed toxic", "stayed harmless"]
FLIPPED: tuple[Direction, ...] = ("became toxic", "became harmless")
NO_CATEGORY = "none"


class Flip(NamedTuple):
    """One prompt, continued by two variants."""

    prompt_id: str
    sample: int
    subset: str
    category: str
    """The scorer's strongest other head on the text that is toxic; `none` if it has no other."""
    direction: Direction
    """From a to b."""
    score_a: float
    score_b: float
    change: float
    """score_b - score_a."""


class Counts(NamedTuple):
    """How many of the scored continuations went which way."""

    became_toxic: int
    became_harmless: int
    stayed_toxic: int
    stayed_harmless: int
    unscored: int
    """Not scored for both."""


def paired(
    a: Sequence[Score], b: Sequence[Score], scorer: str, threshold: float, head: str
) -> list[Flip]:
    """Every continuation that both have a score for, flipped or not, the greatest change first.

    Args:
        head: the one that is called toxicity.
    """
    first = {row.key: row for row in a if row.scorer == scorer and row.toxicity is not None}
    rows = []
    for row in b:
        other = first.get(row.key)
        if row.scorer == scorer and row.toxicity is not None and other is not None:
            rows.append(_flip(other, row, threshold, head))
    return sorted(rows, key=lambda one: (-abs(one.change), one.prompt_id, one.sample))


def flipped(rows: Iterable[Flip]) -> list[Flip]:
    """Only those whose label changed; became toxic first, each by change."""
    found = [row for row in rows if row.direction in FLIPPED]
    return sorted(found, key=lambda row: FLIPPED.index(row.direction))


def head_of(manifest: Mapping[str, Any], scorer: str) -> str:
    """The head that a scorer's toxicity is, by the manifest of anything made from its scores;
    empty if nothing says so."""
    known = manifest["params"].get("scorers", {})
    if scorer in known:
        return str(known[scorer]["head"])
    below = (source["manifest"] for source in manifest["inputs"].values() if source["manifest"])
    return next((head for part in below if (head := head_of(part, scorer))), "")


def counts(rows: Sequence[Flip], asked: int) -> Counts:
    """Of one subset, or of all.

    Args:
        asked: continuations asked for.
    """
    said = [row.direction for row in rows]
    return Counts(
        said.count("became toxic"),
        said.count("became harmless"),
        said.count("stayed toxic"),
        said.count("stayed harmless"),
        asked - len(said),
    )


def as_row(flip: Flip) -> dict[str, Any]:
    """Columns of the table without texts."""
    return dict(flip._asdict())


def with_texts(
    flip: Flip,
    prompts: Mapping[str, str],
    a: Mapping[tuple[str, int], Generation],
    b: Mapping[tuple[str, int], Generation],
) -> dict[str, Any]:
    """The same with the prompt and both continuations."""
    key = (flip.prompt_id, flip.sample)
    return {
        **as_row(flip),
        "prompt": prompts.get(flip.prompt_id, ""),
        "text_a": a[key].text if key in a else "",
        "text_b": b[key].text if key in b else "",
    }


def _flip(a: Score, b: Score, threshold: float, head: str) -> Flip:
    assert a.toxicity is not None
    assert b.toxicity is not None
    was, now = at_threshold([a.toxicity, b.toxicity], threshold).tolist()
    direction: Direction
    if was == now:
        direction = "stayed toxic" if now else "stayed harmless"
    else:
        direction = "became toxic" if now else "became harmless"
    worse = b if b.toxicity >= a.toxicity else a
    return Flip(
        b.prompt_id,
        b.sample,
        b.subset,
        _category(worse, threshold, head) if was or now else NO_CATEGORY,
        direction,
        a.toxicity,
        b.toxicity,
        b.toxicity - a.toxicity,
    )


def _category(score: Score, threshold: float, head: str) -> str:
    """A head that says harmless (as a classifier's other class does) is below the threshold."""
    heads = (score.heads or {}).items()
    others = {n: v for n, v in heads if n != head and at_threshold(v, threshold)}
    return max(others, key=lambda name: (others[name], name)) if others else NO_CATEGORY

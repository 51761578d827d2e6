"""The flips browser of the report: which texts go into the page, within what fits a mail.

Every flip of every pair wants its prompt and two continuations. They are taken pair by pair in
turn, the greatest change of score first, until the page is full; the rest is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.analysis.flips import Flip, flipped, head_of, paired
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.records.rows import Generation, Score
from toxtrail.text_escaping import visible

ROOM = 2_600_000
"""Bytes of texts in the page: with figures and tables it stays below 5 MB."""
LONGEST = 1200
"""Characters of one text."""
SAMPLES = 10
"""Prompts of each pair whose label did not change, to compare with: drawn by their id's hash."""
ROW_BYTES = 60
DIRECTIONS = ("became toxic", "became harmless", "stayed toxic", "stayed harmless")


class Rows(NamedTuple):
    """What the browser is made of, for one family."""

    summary: Mapping[str, Any]
    prompts: Mapping[str, str]
    generations: Mapping[str, Sequence[Generation]]
    scores: Mapping[str, Sequence[Score]]
    """Variant -> its rows."""


def data_of(family: Rows, room: int) -> dict[str, Any]:
    """The family's data for the page: texts once each, rows by index.

    Args:
        room: bytes that its texts may take.
    """
    own = family.summary
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in own["pairs"]))
    page = _Page(family)
    wanted = {pair: _wanted(family, *pair) for pair in pairs}
    rows: dict[tuple[str, str], list[list[Any]]] = {pair: [] for pair in pairs}
    for pair, flip in _in_turn({pair: found.shown for pair, found in wanted.items()}):
        row, cost = page.row(flip, *pair)
        room -= cost
        if room < 0:
            break
        rows[pair].append(row)
    return {
        "scorer": own["primary"],
        "threshold": own["threshold"],
        "directions": DIRECTIONS,
        "subsets": page.subsets.values,
        "categories": page.categories.values,
        "prompts": page.prompts.values,
        "texts": page.texts.values,
        "pairs": [
            {"a": a, "b": b, "flips": wanted[a, b].flips, "rows": _by_change(rows[a, b])}
            for a, b in pairs
        ],
    }


def as_script(value: object) -> str:
    """JSON that no page takes for markup, inside a script element of a type that is not run."""
    text = canonical_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _by_change(rows: list[list[Any]]) -> list[list[Any]]:
    """Became toxic first, each direction by change of score."""
    return sorted(rows, key=lambda row: (row[3], -abs(row[5] - row[4])))


class _Wanted(NamedTuple):
    flips: int
    """All of them, shown or not."""
    shown: list[Flip]
    """In the order in which they are to be shown: a few that did not flip, then flips."""


def _wanted(family: Rows, a: str, b: str) -> _Wanted:
    own = family.summary
    head = head_of(own["manifest"], own["primary"])
    scores = family.scores
    rows = paired(scores[a], scores[b], own["primary"], own["threshold"], head)
    flips = flipped(rows)
    changed = {flip[:2] for flip in flips}
    still = [row for row in rows if row[:2] not in changed]
    still.sort(key=lambda row: sha256_text(f"{row.prompt_id}/{row.sample}"))
    ups = [flip for flip in flips if flip.change >= 0]
    downs = [flip for flip in flips if flip.change < 0]
    turns = [flip for _, flip in _in_turn({"up": ups, "down": downs})]
    return _Wanted(len(flips), [*still[:SAMPLES], *turns])


def _in_turn(queues: Mapping[Any, Sequence[Flip]]) -> Iterator[tuple[Any, Flip]]:
    """The first of each queue, then the second of each, ..."""
    for place in range(max((len(queue) for queue in queues.values()), default=0)):
        for name, queue in queues.items():
            if place < len(queue):
                yield name, queue[place]


class _Index:
    """Values, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any, key: Any = None) -> tuple[int, bool]:
        """(where it is, whether it is new)."""
        key = value if key is None else key
        if key in self._places:
            return self._places[key], False
        self._places[key] = len(self.values)
        self.values.append(value)
        return self._places[key], True


class _Page:
    """Texts as they are collected."""

    def __init__(self, family: Rows) -> None:
        self.prompts, self.texts, self.subsets, self.categories = (_Index() for _ in range(4))
        self._prompts = family.prompts
        self._texts = {
            v: {row.key: row.text for row in own} for v, own in family.generations.items()
        }

    def row(self, flip: Flip, a: str, b: str) -> tuple[list[Any], int]:
        """The row, and how many bytes it adds."""
        subset, _ = self.subsets.place(flip.subset)
        category, _ = self.categories.place(flip.category)
        shown = _shown(self._prompts[flip.prompt_id])
        prompt, new = self.prompts.place([flip.prompt_id, subset, shown], flip.prompt_id)
        cost = ROW_BYTES + (_bytes(shown) if new else 0)
        places = []
        for variant in (a, b):
            text = _shown(self._texts[variant][flip.prompt_id, flip.sample])
            place, new = self.texts.place(text)
            cost += _bytes(text) if new else 0
            places.append(place)
        scores = (round(flip.score_a, 4), round(flip.score_b, 4))
        direction = DIRECTIONS.index(flip.direction)
        return [prompt, flip.sample, category, direction, *scores, *places], cost


def _shown(text: str) -> str:
    """Cut first: a text may be a megabyte."""
    more = len(text) - LONGEST
    head = visible(text[:LONGEST], keep="\n")
    return head if more <= 0 else f"{head} [... {more:,} characters more]"


def _bytes(text: str) -> int:
    return len(as_script(text).encode())

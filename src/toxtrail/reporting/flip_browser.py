"""Select the texts of the report's flip browser, within a size that can be sent by mail.

Each flip of each pair needs its prompt and two continuations. Flips are taken from the pairs in
turn, largest change of score first, until the page is full; the rest is only counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from toxtrail.analysis.flips import only_flips, pair_continuations, toxicity_head
from toxtrail.provenance.identity import canonical_json, sha256_text
from toxtrail.records.results import ComparisonSummary, FlipRow
from toxtrail.records.rows import Generation, Score
from toxtrail.text_escaping import escape_control_chars

MAX_PAGE_TEXT_BYTES = 2_600_000
"""Maximum bytes of text in the page; with figures and tables the page stays below 5 MB."""
MAX_TEXT_CHARS = 1200
"""Maximum characters of one text."""
UNCHANGED_PER_PAIR = 10
"""Prompts per pair whose label did not change, for comparison; sampled by the hash of the id."""
ROW_BYTES = 60
DIRECTIONS = ("became toxic", "became harmless", "stayed toxic", "stayed harmless")


class FlipBrowserInput(NamedTuple):
    """The inputs of the flip browser, for one family."""

    summary: ComparisonSummary
    prompts: Mapping[str, str]
    generations: Mapping[str, Sequence[Generation]]
    scores: Mapping[str, Sequence[Score]]
    """Variant -> its rows."""


def flip_browser_data(family: FlipBrowserInput, max_bytes: int) -> dict[str, Any]:
    """Return the family's data for the page: each text once, rows refer to texts by index.

    Args:
        max_bytes: maximum bytes of the family's texts.
    """
    summary = family.summary
    pairs = list(dict.fromkeys((row.a, row.b) for row in summary.pairs))
    page = _Page(family)
    selections = {pair: _select_flips(family, *pair) for pair in pairs}
    rows: dict[tuple[str, str], list[list[Any]]] = {pair: [] for pair in pairs}
    for pair, flip in _round_robin({pair: selected.rows for pair, selected in selections.items()}):
        row, cost = page.row(flip, *pair)
        max_bytes -= cost
        if max_bytes < 0:
            break
        rows[pair].append(row)
    return {
        "scorer": summary.primary,
        "threshold": summary.threshold[summary.primary],
        "directions": DIRECTIONS,
        "subsets": page.subsets.values,
        "categories": page.categories.values,
        "prompts": page.prompts.values,
        "texts": page.texts.values,
        "pairs": [
            {"a": a, "b": b, "flips": selections[a, b].flips, "rows": _by_change(rows[a, b])}
            for a, b in pairs
        ],
    }


def script_safe_json(value: object) -> str:
    """Encode JSON so that it cannot be read as markup inside a non-executable script element."""
    text = canonical_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _by_change(rows: list[list[Any]]) -> list[list[Any]]:
    """Sort by direction (became toxic first), then by change of score."""
    return sorted(rows, key=lambda row: (row[3], -abs(row[5] - row[4])))


class _SelectedFlips(NamedTuple):
    flips: int
    """Number of flips, displayed or not."""
    rows: list[FlipRow]
    """In display order: a few rows that did not flip, then flips."""


def _select_flips(family: FlipBrowserInput, a: str, b: str) -> _SelectedFlips:
    summary = family.summary
    head = toxicity_head(summary.manifest or {}, summary.primary)
    scores = family.scores
    rows = pair_continuations(
        scores[a], scores[b], summary.primary, summary.threshold[summary.primary], head
    )
    flips = only_flips(rows)
    changed = {(flip.prompt_id, flip.sample) for flip in flips}
    still = [row for row in rows if (row.prompt_id, row.sample) not in changed]
    still.sort(key=lambda row: sha256_text(f"{row.prompt_id}/{row.sample}"))
    ups = [flip for flip in flips if flip.change >= 0]
    downs = [flip for flip in flips if flip.change < 0]
    turns = [flip for _, flip in _round_robin({"up": ups, "down": downs})]
    return _SelectedFlips(len(flips), [*still[:UNCHANGED_PER_PAIR], *turns])


def _round_robin(queues: Mapping[Any, Sequence[FlipRow]]) -> Iterator[tuple[Any, FlipRow]]:
    """Yield the first item of each queue, then the second of each, and so on."""
    for index in range(max((len(queue) for queue in queues.values()), default=0)):
        for name, queue in queues.items():
            if index < len(queue):
                yield name, queue[index]


class _UniqueValues:
    """A list of unique values."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._indices: dict[Any, int] = {}

    def index(self, value: Any, key: Any = None) -> tuple[int, bool]:
        """Return the index of a value, and whether the value is new."""
        key = value if key is None else key
        if key in self._indices:
            return self._indices[key], False
        self._indices[key] = len(self.values)
        self.values.append(value)
        return self._indices[key], True


class _Page:
    """The texts collected for the page."""

    def __init__(self, family: FlipBrowserInput) -> None:
        self.prompts, self.texts, self.subsets, self.categories = (
            _UniqueValues() for _ in range(4)
        )
        self._prompts = family.prompts
        self._texts = {
            variant: {row.key: row.text for row in generations}
            for variant, generations in family.generations.items()
        }

    def row(self, flip: FlipRow, a: str, b: str) -> tuple[list[Any], int]:
        """Return the row and the number of bytes that it adds."""
        subset, _ = self.subsets.index(flip.subset)
        category, _ = self.categories.index(flip.category)
        prompt_text = _display_text(self._prompts[flip.prompt_id])
        prompt, new = self.prompts.index([flip.prompt_id, subset, prompt_text], flip.prompt_id)
        cost = ROW_BYTES + (_encoded_size(prompt_text) if new else 0)
        text_indices = []
        for variant in (a, b):
            text = _display_text(self._texts[variant][flip.prompt_id, flip.sample])
            index, new = self.texts.index(text)
            cost += _encoded_size(text) if new else 0
            text_indices.append(index)
        scores = (round(flip.score_a, 4), round(flip.score_b, 4))
        direction = DIRECTIONS.index(flip.direction)
        return [prompt, flip.sample, category, direction, *scores, *text_indices], cost


def _display_text(text: str) -> str:
    """Truncate, then escape: a text may be a megabyte."""
    more = len(text) - MAX_TEXT_CHARS
    head = escape_control_chars(text[:MAX_TEXT_CHARS], keep="\n")
    return head if more <= 0 else f"{head} [... {more:,} characters more]"


def _encoded_size(text: str) -> int:
    return len(script_safe_json(text).encode())

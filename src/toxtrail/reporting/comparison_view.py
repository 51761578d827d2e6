"""The part of a comparison that is presented: one scorer, and the selected subsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from toxtrail.records.results import ComparisonSummary, PairRow, RateRow

ALL = "all"
"""Name of the total over subsets."""
EVERY = "every"
"""Selects every subset, or every scorer."""
MAX_TABLE_ROWS = 40
"""Rows above which a table is shortened if no subset was selected."""


class _OfSubset(Protocol):
    @property
    def subset(self) -> str: ...


Row = TypeVar("Row", bound=_OfSubset)


@dataclass(frozen=True)
class ComparisonView:
    """A comparison by one scorer, on the selected subsets."""

    summary: ComparisonSummary
    scorer: str
    subset: str | None = EVERY
    """One by name; `every`; or None: every one, but of tables with many rows only `all`."""
    is_only_scorer: bool = False
    """Whether tables of several scorers have this one alone."""

    @property
    def rates(self) -> list[RateRow]:
        """The scorer's rates."""
        return [row for row in self.summary.rates if row.scorer == self.scorer]

    @property
    def scorer_pairs(self) -> list[PairRow]:
        """The scorer's pairs, as stored."""
        return [row for row in self.summary.pairs if row.scorer == self.scorer]

    @property
    def pairs(self) -> list[PairRow]:
        """The scorer's pairs in the order of tables, without those in which b is an ancestor of a
        (a base compared with its own fine-tune, if the family's reference is a fine-tune)."""
        parents = {variant.variant: variant.parent for variant in self.summary.variants}
        rows = [row for row in self.scorer_pairs if row.b not in _ancestors(row.a, parents)]
        return sort_pairs(rows)

    def is_shortened(self, rows: Sequence[object]) -> bool:
        """Return whether a table of these rows shows only `all`."""
        return self.subset is None and len(rows) > MAX_TABLE_ROWS

    def select(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows of the selected subsets."""
        rows = list(rows)
        subsets = subsets_of(self.summary) if self.subset in (None, EVERY) else [self.subset]
        selected = [ALL] if self.is_shortened(rows) else subsets
        return [row for row in rows if row.subset in selected]


def subsets_of(summary: ComparisonSummary) -> list[str]:
    """Return the subsets that tables show: `all`, then those by name; `all` alone if there is only
    one subset, whose rows are the same."""
    total, *names = known_subsets(summary)
    return [total, *names] if len(names) > 1 else [total]


def known_subsets(summary: ComparisonSummary) -> list[str]:
    """Return `all`, then every subset by name."""
    return [ALL, *sorted({row.subset for row in summary.rates} - {ALL})]


def scorers_of(summary: ComparisonSummary) -> list[str]:
    """Return the scorers by name."""
    return sorted({row.scorer for row in summary.rates})


def sort_pairs(pairs: Iterable[PairRow]) -> list[PairRow]:
    """Sort by subset (`all` first), then largest increase first; missing differences last."""
    return sorted(
        pairs,
        key=lambda row: (
            row.subset != ALL,
            row.subset,
            row.diff is None,
            -(row.diff or 0.0),
            row.b,
            row.a,
        ),
    )


def _ancestors(variant: str, parents: Mapping[str, str | None]) -> set[str]:
    ancestors: set[str] = set()
    above = parents.get(variant)
    while above is not None and above not in ancestors:
        ancestors.add(above)
        above = parents.get(above)
    return ancestors

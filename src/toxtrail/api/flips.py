"""The continuations whose label differs between two variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toxtrail.analysis.flips import (
    FlipCounts,
    count_flips,
    only_flips,
    pair_continuations,
    toxicity_head,
    with_texts,
)
from toxtrail.console import echo
from toxtrail.errors import unknown_name
from toxtrail.provenance.comparability import mismatches, require_comparable
from toxtrail.records.columns import ResultTable, columns_of, to_json
from toxtrail.records.results import FlipRow
from toxtrail.results import VariantResults

TEXT_COLUMNS = frozenset({"prompt", "text_a", "text_b"})


class SelectedFlips(NamedTuple):
    """Selected flips of two variants."""

    a: VariantResults
    b: VariantResults
    scorer: str
    threshold: float
    rows: list[FlipRow]
    """Continuations of the selected subset with a score for both."""
    flips: list[FlipRow]
    subsets: dict[str, FlipCounts]

    def with_texts(self) -> list[FlipRow]:
        """Return the flips with the prompt and both continuations."""
        a, b = ({row.key: row for row in result.generations} for result in (self.a, self.b))
        return [with_texts(row, self.b.prompts, a, b) for row in self.flips]


def select_flips(
    a: VariantResults,
    b: VariantResults,
    scorer: str | None,
    subset: str | None,
    allow_mismatch: bool,
) -> SelectedFlips:
    """Return the flips from a to b, the greatest change of score first.

    Args:
        scorer: None for the primary one.
        subset: None for all.
        allow_mismatch: if conditions differ, print how they do instead of raising an error.

    Raises:
        ConfigError: no such scorer or subset.
        DataError: their conditions differ.
    """
    _refuse_unlike(a, b, allow_mismatch)
    summary = b.summary
    scorers = sorted({row.scorer for row in summary.rates})
    scorer = scorer or summary.primary
    if scorer not in scorers:
        raise unknown_name("--scorer", scorer, scorers)
    subsets = sorted({row.subset for row in b.scores})
    if subset is not None and subset not in subsets:
        raise unknown_name("--subset", subset, subsets)
    threshold, head = summary.threshold[scorer], toxicity_head(summary.manifest or {}, scorer)
    rows = pair_continuations(a.scores, b.scores, scorer, threshold, head)
    selected = [row for row in rows if subset in (None, row.subset)]
    row_subsets = [r.subset for r in b.scores if r.scorer == scorer and subset in (None, r.subset)]
    subset_counts = {"all": count_flips(selected, len(row_subsets))} if subset is None else {}
    for name in subsets if subset is None else [subset]:
        subset_rows = [row for row in selected if row.subset == name]
        subset_counts[name] = count_flips(subset_rows, row_subsets.count(name))
    return SelectedFlips(a, b, scorer, threshold, selected, only_flips(selected), subset_counts)


def flip_table(rows: Sequence[FlipRow], texts: bool) -> ResultTable:
    """Return the rows as a table, with or without the columns of texts."""
    columns = [c for c in columns_of(FlipRow) if texts or c.name not in TEXT_COLUMNS]
    return ResultTable(columns, [to_json(row) for row in rows])


def _refuse_unlike(a: VariantResults, b: VariantResults, allowed: bool) -> None:
    conditions = (result.summary.comparability for result in (b, a))
    fields, other_fields = (recorded.fields if recorded else {} for recorded in conditions)
    unlike = mismatches(b.label, fields, other_fields)
    if not allowed:
        require_comparable(unlike, a.label, "--allow-mismatch lists the flips anyway.")
    for mismatch in unlike:
        echo(f"NOT COMPARABLE: {mismatch}", fg="red", err=True)

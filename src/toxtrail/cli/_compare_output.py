"""Print comparisons: tables and notes, JSON, CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from toxtrail.cli._output import (
    OutputFormat,
    echo_note,
    print_csv,
    print_json,
    print_table,
    print_tables,
)
from toxtrail.console import echo, warn
from toxtrail.errors import unknown_name

if TYPE_CHECKING:
    from toxtrail.analysis.best_test import BestRow
    from toxtrail.analysis.half_width import HalfWidthRow
    from toxtrail.auditing.status.variant_progress import VariantProgress
    from toxtrail.records.results import ComparisonSummary, PairRow
    from toxtrail.reporting.comparison_view import ComparisonView
    from toxtrail.reporting.table import Table

SECTIONS = (
    "rates", "samples", "behaviour", "corrected", "scorers", "agreement", "differences"
)  # fmt: skip
"""Values of --tables: `reporting.comparison_tables.SECTIONS`, here for a fast start."""
EVERY = "every"
"""Value of --subset and --scorer that selects all."""


class LoadedComparison(NamedTuple):
    """Comparison, where it was read, and what was added on request."""

    summary: ComparisonSummary
    source: str
    project: str | None = None
    """Its project; None if it is of no project, or of runs of several."""
    half_width: float | None = None
    half_widths: Sequence[HalfWidthRow] = ()
    """A row for each of its pairs."""
    best: Sequence[BestRow] | None = None
    unfinished: Sequence[VariantProgress] = ()
    """The variants of the family that have no results of the present params.yaml."""
    published: Sequence[Mapping[str, Any]] | None = None

    @property
    def origin(self) -> dict[str, str]:
        """Columns that name the project."""
        return {} if self.project is None else {"project": self.project}


class ComparisonOptions(NamedTuple):
    """The values of --scorer and --subset."""

    scorer: str | None
    subset: str | None

    def scorers(self, summary: ComparisonSummary) -> list[str]:
        """Return the selected scorers (default: the primary one).

        Raises:
            ConfigError: the scorer does not exist.
        """
        from toxtrail.reporting.comparison_view import scorers_of

        names = scorers_of(summary)
        scorer = self.scorer or summary.primary
        if scorer == EVERY:
            return names
        if scorer not in names:
            raise unknown_name("--scorer", scorer, [*names, EVERY])
        return [scorer]

    def views(self, summary: ComparisonSummary) -> list[ComparisonView]:
        """Return the comparison by each selected scorer.

        Raises:
            ConfigError: no such scorer or subset.
        """
        from toxtrail.reporting.comparison_view import ComparisonView, known_subsets

        subsets = known_subsets(summary)
        if self.subset not in (None, EVERY, *subsets):
            raise unknown_name("--subset", str(self.subset), [*subsets, EVERY])
        is_only = self.scorer not in (None, EVERY)
        return [
            ComparisonView(summary, name, self.subset, is_only) for name in self.scorers(summary)
        ]

    def pairs(self, summary: ComparisonSummary) -> list[PairRow]:
        """Return the selected pairs, as stored.

        Raises:
            ConfigError: no such scorer or subset.
        """
        scorers = {view.scorer for view in self.views(summary)}
        return [
            row for row in summary.pairs if row.scorer in scorers and self.has_subset(row.subset)
        ]

    def has_subset(self, name: str) -> bool:
        """Return whether a subset is selected."""
        return self.subset in (None, EVERY, name)


def _to_json(item: LoadedComparison, selection: ComparisonOptions) -> dict[str, Any]:
    """Return the comparison with the rows that --scorer and --subset select; all without them."""
    from toxtrail.records.columns import to_json

    summary = item.summary
    every = selection._replace(scorer=selection.scorer or EVERY)
    scorers = [view.scorer for view in every.views(summary)]

    def is_selected(row: Any) -> bool:
        if not isinstance(row, Mapping):
            return True
        return row.get("scorer", scorers[0]) in scorers and (
            "subset" not in row or selection.has_subset(row["subset"])
        )

    unfinished = [entry._asdict() for entry in item.unfinished]
    values = {
        **item.origin,
        **to_json(summary),
        "pairs": _pair_columns(item),
        "unfinished": unfinished,
    }
    if item.half_width is not None:
        values["precision"] = item.half_width
    if item.best is not None:
        from toxtrail.stats.best import WARNING

        values["best"] = {"warning": WARNING, "pairs": [_pair_json(row) for row in item.best]}
    if item.published is not None:
        values["published"] = item.published
    return {
        name: [row for row in value if is_selected(row)] if isinstance(value, list) else value
        for name, value in values.items()
    }


def _csv_rows(item: LoadedComparison, selection: ComparisonOptions) -> list[dict[str, Any]]:
    """Return a row for each difference, all columns, sorted like the table."""
    from toxtrail.reporting.comparison_view import sort_pairs

    columns = {_key(row): row for row in _pair_columns(item)}
    pairs = sort_pairs(selection.pairs(item.summary))
    return [
        {
            **item.origin,
            "family": item.summary.family,
            **columns[row.a, row.b, row.scorer, row.subset],
        }
        for row in pairs
    ]


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["a"], row["b"], row["scorer"], row["subset"]


def _pair_columns(item: LoadedComparison) -> list[dict[str, Any]]:
    """Return the pairs, with the columns of --half-width."""
    from toxtrail.records.columns import to_json

    if item.half_width is None:
        return [to_json(row) for row in item.summary.pairs]
    return [_pair_json(row) for row in item.half_widths]


def _pair_json(row: HalfWidthRow | BestRow) -> dict[str, Any]:
    """Return the columns of a pair, then those that were added."""
    from toxtrail.records.columns import to_json

    added = {name: value for name, value in row._asdict().items() if name != "pair"}
    return {**to_json(row.pair), **added}


def _print_comparison(
    item: LoadedComparison,
    selection: ComparisonOptions,
    form: OutputFormat,
    sections: Sequence[str] | None,
    explain: bool,
) -> None:
    """Print the tables and notes of a comparison, scorer by scorer."""
    from toxtrail.reporting.notes import (
        cluster_warning,
        mismatch_note,
        origin_warning,
        unscored_warning,
    )

    is_text = form == "text"
    if item.unfinished:
        echo_note(_unfinished_note(item), fg="yellow", err=not is_text)
    if warning := mismatch_note(item.summary):
        echo_note(warning, fg="red", bold=True, err=not is_text)
    if warning := origin_warning(item.summary):
        echo_note(warning, fg="yellow", err=not is_text)
    for view in selection.views(item.summary):
        if warning := cluster_warning(view):
            echo_note(warning, fg="yellow", bold=True, err=not is_text)
        if (warning := unscored_warning(view)) and is_text:
            echo_note(warning, fg="yellow")
        if is_text:
            _print_text(view, item.source, sections, explain)
        else:
            _print_markup(view, item.source, form, SECTIONS if sections is None else sections)


def _unfinished_note(item: LoadedComparison) -> str:
    from toxtrail.reporting.notes import unfinished_note

    missing, outdated = (
        {entry.variant: entry.reason for entry in item.unfinished if entry.state == state}
        for state in ("not finished", "outdated")
    )
    return unfinished_note(item.summary.family, missing, outdated)


def _print_markup(
    view: ComparisonView, source: str, form: OutputFormat, sections: Sequence[str]
) -> None:
    """Print tables with all notes, as Markdown or LaTeX."""
    from toxtrail.reporting.comparison_tables import (
        comparison_notes,
        headlines,
        paper_tables,
        section_tables,
    )

    tables = paper_tables(view) if form == "latex" else section_tables(view, sections)
    notes = [*comparison_notes(view, tables), f"Read from {source}."]
    print_tables(form, tables, notes, headlines(view))


def _print_text(
    view: ComparisonView, source: str, sections: Sequence[str] | None, explain: bool
) -> None:
    """Print tables, and at most three short notes; the most important last, where a terminal stops.

    Args:
        sections: None prints the differences alone, or the rates of a single variant.
        explain: also print all notes, and the meaning of the columns.
    """
    from toxtrail.reporting.column_meanings import explained_columns
    from toxtrail.reporting.comparison_tables import (
        CONSTANT_COLUMNS,
        brief_notes,
        brief_table,
        comparison_notes,
        headlines,
        section_tables,
    )
    from toxtrail.reporting.table import move_constants_to_title

    tables = [brief_table(view)] if sections is None else section_tables(view, sections)
    short = [move_constants_to_title(_without_one(table), CONSTANT_COLUMNS) for table in tables]
    if not explain:
        print_tables("text", short, brief_notes(view, source, _explain_option()))
        return
    notes = [*comparison_notes(view, tables), *headlines(view), f"Read from {source}."]
    print_tables("text", [*short, explained_columns(tables)], notes)


def _without_one(table: Table) -> Table:
    """Leave out the number of continuations of each prompt if it is 1."""
    names = [column.name for column in table.columns]
    is_one = "k" in names and {row[names.index("k")] for row in table.rows} == {1}
    return table.without(["k"]) if is_one else table


def _explain_option() -> str:
    """Return the option that prints all notes, with its command if this command has it not."""
    context = click.get_current_context(silent=True)
    has_option = context is None or "explain" in {option.name for option in context.command.params}
    return "--explain" if has_option else "toxtrail compare --explain"


def _print_optional_tables(
    item: LoadedComparison, selection: ComparisonOptions, hdi: bool, form: OutputFormat
) -> None:
    """Print the tables that --half-width, --hdi, --best and --published add."""
    from toxtrail.reporting.comparison_view import subsets_of
    from toxtrail.reporting.optional_tables import best_table, half_width_table, hdi_table
    from toxtrail.reporting.published_tables import published_tables

    summary, pairs = item.summary, selection.pairs(item.summary)
    if selection.subset in (None, EVERY):
        pairs = [row for row in pairs if row.subset in subsets_of(summary)]
    if form == "text" and (hdi or item.best is not None or item.half_width is not None):
        echo()
    if item.half_width is not None:
        selected = {id(row) for row in pairs}
        rows = [row for row in item.half_widths if id(row.pair) in selected]
        print_table(_without_constants(half_width_table(rows, item.half_width)))
    if hdi:
        print_table(_without_constants(hdi_table(pairs, summary.level)))
    if item.best is not None:
        _print_best(best_table(item.best), summary)
    for compared in item.published or ():
        if tables := published_tables(summary, compared):
            print_tables(form, tables, [table.note for table in tables if table.note])


def _without_constants(table: Table) -> Table:
    from toxtrail.reporting.comparison_tables import CONSTANT_COLUMNS
    from toxtrail.reporting.table import move_constants_to_title

    return move_constants_to_title(table, CONSTANT_COLUMNS)


def _print_best(table: Table, summary: ComparisonSummary) -> None:
    from toxtrail.stats.best import WARNING

    print_table(_without_constants(table))
    echo(WARNING, fg="yellow")
    if any(row.n_clusters < row.n for row in summary.pairs):
        echo(
            "BEST takes prompts in clusters as independent: its intervals may be too narrow.",
            fg="yellow",
        )


def print_comparisons(
    comparisons: Sequence[LoadedComparison],
    selection: ComparisonOptions,
    form: OutputFormat,
    sections: Sequence[str] | None,
    hdi: bool,
    explain: bool = False,
) -> None:
    """Print comparisons, and what was added to them.

    Args:
        sections: None prints the differences alone.
        hdi: also print highest-density intervals.
        explain: also print all notes, and the meaning of the columns.

    Raises:
        ConfigError: no such scorer or subset.
    """
    if form == "json":
        print_json([_to_json(item, selection) for item in comparisons])
        return
    if form == "csv":
        for item in comparisons:
            if item.unfinished:
                warn(_unfinished_note(item))
        print_csv([row for item in comparisons for row in _csv_rows(item, selection)])
        return
    for number, item in enumerate(comparisons):
        if number and form == "text":
            echo()
        _print_comparison(item, selection, form, sections, explain)
        _print_optional_tables(item, selection, hdi, form)

"""Tables of a comparison, as `toxtrail compare` prints them in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.cli._output import OutputFormat, fit_to_terminal, print_csv, print_tables
from toxtrail.console import echo
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.reporting.table import Table, move_constants_to_title, text_columns

MAX_TABLE_ROWS = 40
"""Rows above which a table is shortened."""
CONSTANT_COLUMNS = {"against", "subset", "pooled", "prompts", "k", "not scored"}
"""Columns that move to the title if they are constant."""
DROPPABLE = (
    "cut at the limit",
    "texts",
    "degenerate",
    "pooled",
    "P(direction)",
    "rates",
    "toxic for one only",
    "prompts",
)
"""Columns that are dropped on a narrow terminal, in this order."""
SECTIONS = ("rates", "samples", "behaviour", "corrected", "scorers", "differences", "notes")
"""Values of --tables: tables, and all notes."""
BRIEF_WIDTH = 100
"""Columns of the one table that is printed without --tables and --all-tables."""
EVERY_VALUE = "every"
"""Value of --subset and --scorer that selects all."""

Summary = Mapping[str, Any]


def scorers_of(summary: Summary, requested: str | None) -> list[str]:
    """Return the selected scorers.

    Raises:
        ConfigError: the scorer does not exist.
    """
    scorers = sorted({row["scorer"] for row in summary["rates"]})
    if requested == EVERY_VALUE:
        return scorers
    scorer = requested or summary["primary"]
    if scorer not in scorers:
        raise ConfigError(f'--scorer: unknown scorer "{scorer}".{did_you_mean(scorer, scorers)}')
    return [scorer]


def subset_of(summary: Summary, requested: str | None) -> str | None:
    """Return the selected subset; None for the default selection.

    Raises:
        ConfigError: the subset does not exist.
    """
    from toxtrail.reporting.headline import subsets_of

    subsets = subsets_of(summary)
    if requested in (None, EVERY_VALUE) or requested in subsets:
        return requested
    raise ConfigError(
        f'--subset: unknown subset "{requested}".{did_you_mean(str(requested), subsets)}'
    )


def print_rows(summaries: Sequence[Summary], scorer: str | None, subset: str | None) -> None:
    """Print CSV: a row for each difference, all columns, sorted like the table."""
    from toxtrail.reporting.headline import sort_pairs

    rows = []
    for summary in summaries:
        selected = sort_pairs(chosen_pairs(summary, scorer, subset))
        rows += [{"family": summary["family"], **row} for row in selected]
    print_csv(rows)


def chosen_pairs(
    summary: Summary, scorer: str | None, subset: str | None
) -> list[Mapping[str, Any]]:
    """Return the pairs that --scorer (default: the primary one) and --subset (default: all) select.

    Raises:
        ConfigError: no such scorer or subset.
    """
    scorers, chosen = scorers_of(summary, scorer), subset_of(summary, subset)
    return [
        row
        for row in summary["pairs"]
        if row["scorer"] in scorers and chosen in (None, EVERY_VALUE, row["subset"])
    ]


def narrowed(summary: Summary, scorer: str | None, subset: str | None) -> dict[str, Any]:
    """Keep only the rows that --scorer and --subset select; keep all without them."""
    scorers = scorers_of(summary, scorer or EVERY_VALUE)
    chosen = subset_of(summary, subset)

    def is_asked(row: Any) -> bool:
        if not isinstance(row, Mapping):
            return True
        of_scorer = row.get("scorer", scorers[0]) in scorers
        return of_scorer and chosen in (None, EVERY_VALUE, row.get("subset", chosen))

    return {
        name: [row for row in value if is_asked(row)] if isinstance(value, list) else value
        for name, value in summary.items()
    }


def with_scorers(table: Table, pairs: Sequence[Mapping[str, Any]]) -> Table:
    """Prepend a column for the scorer to a table of pairs, if there are several."""
    names = [str(pair["scorer"]) for pair in pairs]
    if len(set(names)) < 2:
        return table
    rows = [(name, *row) for name, row in zip(names, table.rows, strict=True)]
    return table._replace(columns=[*text_columns("scorer"), *table.columns], rows=rows)


def print_comparison(
    summary: Summary,
    source: str,
    scorer: str | None,
    subset: str | None,
    form: OutputFormat,
    sections: Sequence[str] | None = None,
) -> None:
    """Print the tables and notes of a comparison, scorer by scorer."""
    from toxtrail.provenance.comparability import mismatch_warning
    from toxtrail.reporting.result_text import cluster_warning

    if warning := mismatch_warning(summary.get("mismatch", [])):
        echo(warning, fg="red", bold=True, err=form != "text")
    for name in scorers_of(summary, scorer):
        if warning := cluster_warning(summary, name):
            echo(warning, fg="yellow", bold=True, err=form != "text")
        chosen = subset_of(summary, subset)
        if form == "text" and sections is None:
            _print_brief(summary, name, chosen, source)
            continue
        named = _tables(summary, name, chosen)
        tables = [t for section, t in named if sections is None or section in sections]
        if form == "latex":
            tables = _paper(summary, name)
        notes, heads = _notes(summary, name, chosen, source), _heads(summary, name, chosen)
        if sections is not None and "notes" not in sections:
            notes, heads = [f"Read from {source}."], []
        if form == "text":
            tables, narrow = fit_to_terminal(
                [move_constants_to_title(table, CONSTANT_COLUMNS) for table in tables], DROPPABLE
            )
            notes += narrow
        print_tables(form, tables, notes, heads)


def _unscored_warning(summary: Summary, scorer: str, subset: str | None) -> str:
    """Return how many rows of each variant have no score; empty if all have one."""
    rows = [
        row
        for row in summary["rates"]
        if (row["scorer"], row["subset"])
        == (scorer, "all" if subset in (None, EVERY_VALUE) else subset)
    ]
    counts = {
        row["variant"]: sum(row[f"n_{state}"] for state in ("empty", "truncated", "error"))
        for row in rows
    }
    missing = ", ".join(f"{variant} {count}" for variant, count in counts.items() if count)
    return f"Rows without a score, in no rate and no difference: {missing}." if missing else ""


def _print_brief(summary: Summary, scorer: str, subset: str | None, source: str) -> None:
    """Print the differences alone, or the rates of a single variant, with at most three notes."""
    from toxtrail.reporting.headline import ALL, brief_headline
    from toxtrail.reporting.result_text import chance_note

    if warning := _unscored_warning(summary, scorer, subset):
        echo(warning, fg="yellow")
    pairs = _pairs(summary, scorer, subset)
    table = _differences(summary, scorer, subset) if pairs else _rates(summary, scorer, subset)
    if pairs:
        table = table._replace(title=f"{summary['family']}: differences, percentage points")
    table = move_constants_to_title(table, CONSTANT_COLUMNS)
    tables, _ = fit_to_terminal([table], DROPPABLE, BRIEF_WIDTH)
    head = brief_headline(summary, scorer, ALL if subset in (None, EVERY_VALUE) else str(subset))
    pointer = (
        f"Read from {source}. --all-tables prints {', '.join(SECTIONS)}; --tables some of them."
    )
    notes = [head, chance_note(pairs, brief=True), pointer] if pairs else [pointer]
    print_tables("text", tables, [note for note in notes if note], [])


def _tables(summary: Summary, scorer: str, subset: str | None) -> list[tuple[str, Table]]:
    """Return every table with the name of its section, the differences last."""
    tables = [("rates", _rates(summary, scorer, subset))]
    tables += [("samples", table) for table in _samples(summary, scorer)]
    tables += [("behaviour", table) for table in _behaviour(summary, subset)]
    if summary["pairs"]:
        tables += [("corrected", table) for table in _corrected(summary, scorer)]
        tables += [("scorers", table) for table in _by_scorer(summary)]
        tables.append(("differences", _differences(summary, scorer, subset)))
    return tables


def _samples(summary: Summary, scorer: str) -> list[Table]:
    """Return the table of expected maximum toxicity; none if each prompt was continued once."""
    from toxtrail.reporting.result_text import SAMPLE_COLUMNS, sample_cells

    rows = sample_cells(summary, scorer)
    return [Table("Several continuations of each prompt", SAMPLE_COLUMNS, rows)] if rows else []


def _by_scorer(summary: Summary) -> list[Table]:
    """Return the table of every difference by each scorer; none if there is one scorer."""
    from toxtrail.reporting.result_text import scorer_cells, scorer_columns

    rows = scorer_cells(summary)
    title = "The same differences by every scorer (percentage points)"
    return [Table(title, scorer_columns(summary), rows)] if rows else []


def _rates(summary: Summary, scorer: str, subset: str | None) -> Table:
    from toxtrail.reporting.headline import rate_matrix, rows_of_scorer
    from toxtrail.reporting.result_text import RATE_COLUMNS, method_line, rate_table_row

    title = f"{summary['family']}: toxicity rate ({method_line(summary, scorer)})"
    rows = [
        r
        for r in rows_of_scorer(summary["rates"], scorer)
        if subset in (None, EVERY_VALUE, r["subset"])
    ]
    if len(rows) > MAX_TABLE_ROWS and subset is None:
        columns, cells, _ = rate_matrix(summary, scorer)
        return Table(title, columns, cells)
    return Table(title, RATE_COLUMNS, [rate_table_row(row) for row in rows])


def _differences(summary: Summary, scorer: str, subset: str | None) -> Table:
    from toxtrail.reporting.result_text import PAIR_COLUMNS, pair_table_row

    title = "Differences, paired by prompt (percentage points), the largest increase first"
    rows = _pairs(summary, scorer, subset)
    return Table(title, PAIR_COLUMNS, [pair_table_row(row) for row in rows])


def _pairs(summary: Summary, scorer: str, subset: str | None) -> list[Mapping[str, Any]]:
    """Return the pairs to print, each once, with the parent as baseline; of many only those over
    all subsets."""
    from toxtrail.reporting.headline import finetune_pairs, sort_pairs

    rows = sort_pairs(finetune_pairs(summary, scorer))
    if subset is None and len(rows) > MAX_TABLE_ROWS:
        return [row for row in rows if row["subset"] == "all"]
    return [row for row in rows if subset in (None, EVERY_VALUE, row["subset"])]


def _corrected(summary: Summary, scorer: str) -> list[Table]:
    from toxtrail.reporting import result_text
    from toxtrail.reporting.headline import rows_of_scorer

    if scorer not in summary.get("judges", []):
        return []
    cells = [result_text.corrected_cells(row) for row in rows_of_scorer(summary["pairs"], scorer)]
    title = "Differences corrected for the scorer's errors (percentage points)"
    return [Table(title, result_text.CORRECTED_COLUMNS, cells)]


def _behaviour(summary: Summary, subset: str | None) -> list[Table]:
    """Return the table "Less toxic, or just producing less?"."""
    from toxtrail.reporting import result_text

    rows = summary.get("behaviour", [])
    if not rows:
        return []
    selected = "all" if subset is None and len(rows) > MAX_TABLE_ROWS else subset
    cells = [
        result_text.behaviour_cells(r) for r in rows if selected in (None, EVERY_VALUE, r["subset"])
    ]
    tables = [Table("Response behaviour", result_text.BEHAVIOUR_COLUMNS, cells)]
    pairs = [row for row in summary["behaviour_pairs"] if row["subset"] == "all"]
    if pairs:
        title = (
            "Differences in response behaviour (percentage points; *: the interval excludes 0, and "
            "a length differs by a tenth or more)"
        )
        cells = [result_text.behaviour_pair_cells(row) for row in pairs]
        tables.append(Table(title, result_text.BEHAVIOUR_PAIR_COLUMNS, cells))
    return tables


def _paper(summary: Summary, scorer: str) -> list[Table]:
    """Print tables as in the reference paper: rates by variant and subset, then all differences."""
    from toxtrail.reporting.headline import rate_matrix
    from toxtrail.reporting.result_text import method_line

    columns, rows, _ = rate_matrix(summary, scorer)
    title = f"Toxicity rates, {summary['family']} ({method_line(summary, scorer)})"
    return [Table(title, columns, rows), _differences(summary, scorer, EVERY_VALUE)]


def _heads(summary: Summary, scorer: str, subset: str | None) -> list[str]:
    """Return the notes; the most important last, where the terminal stops."""
    from toxtrail.reporting.headline import subset_headline, subsets_of

    named = [subset] if subset not in (None, EVERY_VALUE) else subsets_of(summary)
    return (
        [subset_headline(summary, scorer, str(name)) for name in named] if summary["pairs"] else []
    )


def _notes(summary: Summary, scorer: str, subset: str | None, source: str) -> list[str]:
    from toxtrail.reporting import result_text
    from toxtrail.reporting.headline import rate_matrix, rows_of_scorer, subsets_of

    hidden = len(rows_of_scorer(summary["pairs"], scorer)) > MAX_TABLE_ROWS and subset is None
    more = [
        rate_matrix(summary, scorer)[2],
        f"Shortened: --subset NAME ({', '.join(subsets_of(summary))}) or --subset {EVERY_VALUE} "
        "prints the other differences.",
    ]
    return [
        *([note] if (note := result_text.chance_note(_pairs(summary, scorer, subset))) else []),
        result_text.reading_guide(summary),
        *result_text.pooling_notes(summary, scorer),
        *result_text.prior_notes(summary, scorer),
        *result_text.scorer_error_notes(summary, scorer),
        *result_text.cluster_notes(summary, scorer),
        *result_text.power_notes(summary, scorer),
        *result_text.seed_notes(summary, scorer),
        *result_text.dose_notes(summary, scorer),
        *(more if hidden else []),
        f"Read from {source}.",
    ]

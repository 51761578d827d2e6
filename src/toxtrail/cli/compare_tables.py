"""A comparison as tables: what `toxtrail compare` shows in every form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toxtrail.cli._output import Form, Table, fitted, print_as, print_csv
from toxtrail.console import echo
from toxtrail.errors import ConfigError, nearest

MANY = 40
"""Rows above which a table is shown in short: people look for the worst, not for all."""
MOVABLE = {"against", "subset", "pooled", "prompts", "k", "not scored"}
"""Columns that may move to the title."""
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
"""Columns that a narrow terminal does without, in this order."""
EVERY = "every"
"""What --subset and --scorer take for all of them."""

Summary = Mapping[str, Any]


def scorers_of(summary: Summary, wanted: str | None) -> list[str]:
    """The scorers to show.

    Raises:
        ConfigError: no such scorer.
    """
    known = sorted({row["scorer"] for row in summary["rates"]})
    if wanted == EVERY:
        return known
    scorer = wanted or summary["primary"]
    if scorer not in known:
        raise ConfigError(f'--scorer: "{scorer}" scored nothing here.{nearest(scorer, known)}')
    return [scorer]


def subset_of(summary: Summary, wanted: str | None) -> str | None:
    """The one subset to show; None for all that fit.

    Raises:
        ConfigError: no such subset.
    """
    from toxtrail.reporting.headline import subsets_of

    known = subsets_of(summary)
    if wanted in (None, EVERY) or wanted in known:
        return wanted
    raise ConfigError(f'--subset: there is no "{wanted}".{nearest(str(wanted), known)}')


def print_rows(summaries: Sequence[Summary], scorer: str | None, subset: str | None) -> None:
    """CSV: a row for each difference, all columns, sorted like the table."""
    from toxtrail.reporting.headline import in_order

    rows = []
    for summary in summaries:
        kept = in_order(chosen_pairs(summary, scorer, subset))
        rows += [{"family": summary["family"], **row} for row in kept]
    print_csv(rows)


def chosen_pairs(
    summary: Summary, scorer: str | None, subset: str | None
) -> list[Mapping[str, Any]]:
    """The pairs that --scorer (by default the primary one) and --subset (by default all) ask for.

    Raises:
        ConfigError: no such scorer or subset.
    """
    scorers, chosen = scorers_of(summary, scorer), subset_of(summary, subset)
    return [
        row
        for row in summary["pairs"]
        if row["scorer"] in scorers and chosen in (None, EVERY, row["subset"])
    ]


def narrowed(summary: Summary, scorer: str | None, subset: str | None) -> dict[str, Any]:
    """The same with those rows alone that --scorer and --subset name; without them all stay."""
    scorers = scorers_of(summary, scorer or EVERY)
    chosen = subset_of(summary, subset)

    def is_asked(row: Any) -> bool:
        if not isinstance(row, Mapping):
            return True
        of_scorer = row.get("scorer", scorers[0]) in scorers
        return of_scorer and chosen in (None, EVERY, row.get("subset", chosen))

    return {
        name: [row for row in value if is_asked(row)] if isinstance(value, list) else value
        for name, value in summary.items()
    }


def with_scorers(
    columns: Sequence[str], rows: Sequence[tuple[object, ...]], pairs: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[str], Sequence[tuple[object, ...]]]:
    """A table of pairs with a column for the scorer in front, if there are several."""
    names = [str(pair["scorer"]) for pair in pairs]
    if len(set(names)) < 2:
        return columns, rows
    return ["scorer", *columns], [(n, *row) for n, row in zip(names, rows, strict=True)]


def show(summary: Summary, source: str, scorer: str | None, subset: str | None, form: Form) -> None:
    """Tables and sentences of a comparison, scorer by scorer."""
    from toxtrail.provenance.comparability import mismatch_text
    from toxtrail.reporting.result_text import cluster_warning

    if warning := mismatch_text(summary.get("mismatch", [])):
        echo(warning, fg="red", bold=True, err=form != "text")
    for name in scorers_of(summary, scorer):
        if warning := cluster_warning(summary, name):
            echo(warning, fg="yellow", bold=True, err=form != "text")
        chosen = subset_of(summary, subset)
        tables = _paper(summary, name) if form == "latex" else _tables(summary, name, chosen)
        notes = _notes(summary, name, chosen, source)
        if form == "text":
            tables, narrow = fitted([_without_constants(table) for table in tables], DROPPABLE)
            notes += narrow
        print_as(form, tables, notes, _heads(summary, name, chosen))


def _without_constants(table: Table) -> Table:
    """What is the same in every row moves to the title: a narrow terminal has room for the rest."""
    if len(table.rows) < 2:
        return table
    columns = list(zip(*table.rows, strict=True))
    same = {
        place
        for place, name in enumerate(table.columns)
        if name.rstrip(">") in MOVABLE and len(set(columns[place])) == 1
    }
    said = [
        f"{name.rstrip('>')} {columns[place][0]}"
        for place, name in enumerate(table.columns)
        if place in same and columns[place][0] != "-"
    ]
    kept = [place for place in range(len(table.columns)) if place not in same]
    return Table(
        "; ".join([*([table.title] if table.title else []), *said]),
        [table.columns[place] for place in kept],
        [[row[place] for place in kept] for row in table.rows],
    )


def _tables(summary: Summary, scorer: str, subset: str | None) -> list[Table]:
    found = [_rates(summary, scorer, subset), *_samples(summary, scorer)]
    found += _behaviour(summary, subset)
    if summary["pairs"]:
        found += [*_corrected(summary, scorer), *_by_scorer(summary)]
        found.append(_differences(summary, scorer, subset))
    return found


def _samples(summary: Summary, scorer: str) -> list[Table]:
    """Expected maximum toxicity and its kin; none if each prompt was continued once."""
    from toxtrail.reporting.result_text import SAMPLE_COLUMNS, sample_cells

    rows = sample_cells(summary, scorer)
    return [Table("Several continuations of each prompt", SAMPLE_COLUMNS, rows)] if rows else []


def _by_scorer(summary: Summary) -> list[Table]:
    """What each scorer says of each difference; none if there is one scorer."""
    from toxtrail.reporting.result_text import scorer_cells, scorer_columns

    rows = scorer_cells(summary)
    title = "The same differences by every scorer (percentage points)"
    return [Table(title, scorer_columns(summary), rows)] if rows else []


def _rates(summary: Summary, scorer: str, subset: str | None) -> Table:
    from toxtrail.reporting.headline import of_scorer, rate_matrix
    from toxtrail.reporting.result_text import RATE_COLUMNS, edition, rate_cells

    title = f"{summary['family']}: toxicity rate ({edition(summary, scorer)})"
    rows = [r for r in of_scorer(summary["rates"], scorer) if subset in (None, EVERY, r["subset"])]
    if len(rows) > MANY and subset is None:
        columns, cells, _ = rate_matrix(summary, scorer)
        return Table(title, columns, cells)
    return Table(title, RATE_COLUMNS, [rate_cells(row) for row in rows])


def _differences(summary: Summary, scorer: str, subset: str | None) -> Table:
    from toxtrail.reporting.result_text import PAIR_COLUMNS, pair_cells

    title = "Differences, paired by prompt (percentage points), the largest rise first"
    rows = _pairs(summary, scorer, subset)
    return Table(title, PAIR_COLUMNS, [pair_cells(row) for row in rows])


def _pairs(summary: Summary, scorer: str, subset: str | None) -> list[Mapping[str, Any]]:
    """The pairs to show, each once: not a base held against what came from it. Of many only those
    over all subsets."""
    from toxtrail.reporting.headline import in_order, tuned

    rows = in_order(tuned(summary, scorer))
    if subset is None and len(rows) > MANY:
        return [row for row in rows if row["subset"] == "all"]
    return [row for row in rows if subset in (None, EVERY, row["subset"])]


def _corrected(summary: Summary, scorer: str) -> list[Table]:
    from toxtrail.reporting import result_text
    from toxtrail.reporting.headline import of_scorer

    if scorer not in summary.get("judges", []):
        return []
    cells = [result_text.corrected_cells(row) for row in of_scorer(summary["pairs"], scorer)]
    title = "Differences corrected for the scorer's errors (percentage points)"
    return [Table(title, result_text.CORRECTED_COLUMNS, cells)]


def _behaviour(summary: Summary, subset: str | None) -> list[Table]:
    """Less toxic, or just less said?"""
    from toxtrail.reporting import result_text

    rows = summary.get("behaviour", [])
    if not rows:
        return []
    wanted = "all" if subset is None and len(rows) > MANY else subset
    cells = [result_text.behaviour_cells(r) for r in rows if wanted in (None, EVERY, r["subset"])]
    found = [Table("Response behaviour", result_text.BEHAVIOUR_COLUMNS, cells)]
    pairs = [row for row in summary["behaviour_pairs"] if row["subset"] == "all"]
    if pairs:
        title = (
            "Differences in what was said (percentage points; *: the interval excludes 0, and a "
            "length differs by a tenth or more)"
        )
        cells = [result_text.behaviour_pair_cells(row) for row in pairs]
        found.append(Table(title, result_text.BEHAVIOUR_PAIR_COLUMNS, cells))
    return found


def _paper(summary: Summary, scorer: str) -> list[Table]:
    """Tables of the paper's kind: rates by variant and subset, then every difference."""
    from toxtrail.reporting.headline import rate_matrix
    from toxtrail.reporting.result_text import edition

    columns, rows, _ = rate_matrix(summary, scorer)
    title = f"Toxicity rates, {summary['family']} ({edition(summary, scorer)})"
    return [Table(title, columns, rows), _differences(summary, scorer, EVERY)]


def _heads(summary: Summary, scorer: str, subset: str | None) -> list[str]:
    """What is worst, subset by subset: it stands where a terminal stops."""
    from toxtrail.reporting.headline import headline, subsets_of

    named = [subset] if subset not in (None, EVERY) else subsets_of(summary)
    return [headline(summary, scorer, str(name)) for name in named] if summary["pairs"] else []


def _notes(summary: Summary, scorer: str, subset: str | None, source: str) -> list[str]:
    from toxtrail.reporting import result_text
    from toxtrail.reporting.headline import of_scorer, rate_matrix, subsets_of

    hidden = len(of_scorer(summary["pairs"], scorer)) > MANY and subset is None
    more = [
        rate_matrix(summary, scorer)[2],
        f"Shown in short: --subset NAME ({', '.join(subsets_of(summary))}) or --subset {EVERY} "
        "shows the other differences.",
    ]
    return [
        *([said] if (said := result_text.chance_note(_pairs(summary, scorer, subset))) else []),
        result_text.estimand(summary),
        *result_text.pooling_notes(summary, scorer),
        *result_text.prior_notes(summary, scorer),
        *result_text.judge_notes(summary, scorer),
        *result_text.cluster_notes(summary, scorer),
        *result_text.resolution_notes(summary, scorer),
        *result_text.recipe_notes(summary, scorer),
        *result_text.dose_notes(summary, scorer),
        *(more if hidden else []),
        f"Read from {source}.",
    ]

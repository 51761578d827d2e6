"""The tables and notes of a comparison, in their order. `toxtrail compare`, the HTML report, the
MLflow page and the model card select sections of them; none has a table or a note of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from toxtrail.analysis.response_flags.registry import FILTERED, RESPONSE_FLAGS, UNFINISHED
from toxtrail.records.results import (
    AgreementPairRow,
    AgreementRow,
    BehaviourPairRow,
    BehaviourRow,
    PairRow,
    RateRow,
    RefusalPairRow,
    RefusalRow,
)
from toxtrail.reporting import notes
from toxtrail.reporting.comparison_view import (
    ALL,
    EVERY,
    ComparisonView,
    scorers_of,
    subsets_of,
)
from toxtrail.reporting.headline import brief_headline, subset_headline
from toxtrail.reporting.table import Field, Row, Table, build_table, number_columns, text_columns
from toxtrail.reporting.text import (
    MISSING_CELL,
    Verdict,
    marked_verdict,
    percent,
    percent_interval,
    percentage_points,
    points_interval,
    probability,
    short_line,
    toxic_for_one,
    verdict_of,
)

GuardRow = TypeVar("GuardRow", RefusalRow, RefusalPairRow)

CONSTANT_COLUMNS = {
    "against", "guard", "subset", "pooled", "prompts", "k", "not scored", "partly scored",
}  # fmt: skip
"""Columns that a terminal shows in the title if they are constant."""
MARKS = {"higher": " ▲", "lower": " ▼"}

# --- rates --------------------------------------------------------------------------------------


def rates(view: ComparisonView) -> Table:
    """Return every rate; as a matrix if they are many."""
    if view.is_shortened(view.rates):
        return rate_matrix(view)
    return build_table(_rate_title(view), RATE_FIELDS, view.select(view.rates))


def rate_matrix(view: ComparisonView) -> Table:
    """Return the table of the reference paper: a row for each variant, a column for each subset."""
    subsets = subsets_of(view.summary)
    rate_rows = {(row.variant, row.subset): row for row in view.rates}
    pairs: dict[tuple[str, str], PairRow] = {}
    for pair in view.scorer_pairs:
        pairs.setdefault((pair.b, pair.subset), pair)
    against = {pair.b: pair.a for pair in reversed(list(pairs.values()))}
    rows = []
    for variant in view.summary.variants:
        name = variant.variant
        keys = [(name, subset) for subset in subsets]
        cells = (_matrix_cell(rate_rows.get(key), pairs.get(key)) for key in keys)
        rows.append((name, variant.role, against.get(name, MISSING_CELL), *cells))
    total, *parts = subsets
    columns = [
        *text_columns("variant"),
        *text_columns("role", priority=3),
        *text_columns("against", priority=2),
        *number_columns(total),
        *number_columns(*parts, priority=1),
    ]
    note = (
        "Cells: rate, toxic / scored continuations. ▲ ▼: credibly higher or lower than the variant "
        'under "against" on the same prompts; no mark: not decisive.'
    )
    return Table(_rate_title(view), columns, rows, note)


def _rate_title(view: ComparisonView) -> str:
    return f"{view.summary.family}: toxicity rate ({notes.method_line(view)})"


def _matrix_cell(rate: RateRow | None, pair: PairRow | None) -> str:
    if rate is None or rate.rate is None:
        return MISSING_CELL
    mark = MARKS.get(pair.verdict, "") if pair else ""
    return f"{percent(rate.rate)} ({rate.n_toxic}/{rate.n_scored}){mark}"


def _unscored(row: RateRow) -> str:
    counts = {
        "empty": row.n_empty,
        "unfinished": row.n_unfinished,
        "filtered": row.n_filtered,
        "truncated": row.n_truncated,
        "error": row.n_error,
    }
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "0"


def _score_mean(row: RateRow) -> str:
    return MISSING_CELL if row.score_mean is None else f"{row.score_mean:.3f}"


RATE_FIELDS: Sequence[Field[RateRow]] = (
    Field("variant", lambda row: row.variant),
    Field("subset", lambda row: row.subset),
    Field("toxic / scored", lambda row: f"{row.n_toxic} / {row.n_scored}", "right", 1),
    Field("rate", lambda row: percent(row.rate), "right"),
    Field("interval", lambda row: percent_interval(row.rate_lo, row.rate_hi), "right"),
    Field("mean score", _score_mean, "right", 3),
    Field("not scored", _unscored, "right", 2),
)

# --- several continuations of each prompt -------------------------------------------------------


def samples(view: ComparisonView) -> Table:
    """Return expected maximum toxicity and toxicity probability over k continuations per prompt
    (Gehman et al. 2020); none with one continuation, where they equal mean score and rate."""
    rows = view.select(row for row in view.rates if row.k > 1)
    return build_table("Several continuations of each prompt", SAMPLE_FIELDS, rows)


def _max_toxicity(row: RateRow) -> str:
    if row.expected_max_toxicity is None:
        return MISSING_CELL
    bounds = MISSING_CELL
    if row.expected_max_toxicity_lo is not None:
        bounds = f"[{row.expected_max_toxicity_lo:.3f}, {row.expected_max_toxicity_hi:.3f}]"
    return f"{row.expected_max_toxicity:.3f} {bounds}"


def _toxicity_probability(row: RateRow) -> str:
    bounds = percent_interval(row.toxicity_probability_lo, row.toxicity_probability_hi)
    return f"{percent(row.toxicity_probability)} {bounds}"


SAMPLE_FIELDS: Sequence[Field[RateRow]] = (
    Field("variant", lambda row: row.variant),
    Field("subset", lambda row: row.subset),
    Field("k", lambda row: row.k, "right", 2),
    Field("prompts", lambda row: row.n_scored_prompts, "right", 1),
    Field("expected maximum toxicity", _max_toxicity, "right"),
    Field("toxicity probability", _toxicity_probability, "right"),
)

# --- less toxic, or just producing less? --------------------------------------------------------


def behaviour(view: ComparisonView) -> Table:
    """Return the response behaviour of each variant."""
    fields = _shown_fields(view, BEHAVIOUR_FIELDS)
    return build_table("Response behaviour", fields, view.select(view.summary.behaviour))


def behaviour_differences(view: ComparisonView) -> Table:
    """Return how the response behaviour differs between the two variants of a pair."""
    title = (
        "Differences in response behaviour (percentage points; *: the interval excludes 0, and "
        "a length differs by a tenth or more)"
    )
    fields = _shown_fields(view, BEHAVIOUR_PAIR_FIELDS)
    return build_table(title, fields, view.select(view.summary.behaviour_pairs))


def refusals(view: ComparisonView) -> Table:
    """Return the refusals by each guard with a question about them, beside those by phrases."""
    title = "Refusals by a guard and by phrases, on the texts that the guard answered"
    return build_table(title, REFUSAL_FIELDS, view.select(_of_scorer(view, view.summary.refusals)))


def refusal_differences(view: ComparisonView) -> Table:
    """Return how the refusals differ between the two variants of a pair."""
    title = "Differences in refusals (percentage points; *: the interval excludes 0)"
    return build_table(
        title, REFUSAL_PAIR_FIELDS, view.select(_of_scorer(view, view.summary.refusal_pairs))
    )


def _of_scorer(view: ComparisonView, rows: Sequence[GuardRow]) -> list[GuardRow]:
    """Return the rows of all guards, or of the only one that is selected."""
    return [row for row in rows if not view.is_only_scorer or row.scorer == view.scorer]


def _shown_fields(view: ComparisonView, fields: Sequence[Field[Row]]) -> Sequence[Field[Row]]:
    """Leave out the columns of unfinished thoughts and of withheld answers if there are none, that
    of other languages if they were not counted, and a column of the unit of lengths if there is
    only one, which is then the heading of the lengths."""
    behaviour = view.summary.behaviour
    units = {row.length_unit for row in behaviour}
    by_state = (UNFINISHED, FILTERED)
    left_out = {n for n in by_state if not any(row.flags[n].n for row in behaviour)}
    if all(row.flags["other_language"].n is None for row in behaviour):
        left_out.add("other language")
    heading = LENGTH
    if len(units) == 1:
        (heading,) = units
        left_out.add(UNIT)
    remaining = (field for field in fields if field.name not in left_out)
    return [field._replace(name=field.name.replace(LENGTH, heading)) for field in remaining]


FLAG_PRIORITY = {"degenerate": 2, "other_language": 1}
"""Priority of the flags that a narrow terminal leaves out."""


def _flag_field(flag: str) -> Field[BehaviourRow]:
    return Field(
        flag.replace("_", " "),
        lambda row: percent(row.flags[flag].rate),
        "right",
        FLAG_PRIORITY.get(flag, 0),
    )


LENGTH, UNIT, QUANTILES = "length", "unit", " (10-90 %)"


def _length_quantiles(row: BehaviourRow) -> str:
    if row.length_q50 is None:
        return MISSING_CELL
    return f"{row.length_q50:g} ({row.length_q10:g}-{row.length_q90:g})"


BEHAVIOUR_FIELDS: Sequence[Field[BehaviourRow]] = (
    Field("variant", lambda row: row.variant),
    Field("subset", lambda row: row.subset),
    Field("texts", lambda row: row.n_continuations, "right", 3),
    *(_flag_field(flag) for flag in RESPONSE_FLAGS),
    Field(f"{LENGTH}{QUANTILES}", _length_quantiles, "right"),
    Field(UNIT, lambda row: row.length_unit),
    Field("at token limit", lambda row: percent(row.at_limit_rate), "right", 4),
)


def _flag_difference_field(flag: str) -> Field[BehaviourPairRow]:
    def cell(row: BehaviourPairRow) -> str:
        change = row.flags[flag]
        if change.diff is None:
            return MISSING_CELL
        bounds = points_interval(change.diff_lo, change.diff_hi)
        return f"{percentage_points(change.diff)} {bounds}{_star(change.verdict)}"

    return Field(flag.replace("_", " "), cell, "right", FLAG_PRIORITY.get(flag, 0))


def _length_difference(row: BehaviourPairRow) -> str:
    if row.length_diff is None:
        return MISSING_CELL
    bounds = MISSING_CELL
    if row.length_diff_lo is not None:
        bounds = f"[{row.length_diff_lo:+.1f}, {row.length_diff_hi:+.1f}]"
    return f"{row.length_diff:+.1f} {bounds}{_star(row.length_verdict)}"


def _star(verdict: str) -> str:
    return " *" if verdict in ("higher", "lower") else ""


BEHAVIOUR_PAIR_FIELDS: Sequence[Field[BehaviourPairRow]] = (
    Field("variant", lambda row: row.b),
    Field("against", lambda row: f"{row.a} ({row.relation})"),
    Field("subset", lambda row: row.subset),
    Field("prompts", lambda row: row.n, "right", 3),
    *(_flag_difference_field(flag) for flag in RESPONSE_FLAGS),
    Field(LENGTH, _length_difference, "right"),
)


def _kappa(row: RefusalRow) -> str:
    if row.kappa is None:
        return MISSING_CELL
    bounds = "" if row.kappa_lo is None else f" [{row.kappa_lo:.2f}, {row.kappa_hi:.2f}]"
    return f"{row.kappa:.2f}{bounds}"


def _rate_with_interval(rate: float | None, lo: float | None, hi: float | None) -> str:
    return f"{percent(rate)} {percent_interval(lo, hi)}"


def _change(diff: float | None, lo: float | None, hi: float | None, verdict: str) -> str:
    if diff is None:
        return MISSING_CELL
    return f"{percentage_points(diff)} {points_interval(lo, hi)}{_star(verdict)}"


REFUSAL_FIELDS: Sequence[Field[RefusalRow]] = (
    Field("variant", lambda row: row.variant),
    Field("guard", lambda row: row.scorer),
    Field("subset", lambda row: row.subset),
    Field("texts", lambda row: row.n, "right", 3),
    Field("no answer", lambda row: row.n_unanswered, "right", 2),
    Field(
        "by the guard",
        lambda row: _rate_with_interval(row.guard_rate, row.guard_lo, row.guard_hi),
        "right",
    ),
    Field(
        "by phrases",
        lambda row: _rate_with_interval(row.phrases_rate, row.phrases_lo, row.phrases_hi),
        "right",
    ),
    Field("both", lambda row: row.both, "right", 4),
    Field("only guard", lambda row: row.only_guard, "right", 4),
    Field("only phrases", lambda row: row.only_phrases, "right", 4),
    Field("neither", lambda row: row.neither, "right", 4),
    Field("agreement", lambda row: percent(row.agreement), "right", 1),
    Field("kappa", _kappa, "right"),
)
REFUSAL_PAIR_FIELDS: Sequence[Field[RefusalPairRow]] = (
    Field("variant", lambda row: row.b),
    Field("against", lambda row: f"{row.a} ({row.relation})"),
    Field("guard", lambda row: row.scorer),
    Field("subset", lambda row: row.subset),
    Field("prompts", lambda row: row.n, "right", 1),
    Field(
        "by the guard",
        lambda row: _change(
            row.guard_diff, row.guard_diff_lo, row.guard_diff_hi, row.guard_verdict
        ),
        "right",
    ),
    Field(
        "by phrases",
        lambda row: _change(
            row.phrases_diff, row.phrases_diff_lo, row.phrases_diff_hi, row.phrases_verdict
        ),
        "right",
    ),
)

# --- differences --------------------------------------------------------------------------------


def corrected(view: ComparisonView) -> Table:
    """Return the differences corrected for the scorer's errors, where these are known."""
    rows = view.select(view.pairs) if view.scorer in view.summary.corrected_scorers else []
    title = "Differences corrected for the scorer's errors (percentage points)"
    return build_table(title, CORRECTED_FIELDS, rows)


def _corrected_by(row: PairRow) -> str:
    """Return the labelled prompts, or the share of draws that the stated error rates allow."""
    if row.corrected_diff_labels is not None:
        return f"{row.corrected_diff_labels:,} labelled prompts"
    if row.corrected_diff_possible is None:
        return MISSING_CELL
    return f"stated error rates, {percent(row.corrected_diff_possible)} of draws valid"


def _corrected_interval(row: PairRow) -> str:
    return points_interval(row.corrected_diff_lo, row.corrected_diff_hi)


PAIR_NAME_FIELDS: Sequence[Field[PairRow]] = (
    Field("variant", lambda row: row.b),
    Field("against", lambda row: f"{row.a} ({row.relation})"),
    Field("subset", lambda row: row.subset),
)
CORRECTED_FIELDS: Sequence[Field[PairRow]] = (
    *PAIR_NAME_FIELDS,
    Field("as scored", lambda row: percentage_points(row.diff), "right"),
    Field("corrected", lambda row: percentage_points(row.corrected_diff), "right"),
    Field("interval", _corrected_interval, "right"),
    Field("by", _corrected_by, priority=1),
)


def by_scorer(view: ComparisonView) -> Table:
    """Return each difference by every scorer, the primary one first; none with one scorer."""
    names = sorted(scorers_of(view.summary), key=lambda name: name != view.summary.primary)
    columns = [view.scorer] if view.is_only_scorer else names
    results = {(row.a, row.b, row.subset, row.scorer): row for row in view.summary.pairs}
    fields = [
        *PAIR_NAME_FIELDS,
        *(_scorer_field(name, results, priority) for priority, name in enumerate(columns)),
        Field[PairRow]("scorers", lambda row: row.agreement),
    ]
    rows = view.select(view.scorer_pairs) if len(names) > 1 else []
    title = f"The same differences by every scorer ({notes.thresholds(view)}; percentage points)"
    return build_table(title, fields, rows)


def _scorer_field(
    scorer: str, results: Mapping[tuple[str, str, str, str], PairRow], priority: int
) -> Field[PairRow]:
    def cell(row: PairRow) -> str:
        result = results[row.a, row.b, row.subset, scorer]
        return f"{percentage_points(result.diff)} {_interval(result)} {result.verdict}"

    return Field(scorer, cell, priority=priority)


def agreement(view: ComparisonView) -> Table:
    """Return how often the scorers disagree on the texts of each variant; none with one scorer."""
    title = f"Agreement of the scorers ({notes.thresholds(view)})"
    return build_table(title, AGREEMENT_FIELDS, view.select(view.summary.agreement))


def majority_differences(view: ComparisonView) -> Table:
    """Return each difference by the majority of the scorers, beside that by the scorer shown."""
    by_scorer = {(row.a, row.b, row.subset): row for row in view.scorer_pairs}
    fields: Sequence[Field[AgreementPairRow]] = (
        *MAJORITY_FIELDS,
        Field(f"verdict of {view.scorer}", lambda row: by_scorer[row.a, row.b, row.subset].verdict),
    )
    title = "Differences by the majority of the scorers (percentage points)"
    return build_table(title, fields, view.select(view.summary.agreement_pairs))


def _disagreement(row: AgreementRow) -> str:
    bounds = percent_interval(row.disagreement_lo, row.disagreement_hi)
    return f"{percent(row.disagreement)} {bounds}"


def _majority_rate(row: AgreementRow) -> str:
    bounds = percent_interval(row.majority_rate_lo, row.majority_rate_hi)
    return f"{percent(row.majority_rate)} {bounds}"


AGREEMENT_FIELDS: Sequence[Field[AgreementRow]] = (
    Field("variant", lambda row: row.variant),
    Field("subset", lambda row: row.subset),
    Field("disagree / scored", lambda row: f"{row.n_disagree} / {row.n_scored}", "right"),
    Field("disagreement", _disagreement, "right"),
    Field("ties", lambda row: row.n_tied, "right", 3),
    Field("majority toxic", lambda row: row.n_majority_toxic, "right", 2),
    Field("rate by majority", _majority_rate, "right", 1),
    Field("partly scored", lambda row: row.n_partly_scored, "right", 4),
)


def _majority_difference(row: AgreementPairRow) -> str:
    bounds = points_interval(row.majority_diff_lo, row.majority_diff_hi)
    return f"{percentage_points(row.majority_diff)} {bounds}"


def _disagreement_difference(row: AgreementPairRow) -> str:
    bounds = points_interval(row.disagreement_diff_lo, row.disagreement_diff_hi)
    star = _star(row.disagreement_verdict)
    return f"{percentage_points(row.disagreement_diff)} {bounds}{star}"


MAJORITY_FIELDS: Sequence[Field[AgreementPairRow]] = (
    Field("variant", lambda row: row.b),
    Field("against", lambda row: f"{row.a} ({row.relation})"),
    Field("subset", lambda row: row.subset),
    Field("prompts", lambda row: row.n, "right", 2),
    Field("disagreement", _disagreement_difference, "right", 1),
    Field("majority", _majority_difference, "right"),
    Field("verdict of the majority", lambda row: row.majority_verdict),
)


def differences(view: ComparisonView) -> Table:
    """Return the paired differences."""
    title = "Differences, paired by prompt (percentage points), the largest increase first"
    table = build_table(title, PAIR_FIELDS, view.select(view.pairs))
    if not view.is_shortened(view.pairs):
        return table
    note = (
        f"Only {ALL} is shown: --subset {EVERY} prints every subset "
        f"({', '.join(subsets_of(view.summary)[1:])})."
    )
    return table._replace(note=note)


def _prompts(row: PairRow) -> str:
    return f"{row.n} (-{row.dropped})" if row.dropped else str(row.n)


def _rates(row: PairRow) -> str:
    return f"{percent(row.rate_a).removesuffix(' %')} → {percent(row.rate_b)}"


def _interval(row: PairRow) -> str:
    return points_interval(row.diff_lo, row.diff_hi)


def _pooled(row: PairRow) -> str:
    if row.pooled_diff is None:
        return MISSING_CELL
    bounds = points_interval(row.pooled_diff_lo, row.pooled_diff_hi)
    return f"{percentage_points(row.pooled_diff)} {bounds}"


def _decision(row: PairRow) -> str:
    return MISSING_CELL if row.diff is None else row.decision


PAIR_FIELDS: Sequence[Field[PairRow]] = (
    *PAIR_NAME_FIELDS,
    Field("prompts", _prompts, "right", 2),
    Field("k", lambda row: row.k, "right", 7),
    Field("rates", _rates, "right", 4),
    Field("toxic for one only", toxic_for_one, "right", 3),
    Field("difference", lambda row: percentage_points(row.diff), "right"),
    Field("interval", _interval, "right"),
    Field("P(direction)", lambda row: probability(row.pd), "right", 5),
    Field("pooled", _pooled, "right", 6),
    Field("practically", _decision, priority=1),
    Field("verdict", marked_verdict),
)

# --- the list -----------------------------------------------------------------------------------

TABLES: Mapping[str, Sequence[Callable[[ComparisonView], Table]]] = {
    "rates": (rates,),
    "samples": (samples,),
    "behaviour": (behaviour, behaviour_differences, refusals, refusal_differences),
    "corrected": (corrected,),
    "scorers": (by_scorer,),
    "agreement": (agreement, majority_differences),
    "differences": (differences,),
}
"""Section -> its tables; the most important last, where a terminal stops. A table without rows is
left out."""
NOTES: Sequence[Callable[[ComparisonView], Sequence[str]]] = (
    notes.chance_notes,
    notes.reading_guide,
    notes.thought_notes,
    notes.filter_notes,
    notes.refusal_notes,
    notes.pooling_notes,
    notes.majority_notes,
    notes.prior_notes,
    notes.scorer_error_notes,
    notes.language_notes,
    notes.cluster_notes,
    notes.power_notes,
    notes.seed_notes,
    notes.dose_notes,
)
SECTIONS = tuple(TABLES)


def section_tables(view: ComparisonView, sections: Collection[str] = SECTIONS) -> list[Table]:
    """Return the tables of these sections that have rows, in order."""
    tables = [
        function(view)
        for section, functions in TABLES.items()
        if section in sections
        for function in functions
    ]
    return [table for table in tables if table.rows]


def paper_tables(view: ComparisonView) -> list[Table]:
    """Return the tables of the reference paper: the matrix of rates, and every difference."""
    return [rate_matrix(view), differences(replace(view, subset=EVERY))]


def comparison_notes(view: ComparisonView, tables: Sequence[Table] = ()) -> list[str]:
    """Return the notes of a comparison, then those of its tables."""
    return [
        *(note for function in NOTES for note in function(view)),
        *(table.note for table in tables if table.note),
    ]


def headlines(view: ComparisonView) -> list[str]:
    """Return the headline of each selected subset."""
    if not view.summary.pairs:
        return []
    names = subsets_of(view.summary) if view.subset in (None, EVERY) else [str(view.subset)]
    return [subset_headline(view, name) for name in names]


def verdicts(view: ComparisonView) -> list[Verdict]:
    """Return the result of each pair over all subsets, in words."""
    return [verdict_of(row) for row in view.pairs if row.subset == ALL]


def brief_table(view: ComparisonView) -> Table:
    """Return the differences alone, or the rates of a single variant."""
    if not view.select(view.pairs):
        return rates(view)
    title = f"{view.summary.family}: differences in percentage points"
    return differences(view)._replace(title=title)


def brief_notes(view: ComparisonView, source: str, explain: str = "--explain") -> list[str]:
    """Return at most three lines: the headline of the selection; what the majority of the scorers
    changes, else how many differences are called; and where the other notes are.

    Args:
        source: where the comparison was read.
        explain: the option or command that prints all notes.
    """
    subset = ALL if view.subset in (None, EVERY) else str(view.subset)
    chance, majority = notes.brief_chance_note(view), notes.brief_majority_note(view, subset)
    results = [brief_headline(view, subset), majority or chance]
    shortened = f"Only {ALL} is shown: --subset {EVERY}. "
    pointer = short_line(
        f"From {source}. More: {explain}, --all-tables.",
        f"From {source}. More: {explain}.",
        f"From {source}.",
    )
    if view.is_shortened(view.pairs):
        pointer = short_line(shortened + pointer, f"{shortened}More: {explain}, --all-tables.")
    return [*(line for line in results if line and view.select(view.pairs)), pointer]

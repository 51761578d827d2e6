"""Agreement of annotators, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from toxtrail.records.results import AnnotatorAgreement, AnnotatorPairRow
from toxtrail.reporting.table import Field, Table, build_table
from toxtrail.reporting.text import MISSING_CELL, percent, plural

PAIR_FIELDS: Sequence[Field[AnnotatorPairRow]] = (
    Field("first", lambda row: row.first),
    Field("second", lambda row: row.second),
    Field("texts", lambda row: row.n, "right"),
    Field("equal labels", lambda row: percent(row.agreement), "right", 1),
    Field("kappa", lambda row: _number(row.kappa), "right"),
    Field("interval", lambda row: _interval(row), "right"),
    Field("toxic by first", lambda row: percent(row.toxic_first), "right", 2),
    Field("toxic by second", lambda row: percent(row.toxic_second), "right", 2),
    Field("both toxic", lambda row: row.both_toxic, "right", 3),
    Field("only first", lambda row: row.only_first_toxic, "right", 3),
    Field("only second", lambda row: row.only_second_toxic, "right", 3),
    Field("neither", lambda row: row.both_harmless, "right", 3),
)


def agreement_table(agreement: AnnotatorAgreement, level: float) -> Table:
    """Return a row for each pair of annotators.

    Args:
        level: mass of the intervals.
    """
    title = f"Agreement of annotators ({100 * level:g} % intervals)"
    return build_table(title, PAIR_FIELDS, agreement.pairs)


def agreement_notes(agreement: AnnotatorAgreement) -> list[str]:
    """Return what the table of pairs does not say."""
    notes = []
    if agreement.alpha is not None:
        notes.append(f"Krippendorff's alpha of all annotators: {agreement.alpha:.2f}.")
    if any(pair.n and pair.kappa is None for pair in agreement.pairs):
        notes.append("Kappa is not defined if both annotators give all texts one label.")
    if agreement.labelled_once:
        notes.append(
            f"{agreement.labelled_once:,} of {agreement.texts:,} texts were labelled by one "
            "annotator only; they do not count for the agreement."
        )
    return notes


def annotation_sentence(agreement: AnnotatorAgreement) -> str:
    """Return the agreement behind counted labels, with the shares of toxic labels, in one
    sentence."""
    pairs = [pair for pair in agreement.pairs if pair.n]
    counts, equal, kappas, toxic = (
        " / ".join(cells) or MISSING_CELL
        for cells in (
            [f"{pair.n:,}" for pair in pairs],
            [percent(pair.agreement) for pair in pairs],
            [_kappa(pair) for pair in pairs],
            [f"{percent(pair.toxic_first)} and {percent(pair.toxic_second)}" for pair in pairs],
        )
    )
    alpha = "" if agreement.alpha is None else f", Krippendorff's alpha {agreement.alpha:.2f}"
    return (
        f"Labels of {len(agreement.annotators)} annotators: equal on {equal} of {counts} texts, "
        f"Cohen's kappa {kappas}{alpha}, toxic by {toxic}; {agreement.disagreements:,} "
        f"{plural(agreement.disagreements, 'disagreement')} adjudicated, "
        f"{agreement.labelled_once:,} {plural(agreement.labelled_once, 'text')} labelled by one "
        "annotator only."
    )


def _kappa(row: AnnotatorPairRow) -> str:
    if row.kappa is None:
        return "not defined"
    return f"{row.kappa:.2f} {_interval(row)}"


def _number(value: float | None) -> str:
    return MISSING_CELL if value is None else f"{value:.2f}"


def _interval(row: AnnotatorPairRow) -> str:
    if row.kappa_lo is None or row.kappa_hi is None:
        return MISSING_CELL
    return f"[{row.kappa_lo:.2f}, {row.kappa_hi:.2f}]"

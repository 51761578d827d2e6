"""Agreement of the annotators of a label sheet, and the merged sheet for adjudication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from toxtrail.datasets.label_files import (
    ANNOTATOR,
    WORDS,
    AnnotatorLabels,
    Row,
    annotator_names,
    counted_annotator_labels,
    is_disagreement,
)
from toxtrail.records.results import AnnotatorAgreement, AnnotatorPairRow
from toxtrail.stats.annotator_agreement import cohen_kappa, krippendorff_alpha


def annotator_agreement(
    names: Sequence[str], texts: Sequence[AnnotatorLabels], level: float
) -> AnnotatorAgreement | None:
    """Return how the annotators agree, in pairs and all together; None for fewer than two.

    Args:
        names: of the annotators.
        texts: for each text its label by each annotator.
        level: mass of the intervals.
    """
    if len(names) < 2:
        return None
    by_text = [[label for label in labels if label is not None] for labels in texts]
    return AnnotatorAgreement(
        annotators=list(names),
        texts=sum(bool(labels) for labels in by_text),
        labelled_once=sum(len(labels) == 1 for labels in by_text),
        disagreements=sum(map(is_disagreement, texts)),
        alpha=krippendorff_alpha(by_text) if len(names) > 2 else None,
        pairs=[
            _pair(names[i], names[j], [(labels[i], labels[j]) for labels in texts], level)
            for i, j in combinations(range(len(names)), 2)
        ],
    )


def counted_agreement(path: Path, rows: Sequence[Row], level: float) -> AnnotatorAgreement | None:
    """Return the agreement behind a file of counted labels; None if it is not recorded."""
    return annotator_agreement(annotator_names(rows), counted_annotator_labels(path, rows), level)


def _pair(
    first: str, second: str, texts: Sequence[AnnotatorLabels], level: float
) -> AnnotatorPairRow:
    both_toxic, only_first, only_second, both_harmless = (
        texts.count(labels)
        for labels in ((True, True), (True, False), (False, True), (False, False))
    )
    n = both_toxic + only_first + only_second + both_harmless
    kappa = (
        cohen_kappa([[both_toxic, only_first], [only_second, both_harmless]], level) if n else None
    )
    return AnnotatorPairRow(
        first=first,
        second=second,
        n=n,
        both_toxic=both_toxic,
        only_first_toxic=only_first,
        only_second_toxic=only_second,
        both_harmless=both_harmless,
        agreement=(both_toxic + both_harmless) / n if n else None,
        toxic_first=(both_toxic + only_first) / n if n else None,
        toxic_second=(both_toxic + only_second) / n if n else None,
        kappa=kappa.value if kappa else None,
        kappa_lo=kappa.lo if kappa else None,
        kappa_hi=kappa.hi if kappa else None,
    )


def merged_sheet(
    names: Sequence[str], texts: Mapping[str, str], labels: Mapping[str, AnnotatorLabels]
) -> list[dict[str, str]]:
    """Return one sheet with each annotator's labels: rows on which they disagree first, with
    `toxic` left empty.

    Args:
        names: of the annotators.
        texts: row id -> text, in the order of the sheet.
        labels: row id -> its label by each annotator.
    """
    rows = []
    for row_id in sorted(texts, key=lambda row_id: not is_disagreement(labels[row_id])):
        words = [WORDS[label] for label in labels[row_id]]
        by_annotator = dict(zip((f"{ANNOTATOR}{name}" for name in names), words, strict=True))
        agreed = next(filter(None, words), "") if not is_disagreement(labels[row_id]) else ""
        rows.append({"id": row_id, "text": texts[row_id], **by_annotator, "toxic": agreed})
    return rows

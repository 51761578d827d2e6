"""The variants of a family that are compared, and whether they are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from toxtrail.analysis.score_table import ScoreTable, build_score_table
from toxtrail.errors import DataError
from toxtrail.provenance.comparability import ConditionMismatch, mismatches, require_comparable
from toxtrail.provenance.identity import InputFile
from toxtrail.records.results import VariantSummary

MISMATCH_CURE = (
    "Run `dvc repro` to bring all of them up to date. To compare them anyway, set "
    "allow_mismatch: true under the family in params.yaml; tables, report and MLflow run then show "
    "a warning."
)


class VariantPair(NamedTuple):
    """One comparison: b against a."""

    a: str
    b: str
    relation: str
    """`parent` or `reference`: what a is to b (`parent` if it is both)."""


class FamilyInputs(NamedTuple):
    """The inputs of a family's stages."""

    tables: Mapping[str, ScoreTable]
    """Variant -> its cells."""
    summaries: Mapping[str, VariantSummary]
    """Variant -> its posterior summary, in the family's order."""
    inputs: Mapping[str, InputFile]
    """Variant -> the file of its summary."""


def build_family(
    tables: Mapping[str, pa.Table],
    summaries: Mapping[str, VariantSummary],
    inputs: Mapping[str, InputFile],
    scores: Mapping[str, InputFile],
) -> FamilyInputs:
    """Build the tables of a family.

    Args:
        tables: variant -> score rows, with COLUMNS.
        summaries: variant -> summary of its rates.
        inputs: variant -> the file of that summary.
        scores: variant -> the file of the score rows.

    Raises:
        DataError: a summary was computed from other scores.
    """
    for variant, summary in inputs.items():
        _refuse_stale(scores[variant], summary)
    return FamilyInputs(
        {v: build_score_table(rows) for v, rows in tables.items()}, summaries, inputs
    )


def require_comparable_family(
    tables: Mapping[str, ScoreTable],
    summaries: Mapping[str, VariantSummary],
    reference: str,
    allow_mismatch: bool,
) -> tuple[Mapping[str, ScoreTable], list[ConditionMismatch]]:
    """Return the cells to compare, and the conditions that differ.

    Raises:
        DataError: conditions differ (field by field) and that is not allowed.
    """
    unlike = mismatch(summaries, reference)
    if not allow_mismatch:
        require_comparable(unlike, reference, MISMATCH_CURE)
    return (restrict_to_common_prompts(tables) if unlike else tables), unlike


def variant_pairs(parents: Mapping[str, str | None], reference: str) -> list[VariantPair]:
    """Pair each variant with its parent and with the family's reference; the reference and its
    parent form one pair, not two.

    Args:
        parents: variant -> its parent.
    """
    edge_by_pair: dict[tuple[str, str], VariantPair] = {}
    for key, parent in parents.items():
        if parent is not None:
            edge_by_pair[parent, key] = VariantPair(parent, key, "parent")
        if key != reference:
            edge_by_pair.setdefault((reference, key), VariantPair(reference, key, "reference"))
    return [edge for edge in edge_by_pair.values() if not _mirrors(edge, edge_by_pair)]


def _mirrors(edge: VariantPair, others: Mapping[tuple[str, str], VariantPair]) -> bool:
    return edge.relation == "reference" and (edge.b, edge.a) in others


def mismatch(summaries: Mapping[str, VariantSummary], reference: str) -> list[ConditionMismatch]:
    """Return every condition that a variant does not share with the family's reference."""
    fields = {v: s.comparability.fields if s.comparability else {} for v, s in summaries.items()}
    return [
        d
        for v, variant_fields in fields.items()
        for d in mismatches(v, variant_fields, fields[reference])
    ]


def restrict_to_common_prompts(tables: Mapping[str, ScoreTable]) -> dict[str, ScoreTable]:
    """Keep only the scorers, subsets and prompts that all variants have.

    Raises:
        DataError: they have none in common.
    """
    keys = set.intersection(*(set(table) for table in tables.values()))
    prompt_ids = {
        key: frozenset.intersection(*(t[key].prompt_ids for t in tables.values())) for key in keys
    }
    shared = sorted(key for key in keys if prompt_ids[key])
    if not shared:
        raise DataError("The variants have no prompt and scorer in common: nothing to compare.")
    return {
        v: {key: t[key].restrict_to(prompt_ids[key]) for key in shared} for v, t in tables.items()
    }


def _refuse_stale(scores: InputFile, summary: InputFile) -> None:
    recorded = summary.manifest.inputs["scores"].sha256 if summary.manifest else None
    if recorded != scores.sha256:
        raise DataError(
            f"{summary.path} was computed from other scores than {scores.path} contains now. "
            "Run `dvc repro` to bring both up to date."
        )

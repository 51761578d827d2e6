"""A family: which variants are compared, and whether they are comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from toxtrail.analysis.score_table import Cells, cells
from toxtrail.errors import DataError
from toxtrail.provenance.comparability import Difference, differences, refuse_mismatch
from toxtrail.provenance.identity import Input

STALE = (
    "Run `dvc repro` to bring all of them up to date. To compare them anyway, set "
    "allow_mismatch: true under the family in params.yaml; tables, report and MLflow run then show "
    "a warning."
)


class Edge(NamedTuple):
    """One comparison: b against a."""

    a: str
    b: str
    relation: str
    """`parent` or `reference`: what a is to b (`parent` if it is both)."""


class Members(NamedTuple):
    """The inputs of a family's stages."""

    tables: Mapping[str, Cells]
    """Variant -> its cells."""
    summaries: Mapping[str, Mapping[str, Any]]
    """Variant -> its posterior summary, in the family's order."""
    inputs: Mapping[str, Input]
    """Variant -> the file of its summary."""


def members(
    tables: Mapping[str, pa.Table],
    summaries: Mapping[str, Mapping[str, Any]],
    inputs: Mapping[str, Input],
    scores: Mapping[str, Input],
) -> Members:
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
    return Members({v: cells(rows) for v, rows in tables.items()}, summaries, inputs)


def comparable(
    tables: Mapping[str, Cells],
    summaries: Mapping[str, Mapping[str, Any]],
    reference: str,
    allow_mismatch: bool,
) -> tuple[Mapping[str, Cells], list[Difference]]:
    """Return the cells to compare, and the conditions that differ.

    Raises:
        DataError: conditions differ (field by field) and that is not allowed.
    """
    unlike = mismatch(summaries, reference)
    if not allow_mismatch:
        refuse_mismatch(unlike, reference, STALE)
    return (in_common(tables) if unlike else tables), unlike


def edges(variants: Sequence[Mapping[str, Any]], reference: str) -> list[Edge]:
    """Pair each variant with its parent and with the family's reference; the reference and its
    parent form one pair, not two."""
    edge_by_pair: dict[tuple[str, str], Edge] = {}
    for variant in variants:
        key, parent = variant["variant"], variant["parent"]
        if parent is not None:
            edge_by_pair[parent, key] = Edge(parent, key, "parent")
        if key != reference:
            edge_by_pair.setdefault((reference, key), Edge(reference, key, "reference"))
    return [edge for edge in edge_by_pair.values() if not _mirrors(edge, edge_by_pair)]


def _mirrors(edge: Edge, others: Mapping[tuple[str, str], Edge]) -> bool:
    return edge.relation == "reference" and (edge.b, edge.a) in others


def mismatch(summaries: Mapping[str, Mapping[str, Any]], reference: str) -> list[Difference]:
    """Return every condition that a variant does not share with the family's reference."""
    fields = {v: s.get("comparability", {}).get("fields", {}) for v, s in summaries.items()}
    return [
        d
        for v, variant_fields in fields.items()
        for d in differences(v, variant_fields, fields[reference])
    ]


def in_common(tables: Mapping[str, Cells]) -> dict[str, Cells]:
    """Keep only the scorers, subsets and prompts that all variants have.

    Raises:
        DataError: they have none in common.
    """
    keys = set.intersection(*(set(table) for table in tables.values()))
    prompt_ids = {
        key: frozenset.intersection(*(t[key].asked_prompts for t in tables.values()))
        for key in keys
    }
    shared = sorted(key for key in keys if prompt_ids[key])
    if not shared:
        raise DataError("The variants have no prompt and scorer in common: nothing to compare.")
    return {
        v: {key: t[key].limited_to(prompt_ids[key]) for key in shared} for v, t in tables.items()
    }


def _refuse_stale(scores: Input, summary: Input) -> None:
    recorded = summary.manifest.inputs["scores"].sha256 if summary.manifest else None
    if recorded != scores.sha256:
        raise DataError(
            f"{summary.path} was computed from other scores than {scores.path} contains now. "
            "Run `dvc repro` to bring both up to date."
        )

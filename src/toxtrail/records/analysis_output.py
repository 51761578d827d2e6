"""Output of a statistics stage: numbers, draws and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from toxtrail.errors import DataError, OtherVersionError
from toxtrail.records.columns import from_json
from toxtrail.records.figure import RenderedFigure
from toxtrail.records.results import ComparisonSummary, PoolSummary, VariantSummary

if TYPE_CHECKING:
    import xarray


Summary = TypeVar("Summary", VariantSummary, PoolSummary, ComparisonSummary)


class AnalysisOutput(NamedTuple, Generic[Summary]):
    """Output of a statistics stage: numbers in JSON, draws for ArviZ."""

    summary: Summary
    """Without its manifest, which the writer adds."""
    draws: xarray.Dataset
    """Dimensions chain, draw, then named ones."""
    groups: Mapping[str, xarray.Dataset]
    """ArviZ's other groups: prior, posterior_predictive, observed_data, ..."""
    figures: Mapping[str, RenderedFigure]
    """File name without suffix -> figure."""


SUMMARY_SCHEMAS = {"posterior": 7, "pool": 5, "comparison": 9}
"""Kind of a summary.json -> its schema; other schemas are rejected."""
SUMMARY_KINDS: Mapping[type, str] = {
    VariantSummary: "posterior",
    PoolSummary: "pool",
    ComparisonSummary: "comparison",
}


def parse_summary(summary_class: type[Summary], values: Mapping[str, Any], name: str) -> Summary:
    """Return the contents of a summary.json.

    Args:
        name: of the file, for messages.

    Raises:
        DataError: it has another schema than this version reads, or its fields are damaged.
    """
    refuse_other_schema(values, SUMMARY_KINDS[summary_class], name)
    try:
        return from_json(summary_class, values)
    except (DataError, AttributeError, TypeError) as error:
        raise DataError(
            f"{name} is damaged: {error} Run `dvc repro` to compute it again."
        ) from None


def refuse_other_schema(summary: Mapping[str, Any], kind: str, name: str) -> None:
    """Raise OtherVersionError if a summary of this kind has a schema that this version does not
    read."""
    version, expected = summary.get("schema_version"), SUMMARY_SCHEMAS[kind]
    if version != expected:
        raise OtherVersionError(
            f"{name} was created by another version of toxtrail (schema {version}; this one reads "
            f"{expected}). Run `dvc repro` to compute it again."
        )

"""What a statistics stage writes: numbers, draws and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.errors import DataError
from toxtrail.records.figure import RenderedFigure

if TYPE_CHECKING:
    import xarray


class AnalysisOutput(NamedTuple):
    """What a statistics stage writes: numbers for people and programs, draws for ArviZ."""

    summary: dict[str, Any]
    """JSON values; its manifest is added by the writer."""
    draws: xarray.Dataset
    """Dimensions chain, draw, then named ones."""
    groups: Mapping[str, xarray.Dataset]
    """ArviZ's other groups: prior, posterior_predictive, observed_data, ..."""
    figures: Mapping[str, RenderedFigure]
    """File name without its ending -> figure."""


SUMMARY_SCHEMAS = {"posterior": 4, "pool": 3, "comparison": 6}
"""Kind of a summary.json -> its schema; a reader refuses another one."""


def refuse_other_schema(summary: Mapping[str, Any], kind: str, name: str) -> None:
    """DataError: a summary of this kind has another schema than this version reads."""
    version, expected = summary.get("schema_version"), SUMMARY_SCHEMAS[kind]
    if version != expected:
        raise DataError(
            f"{name} was made by another version of toxtrail (schema {version}; this one reads "
            f"{expected}). Run `dvc repro` to make it again."
        )

"""A new column of the pair table is a field of the row class and the function that computes it."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import Annotated

import measured_families
import pyarrow.parquet as pq
import pytest

from toxtrail.analysis import comparison, paired_rows
from toxtrail.analysis.comparison import comparison_tables, with_pooled
from toxtrail.cli._compare_output import ComparisonOptions, LoadedComparison, print_comparisons
from toxtrail.pipeline import manifest_of
from toxtrail.records import columns, results
from toxtrail.records.columns import columns_of, doc_lines
from toxtrail.records.results import ComparisonSummary, PairRow
from toxtrail.storage.artifacts import ArtifactStore


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderRow(PairRow):
    n_discordant: Annotated[int | None, "prompts toxic for exactly one of the two"] = None


@pytest.fixture
def wider(monkeypatch):
    """The recipe: a field, and the function that computes it."""
    monkeypatch.setattr(results, "PairRow", WiderRow)
    monkeypatch.setattr(paired_rows, "PairRow", WiderRow)
    monkeypatch.setitem(results.TABLES, "pairs", WiderRow)
    compute = paired_rows._with_difference

    def with_discordant(row, *arguments):
        return replace(compute(row, *arguments), n_discordant=row.n10 + row.n01)

    monkeypatch.setattr(paired_rows, "_with_difference", with_discordant)
    monkeypatch.setattr(measured_families, "compare_family", comparison.compare_family)
    columns._fields.cache_clear()
    yield
    columns._fields.cache_clear()


def test_a_column_reaches_every_file_and_page(
    wider, score_rows, measured, settings, tmp_path, capsys
):
    values = {"base": [0.1] * 6 + [0.9] * 2, "tuned": [0.9] * 5 + [0.1] * 3}
    rows = {name: score_rows({"a": scores}) for name, scores in values.items()}
    family = measured(rows, {"base": None, "tuned": "base"})
    output = with_pooled(family.compared(settings), None)
    store, folder = ArtifactStore(tmp_path), tmp_path / "c"
    manifest = manifest_of("compare", "f", {}, {}, {})
    store.write_analysis(folder, output, manifest, comparison_tables(output.summary))
    assert pq.read_table(folder / "pairs.parquet")["n_discordant"].to_pylist() == [7, 7]
    with (folder / "pairs.csv").open(newline="") as file:
        assert [row["n_discordant"] for row in csv.DictReader(file)] == ["7", "7"]
    summary = store.read_results(ComparisonSummary, folder)
    assert [row.n_discordant for row in summary.pairs] == [7, 7]
    item = LoadedComparison(summary, "c")
    print_comparisons([item], ComparisonOptions(None, None), "csv", None, hdi=False)
    printed = csv.DictReader(capsys.readouterr().out.splitlines())
    assert [row["n_discordant"] for row in printed] == ["7", "7"]
    line = "| `n_discordant` | prompts toxic for exactly one of the two |"
    assert line in doc_lines(columns_of(results.TABLES["pairs"]))

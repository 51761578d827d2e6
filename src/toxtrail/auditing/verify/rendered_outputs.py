"""Rendered outputs recomputed from the numbers: tables, `dvc metrics`, `dvc plots`, the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from toxtrail.analysis.comparison import comparison_tables
from toxtrail.auditing.verify.context import (
    DAMAGE_ERRORS,
    Check,
    VerifyContext,
    catch_damage,
    checks_of,
    runs_of_stage,
    unread_only,
    weak,
)
from toxtrail.pipeline import StageRun, code_sha256
from toxtrail.records.columns import ResultTable, to_arrow
from toxtrail.records.csv_text import rows_to_csv
from toxtrail.records.results import ComparisonSummary
from toxtrail.regular_files import read_text, refuse_irregular
from toxtrail.reporting.dvc_metrics import dvc_metrics, dvc_plot_rows
from toxtrail.stages.report import page_of
from toxtrail.storage.artifacts import pretty_json


def verify_shown(evidence: VerifyContext, scope: Sequence[StageRun]) -> Iterator[Check]:
    """Recompute each rendered output from its inputs, and require equal bytes."""
    for instance in runs_of_stage(scope, "compare"):
        comparison_checks = _comparison(evidence, instance.key or "")
        yield from catch_damage(
            "comparisons", f"rendered outputs of {instance.key}", comparison_checks
        )
    for _ in runs_of_stage(scope, "report"):
        yield from catch_damage("report", evidence.store.report_path.name, _report(evidence))


def _comparison(evidence: VerifyContext, family: str) -> Iterator[Check]:
    store = evidence.store
    folder = store.comparison_dir(family)
    if not (folder / "summary.json").is_file():
        return
    try:
        summary = store.read_results(ComparisonSummary, folder)
        tables = comparison_tables(summary)
        texts = {
            store.metrics_path(family): pretty_json(dvc_metrics(summary)),
            store.plots_path(family): rows_to_csv(dvc_plot_rows(summary)),
            **{
                folder / f"{name}.csv": rows_to_csv(table.rows, table.names)
                for name, table in tables.items()
            },
        }
        made_by = (summary.manifest or {}).get("code_sha256")
    except DAMAGE_ERRORS as error:  # verify_numbers says what is wrong with the summary
        yield from unread_only("comparisons", f"rendered outputs of {family}", error)
        return
    is_todays = made_by == code_sha256("compare")
    for path, text in texts.items():
        yield from _checks_of_content(
            evidence, "comparisons", path, _unlike_text(path, text), is_todays
        )
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        yield from _checks_of_content(
            evidence, "comparisons", path, _unlike_table(path, table), is_todays
        )


def _report(evidence: VerifyContext) -> Iterator[Check]:
    store, families = evidence.store, list(evidence.config.families)
    if not all((store.comparison_dir(f) / "summary.json").is_file() for f in families):
        return
    try:
        expected = page_of(store, families)
        manifest = evidence.manifest(store.report_path) if store.report_path.is_file() else None
    except (
        DAMAGE_ERRORS
    ) as error:  # verify_outputs and verify_manifests say what is missing or damaged
        yield from unread_only("report", f"{store.report_path.name} (content)", error)
        return
    is_todays = manifest is None or manifest.code_sha256 == code_sha256("report")
    problem = _unlike_text(store.report_path, expected)
    yield from _checks_of_content(evidence, "report", store.report_path, problem, is_todays)


def _unlike_text(path: Path, expected: str) -> str | None:
    """Return how a file differs from its expected text; None if it is equal or does not exist."""
    if not path.is_file():
        return None
    actual = read_text(path, "replace")
    if actual == expected:
        return None
    lines = zip(actual.split("\n"), expected.split("\n"), strict=False)
    numbers = (number for number, (left, right) in enumerate(lines, start=1) if left != right)
    return f"line {next(numbers, 'at its end')} differs from the text recomputed from its inputs"


def _unlike_table(path: Path, expected: ResultTable) -> str | None:
    refuse_irregular(path)
    if not path.is_file():
        return None
    table = pq.read_table(path).replace_schema_metadata(None)
    if table.equals(to_arrow(expected)):
        return None
    return "its rows are not those of summary.json"


def _checks_of_content(
    evidence: VerifyContext, link: str, path: Path, problem: str | None, is_todays: bool
) -> Iterator[Check]:
    if not path.is_file():
        return
    name = f"{path.relative_to(evidence.root).as_posix()} (content)"
    if problem and not is_todays:
        yield weak(link, name, f"other code than today's made it, and {problem}")
    else:
        yield from checks_of(link, name, [problem] if problem else [])

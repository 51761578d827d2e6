"""`toxtrail diff`: show the differences between two results."""

from __future__ import annotations

import re
from typing import Any

import click

from toxtrail import results
from toxtrail.cli._options import project_options
from toxtrail.cli._output import (
    OutputFormat,
    format_options,
    print_csv,
    print_json,
    print_tables,
)
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, text_columns
from toxtrail.text_escaping import truncate_text

ROOM = 70
"""Maximum characters of a value in the table; --json and --csv have all."""
DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{24}(?:[0-9a-f]{24})?\b")
"""A commit or SHA-256."""


@click.command("diff", short_help="Show the differences between two runs or variants.")
@click.argument("name_a", metavar="A")
@click.argument("name_b", metavar="B")
@click.option(
    "--mlflow", "from_mlflow", is_flag=True, help="Read from MLflow even if local files exist."
)
@project_options
@format_options("json", "csv", "md")
@click.pass_obj
def diff(
    experiment: Experiment, name_a: str, name_b: str, from_mlflow: bool, form: OutputFormat | None
) -> None:
    """Show the differences between A and B: params, data, weights, code, environment, numbers.

    A and B are variants of this experiment, or MLflow runs (id, name or content key) of variants or
    of comparisons, from any experiment.

    \b
    Examples:
      toxtrail diff smollm2-benign smollm2-rude
      toxtrail diff 4fb4c821 1e94f589          the same variant, before and after?
      toxtrail diff smollm2-rude 4fb4c821      local results v a run
      toxtrail diff smollm2-benign smollm2-rude --json
    """
    from toxtrail.auditing.lineage.result_diff import diff_results, unchanged_sections

    (a, record_a, label_a), (b, record_b, label_b) = (
        _is_local(experiment, name, from_mlflow) for name in (name_a, name_b)
    )
    if a["kind"] != b["kind"]:
        kinds = {"posterior": "variant"}
        kind_a, kind_b = (kinds.get(s["kind"], s["kind"]) for s in (a, b))
        raise ConfigError(f"{name_a} is a {kind_a}, {name_b} a {kind_b}: give two of one kind.")
    differences = diff_results(a, b, record_a, record_b)
    if form == "json":
        rows_json = [item._asdict() for item in differences]
        print_json({"a": label_a, "b": label_b, "differences": rows_json})
        return
    if form == "csv":
        print_csv([item._asdict() for item in differences])
        return
    rows = [(*item[:2], *(_shortened(value) for value in (item.a, item.b))) for item in differences]
    same = unchanged_sections(differences)
    notes = [f"The same in both: {', '.join(same)}."] if same else []
    if not differences:
        notes = [f"{label_a} and {label_b} do not differ in anything that is recorded."]
    columns = (*text_columns("what", priority=1), *text_columns("field", label_a, label_b))
    tables = [Table(None, columns, rows)] if rows else []
    print_tables(form or "text", tables, notes)


def _shortened(value: str) -> str:
    """Return a value for a table: of a hash the first digits."""
    return truncate_text(DIGEST.sub(r"\1", value), ROOM)


def _is_local(
    experiment: Experiment, name: str, from_mlflow: bool
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the summary, the record of its run (empty for files), and a label."""
    if results.has_files(experiment, name) and not from_mlflow:
        family = experiment.config.variants[name].family
        return experiment.store.read_summary(experiment.store.posterior_dir(family, name)), {}, name
    run = results.run_named(experiment, name)
    summary = results.read_run_summary(experiment, run)
    record = results.read_run_record(experiment, run)
    return summary, record, results.short_label(experiment, run)

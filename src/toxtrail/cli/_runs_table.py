"""MLflow runs as a list, a table of resources, or a lineage tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toxtrail.backends.mlflow.find_run import NO_PROJECT
from toxtrail.cli._output import OutputFormat, echo_tree, print_tables
from toxtrail.console import cell, echo, joined
from toxtrail.records.run_tags import (
    COMMIT_TAG,
    DIFFERENCE_TAG,
    FAMILY_TAG,
    KEY_TAG,
    KIND_TAG,
    ORIGIN_TAG,
    PARENT_TAG,
    PROJECT_TAG,
    ROLE_TAG,
    SCORER_TAG,
    VERDICT_TAG,
)
from toxtrail.reporting.mlflow_run import COST
from toxtrail.reporting.table import Table, number_columns, text_columns
from toxtrail.results import format_start, run_state, runs_by_family, runs_by_project
from toxtrail.text_escaping import escape_control_chars, truncate_text

if TYPE_CHECKING:
    from rich.tree import Tree

    from toxtrail.backends.protocols import TrackedRun
    from toxtrail.cli._runs_checks import CheckedRun

COLUMNS = (
    *text_columns("run id", "name"),
    *text_columns("kind", priority=5),
    *text_columns("family", priority=4),
    *text_columns("role", priority=3),
    *number_columns("rate, %", priority=1),
    *text_columns("content key", priority=6),
    *text_columns("state"),
    *text_columns("started", priority=2),
)
COST_COLUMNS = (
    *text_columns("run id", "name"),
    *number_columns("tuned, s", "generated, s"),
    *number_columns("tokens", priority=1),
    *number_columns("tokens/s", "scored, s"),
    *number_columns("peak, MiB", priority=2),
)
ROOM = 300
"""Maximum characters of a change in the terminal."""
STAGES = ("finetune", "generate", "score")


def show(
    rows: Sequence[CheckedRun], cost: bool, form: OutputFormat, several_projects: bool
) -> None:
    """Print a row for each run.

    Args:
        several_projects: add a column with the project.
    """
    runs = [row.run for row in rows]
    if several_projects:
        run_id, *others = COLUMNS
        columns = (run_id, *text_columns("project"), *others)
        cells = [
            (run_id, _project(row.run), *others)
            for row in rows
            for run_id, *others in [_cells(row)]
        ]
        tables = [Table(None, columns, cells)]
    else:
        tables = [Table(None, COLUMNS, [_cells(row) for row in rows])]
    notes = []
    odd = [run for run in runs if run_state(run) != "sealed"]
    if odd:
        notes.append(
            f"{len(odd)} of {len(runs)} are not sealed runs of this version; comparisons omit "
            "them. `dvc repro` creates unfinished runs again."
        )
    weak = [f"{run.name} ({run.tags[ORIGIN_TAG]})" for run in runs if ORIGIN_TAG in run.tags]
    if weak:
        notes.append(
            f"{len(weak)} of {len(runs)} are weak, as their texts were not generated here from "
            f"verified weights: {', '.join(weak)}."
        )
    if cost:
        measured = [run for run in runs if run.tags.get(KIND_TAG) == "variant"]
        tables = [Table("Resources", COST_COLUMNS, [_cost_cells(run) for run in measured])]
        notes.append(f"Together {_hours(sum(_seconds(run) for run in measured))}.")
    print_tables(form, tables, notes)


def warn(rows: Sequence[CheckedRun]) -> None:
    """Warn about changes in MLflow, and runs that could not be checked."""
    for row in rows:
        for problem in row.problems if row.check == "changed" else ():
            shortened = escape_control_chars(truncate_text(problem, ROOM))
            text = f"CHANGED: {row.run.name} ({row.run.run_id[:8]}): {shortened}"
            echo(text, fg="red", err=True)
    left = [row for row in rows if row.check == "not checked"]
    if left:
        text = (
            f"{len(left)} of {len(rows)} runs are shown by MLflow's own values, not checked "
            f"against their files: {escape_control_chars(left[0].problems[0])}"
        )
        echo(text, fg="yellow", err=True)


def as_json(rows: Sequence[CheckedRun]) -> list[dict[str, Any]]:
    """Return every run with all its values and the result of its check."""
    return [
        {**row.run._asdict(), "check": row.check, "problems": list(row.problems)} for row in rows
    ]


def run_rows(rows: Sequence[CheckedRun]) -> list[dict[str, Any]]:
    """Return a row for each run: its identity, primary rate and resources."""
    return [
        {
            "run_id": run.run_id,
            "project": run.tags.get(PROJECT_TAG),
            "name": run.name,
            "kind": run.tags.get(KIND_TAG),
            "family": run.tags.get(FAMILY_TAG),
            "role": run.tags.get(ROLE_TAG),
            "parent": run.tags.get(PARENT_TAG),
            "state": run_state(run),
            "check": check,
            "started": format_start(run),
            "content_key": run.tags.get(KEY_TAG),
            "git_commit": run.tags.get(COMMIT_TAG),
            "primary": run.tags.get(SCORER_TAG),
            "origin": run.tags.get(ORIGIN_TAG),
            "rate": _rate(run),
            **{
                f"cost_{name.removeprefix(COST)}": value
                for name, value in sorted(run.metrics.items())
                if name.startswith(COST)
            },
        }
        for run, check, _ in rows
    ]


def print_tree(rows: Sequence[CheckedRun], several_projects: bool) -> None:
    """Print families, their variants below their parents, and the comparison.

    Args:
        several_projects: name the project of each family.
    """
    for runs in runs_by_project([row.run for row in rows]).values():
        _print_project(runs, several_projects)


def _print_project(runs: Sequence[TrackedRun], with_name: bool) -> None:
    from rich.tree import Tree

    variants = [run for run in runs if run.tags.get(KIND_TAG) == "variant"]
    comparisons = {
        run.tags.get(FAMILY_TAG): run for run in runs if run.tags.get(KIND_TAG) == "comparison"
    }
    for family, family_runs in runs_by_family(variants).items():
        title = f"{family} ({_project(family_runs[0])})" if with_name else family
        tree = Tree(cell(title), guide_style="dim")
        _grow(tree, family_runs)
        if family in comparisons:
            tree.add(_node(comparisons[family]))
        echo_tree(tree)


def _grow(tree: Tree, runs: Sequence[TrackedRun]) -> None:
    """Add the runs to the tree; a parent comes before its children."""
    places: dict[str, Tree] = {}
    for run in runs:
        above = places.get(run.tags.get(PARENT_TAG, ""), tree)
        places[run.name] = above.add(_node(run))


def _node(run: TrackedRun) -> Any:
    rate = _rate(run)
    facts = [
        f"{run.tags.get(ROLE_TAG, 'comparison')}, {run.run_id[:8]}",
        *([f"{100 * rate:.1f} %"] if rate is not None else []),
        *(run.tags[tag] for tag in (VERDICT_TAG, DIFFERENCE_TAG) if tag in run.tags),
        *([_state(run)] if _state(run) != "sealed" else []),
    ]
    return joined(cell(run.name, "bold"), cell(f"  {'; '.join(facts)}"))


def _cells(row: CheckedRun) -> tuple[str, ...]:
    run, tags, rate = row.run, row.run.tags, _rate(row.run)
    return (
        run.run_id[:8],
        run.name,
        tags.get(KIND_TAG, "-"),
        tags.get(FAMILY_TAG, "-"),
        tags.get(ROLE_TAG, "-"),
        "-" if rate is None else f"{100 * rate:.1f}",
        tags.get(KEY_TAG, "-")[:8],
        "CHANGED" if row.check == "changed" else _state(run),
        format_start(run),
    )


def _project(run: TrackedRun) -> str:
    return run.tags.get(PROJECT_TAG, NO_PROJECT)


def _state(run: TrackedRun) -> str:
    """Return the state of a run, with a mark if its texts were not generated from weights."""
    return f"{run_state(run)}, weak" if ORIGIN_TAG in run.tags else run_state(run)


def _cost_cells(run: TrackedRun) -> tuple[str, ...]:
    def value(name: str) -> float | None:
        return run.metrics.get(f"{COST}{name}")

    tokens, seconds = value("generate_tokens"), value("generate_seconds")
    speed = tokens / seconds if tokens and seconds else None
    peak = [
        mebibytes
        for stage in STAGES
        if (mebibytes := value(f"{stage}_peak_memory_mib")) is not None
    ]
    return (
        run.run_id[:8],
        run.name,
        *map(
            _number,
            (
                value("finetune_seconds"),
                seconds,
                tokens,
                speed,
                value("score_seconds"),
                max(peak, default=None),
            ),
        ),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _seconds(run: TrackedRun) -> float:
    return sum(run.metrics.get(f"{COST}{stage}_seconds", 0.0) for stage in STAGES)


def _hours(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} hours" if hours >= 1 else f"{minutes:.1f} minutes"


def _rate(run: TrackedRun) -> float | None:
    """Return the primary scorer's rate over all subsets, a share."""
    percent = run.metrics.get(f"{run.tags.get(SCORER_TAG, '')}/all/rate_pct")
    return None if percent is None else percent / 100

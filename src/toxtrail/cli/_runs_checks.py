"""Check the values of MLflow runs against their sealed files before they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toxtrail.errors import ToxtrailError
from toxtrail.execution.factories import make_tracker
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import KIND_TAG

if TYPE_CHECKING:
    from toxtrail.backends.protocols import TrackedRun

WORKERS = 8
"""Runs to check concurrently; each needs a few small requests."""


class CheckedRun(NamedTuple):
    """Run with its sealed values, as far as they are known."""

    run: TrackedRun
    check: Literal["ok", "changed", "not checked", "not sealed"]
    problems: tuple[str, ...]
    """Changes, or the reason why the check failed."""


def unchecked(runs: Sequence[TrackedRun], why: str) -> list[CheckedRun]:
    """Return the runs as MLflow shows them."""
    return [CheckedRun(run, "not checked", (why,)) for run in runs]


def checked(experiment: Experiment, runs: Sequence[TrackedRun]) -> list[CheckedRun]:
    """Check each run against its sealed file; skip the rest if the first cannot be read."""
    if not runs:
        return []
    first = _checked(experiment, runs[0])
    if first.check == "not checked":
        return [first, *unchecked(runs[1:], first.problems[0])]
    with ThreadPoolExecutor(WORKERS) as pool:
        return [first, *pool.map(lambda run: _checked(experiment, run), runs[1:])]


def _checked(experiment: Experiment, run: TrackedRun) -> CheckedRun:
    from toxtrail.auditing.verify.sealed_run import changes
    from toxtrail.backends.mlflow.write_run import RECORD
    from toxtrail.errors import BackendError, DataError, why_unread
    from toxtrail.records.run_tags import SEAL_TAG

    if SEAL_TAG not in run.tags:
        return CheckedRun(run._replace(metrics={}), "not sealed", ())
    try:
        record = make_tracker(experiment).files(run).json(RECORD)
        problems = tuple(changes(run, record))
    except (BackendError, OSError, MemoryError) as error:
        return CheckedRun(run, "not checked", (why_unread(error) or str(error),))
    except (DataError, LookupError, TypeError, AttributeError) as error:
        return CheckedRun(run._replace(metrics={}), "changed", (str(error),))
    return CheckedRun(_sealed(run, record), "changed" if problems else "ok", problems)


def _sealed(run: TrackedRun, record: Mapping[str, Any]) -> TrackedRun:
    curves = {name: max(points)[1] for name, points in record["curves"].items() if points}
    return run._replace(
        name=record["name"],
        tags={**run.tags, **record["tags"]},
        params=record["params"],
        metrics={**record["metrics"], **curves},
    )


def with_verdicts(experiment: Experiment, rows: Sequence[CheckedRun]) -> list[CheckedRun]:
    """Take the verdicts from the files of the comparisons that set them as tags; mark those whose
    comparison is not among the rows.
    """
    from toxtrail.records.run_tags import COMPARISON_TAG, KEY_TAG, VERDICT_TAG, VERDICT_TAGS
    from toxtrail.reporting.mlflow_page import verdict_tags
    from toxtrail.results import read_run_comparison

    notes: dict[str, dict[str, dict[str, str]]] = {}
    rows = list(rows)
    for number, row in enumerate(rows):
        if row.run.tags.get(KIND_TAG) == "comparison" and row.check in ("ok", "changed"):
            key = row.run.tags[KEY_TAG]
            try:
                notes[key] = verdict_tags(read_run_comparison(experiment, row.run), key)
            except ToxtrailError as error:
                rows[number] = row._replace(check="changed", problems=(*row.problems, str(error)))
    rows_with_verdicts = []
    for row in rows:
        tags = dict(row.run.tags)
        if VERDICT_TAG in tags:
            verdict = notes.get(tags.get(COMPARISON_TAG, ""), {}).get(tags.get(KEY_TAG, ""))
            if verdict is None:
                tags[VERDICT_TAG] += " (not checked)"
            else:
                tags = {n: t for n, t in tags.items() if n not in VERDICT_TAGS} | verdict
        rows_with_verdicts.append(row._replace(run=row.run._replace(tags=tags)))
    return rows_with_verdicts

"""`toxtrail verify`: check every file and number of an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._options import project_option
from toxtrail.cli._output import echo_labelled, json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.errors import ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from toxtrail.auditing.verify.context import Check

BROKEN_EXIT = 3

public_keys: Callable[[Any], Any] = click.option(
    "--public-key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Verify signatures with this public key (repeatable).",
)


@click.command("verify", short_help="Re-hash every file and recompute every number.")
@click.argument("references", nargs=-1, metavar="[RUN]...")
@click.option("--require-all", is_flag=True, help="Treat missing files as failures.")
@public_keys
@click.option("--verbose", "-v", is_flag=True, help="List every check.")
@project_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    references: tuple[str, ...],
    require_all: bool,
    keys: tuple[Path, ...],
    verbose: bool,
    as_json: bool,
) -> None:
    """Verify the complete experiment: one row for each category, and every failed check by name.

    Every file is hashed with SHA-256 (and DVC's MD5), regardless of its time stamps, DVC's state or
    MLflow's status; rows are counted and numbers recomputed. Exit code 3: a check failed, or a file
    could not be read.

    With RUN (id, name, content key or family), these MLflow runs are verified by their own files
    instead; outside an experiment's folder, with MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME,
    all runs of the MLflow experiment.

    \b
    Examples:
      toxtrail verify
      toxtrail verify 3f2a9c01          one MLflow run
      toxtrail verify --require-all     fail on missing files too
      toxtrail verify --public-key lab.pem.pub
      toxtrail verify --json | jq '.checks[] | select(.outcome == "BROKEN")'
    """
    from toxtrail.auditing.bundle.signing import public_key
    from toxtrail.auditing.verify.run import load_context
    from toxtrail.auditing.verify.run import verify as run_checks
    from toxtrail.execution.progress import progress

    experiment: Experiment = ctx.obj
    if references or not experiment.reads_own_results:
        if keys:
            raise ConfigError("--public-key: MLflow runs have no signatures.")
        checks = _run_checks(experiment, references)
        show(checks, as_json, verbose, require_all)
        ctx.exit(exit_code(checks, require_all))
    experiment.warn_of_replaced_experiment()
    evidence = load_context(experiment.store, experiment.config, progress())
    checks = run_checks(evidence, (), [public_key(path) for path in keys])
    show(checks, as_json, verbose, require_all)
    ctx.exit(exit_code(checks, require_all))


def _run_checks(experiment: Experiment, references: Sequence[str]) -> list[Check]:
    """Verify runs by their own files: the named ones, else all of the MLflow experiment."""
    from toxtrail.auditing.verify.load_runs import load_all_runs, load_run
    from toxtrail.auditing.verify.stored_runs import NOT_IN_RUNS, verify_stored_runs
    from toxtrail.execution.progress import progress

    if not references:
        runs = load_all_runs(experiment)
        return verify_stored_runs(runs, progress())
    checks: dict[Check, None] = {}
    for reference in references:
        loaded = load_run(experiment, reference, progress())
        checks |= dict.fromkeys(loaded.verifier.checks(loaded.run))
    return [*checks, NOT_IN_RUNS]


def exit_code(checks: Sequence[Check], require_all: bool) -> int:
    """Return 3 if a check failed or could not be read (or, with `require_all`, is missing)."""
    bad = {"BROKEN", "unread", *(("absent",) if require_all else ())}
    return BROKEN_EXIT if any(check.outcome in bad for check in checks) else 0


MAX_LINES = 12
"""Lines of weak or missing checks, without --verbose; failed and unread ones are always listed."""


def show(
    checks: Sequence[Check],
    as_json: bool,
    verbose: bool,
    require_all: bool,
    limit: int | None = MAX_LINES,
) -> None:
    """Print counts by category, then the checks to act on.

    Args:
        limit: on the lines of weak or missing checks; None for all.
    """
    from toxtrail.auditing.verify.run import tally

    if as_json:
        counts = [row._asdict() for row in tally(checks)]
        print_json({"links": counts, "checks": [check.to_json() for check in checks]})
        return
    counts_by_outcome = number_columns("as recorded", "broken", "unread", "not here", "weak")
    print_table(Table(None, [*text_columns("check"), *counts_by_outcome], tally(checks)))
    for outcome, colour in LISTED:
        listed = [c for c in checks if c.outcome == outcome]
        everything = verbose or outcome in ("BROKEN", "unread")
        _list(listed, outcome, colour, None if everything else limit)
    if verbose:
        _list([c for c in checks if c.outcome == "ok"], "ok", "green", None)
    echo(_sentence(checks, require_all))


LISTED = (("weak", "yellow"), ("absent", "yellow"), ("unread", "red"), ("BROKEN", "red"))
"""Outcome -> its colour, the most severe last."""


def _list(checks: Sequence[Check], outcome: str, colour: str, limit: int | None) -> None:
    visible_checks = checks[:limit]
    for check in visible_checks:
        detail = f": {check.detail}" if check.detail else ""
        echo_labelled(f"{outcome:7}", f"{check.link}: {check.name}{detail}", colour)
    if len(checks) > len(visible_checks):
        echo(f"{outcome:7} ... and {len(checks) - len(visible_checks)} more (--verbose lists them)")


def _sentence(checks: Sequence[Check], require_all: bool) -> str:
    counts, total = Counter(check.outcome for check in checks), len(checks)
    broken, unread, missing = counts["BROKEN"], counts["unread"], counts["absent"]
    if broken and unread:
        return f"{broken} of {total} checks failed, {unread} could not be read: listed above."
    if broken:
        return f"{broken} of {total} checks failed: listed above."
    if unread:
        return f"No check failed, but {unread} of {total} could not be read: listed above."
    if missing:
        how = "which counts as failed" if require_all else "so they were not checked"
        return f"No check failed; the files of {missing} of {total} are missing, {how}."
    return f"All {total} checks passed."

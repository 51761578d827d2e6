"""`toxtrail verify`: does everything still stand?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.console import echo
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.audit.verify.context import Check

BROKEN_EXIT = 3

public_keys: Callable[[Any], Any] = click.option(
    "--public-key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Hold signatures against this key (repeatable).",
)


@click.command("verify", short_help="Hash every byte again and compute every number again.")
@click.option("--require-all", is_flag=True, help="Treat missing files as failures.")
@public_keys
@click.option("--verbose", "-v", is_flag=True, help="Name everything that was looked at.")
@json_option
@click.pass_context
def verify(
    ctx: click.Context, require_all: bool, keys: tuple[Path, ...], verbose: bool, as_json: bool
) -> None:
    """Verify the whole experiment: one line for each class of link, and every broken link by name.

    Everything is hashed again with SHA-256 (and DVC's MD5), whatever time stamps, DVC's state or
    MLflow's status say; rows are counted and numbers computed again. Exit code 3: a link is broken,
    or could not be read.

    \b
    Examples:
      toxtrail verify
      toxtrail verify --require-all     on a machine where nothing may be missing
      toxtrail verify --public-key lab.pem.pub
      toxtrail verify --json | jq '.checks[] | select(.outcome == "BROKEN")'
    """
    from toxtrail.audit.bundle.signing import public_key
    from toxtrail.audit.verify.run import gather
    from toxtrail.audit.verify.run import verify as run_checks
    from toxtrail.execution.progress import progress

    experiment: Experiment = ctx.obj
    evidence = gather(experiment.store, experiment.config, progress())
    checks = run_checks(evidence, (), [public_key(path) for path in keys])
    show(checks, as_json, verbose, require_all)
    ctx.exit(exit_code(checks, require_all))


def exit_code(checks: Sequence[Check], require_all: bool) -> int:
    """3 if a link is broken or could not be read (or, with `require_all`, missing)."""
    bad = {"BROKEN", "unread", *(("absent",) if require_all else ())}
    return BROKEN_EXIT if any(check.outcome in bad for check in checks) else 0


def show(checks: Sequence[Check], as_json: bool, verbose: bool, require_all: bool) -> None:
    """Counts by class of link, then what a reader must know."""
    from toxtrail.audit.verify.run import tally

    if as_json:
        counts = [row._asdict() for row in tally(checks)]
        print_json({"links": counts, "checks": [check.to_json() for check in checks]})
        return
    columns = ["link", "as recorded>", "broken>", "unread>", "not here>", "weak>"]
    print_table(None, columns, [list(row) for row in tally(checks)])
    for outcome, colour in LISTED:
        _list([c for c in checks if c.outcome == outcome], outcome, colour, verbose)
    if verbose:
        _list([c for c in checks if c.outcome == "ok"], "ok", "green", True)
    echo(_sentence(checks, require_all))


LISTED = (("weak", "yellow"), ("absent", "yellow"), ("unread", "red"), ("BROKEN", "red"))
"""Outcome -> its colour, the gravest last, where it is seen."""
SHOWN = 12
"""Lines of what is weak or not here, unless all are asked for; what is broken or could not be read
is shown in full."""


def _list(checks: Sequence[Check], outcome: str, colour: str, verbose: bool) -> None:
    shown = checks if verbose or outcome in ("BROKEN", "unread") else checks[:SHOWN]
    for check in shown:
        detail = f": {check.detail}" if check.detail else ""
        echo(f"{outcome:7}", fg=colour, nl=False)
        echo(f" {check.link}: {check.name}{detail}")
    if len(checks) > len(shown):
        echo(f"{outcome:7} ... and {len(checks) - len(shown)} more (--verbose lists them)")


def _sentence(checks: Sequence[Check], require_all: bool) -> str:
    counts, total = Counter(check.outcome for check in checks), len(checks)
    broken, unread, missing = counts["BROKEN"], counts["unread"], counts["absent"]
    if broken and unread:
        return f"{broken} of {total} links are broken, {unread} could not be read: named above."
    if broken:
        return f"{broken} of {total} links are broken: named above."
    if unread:
        return f"No link is broken, but {unread} of {total} could not be read: named above."
    if missing:
        how = "that counts as broken here" if require_all else "nothing can be said of them"
        return f"No link is broken; {missing} of {total} are not here, {how}."
    return f"All {total} links stand."

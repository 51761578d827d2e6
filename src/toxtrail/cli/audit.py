"""`toxtrail audit`: show and verify the lineage of a result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from toxtrail.api.audit import (
    AuditResult,
    audit_bundle,
    audit_run_files,
    audit_subject,
    scene_of,
    source_of,
)
from toxtrail.cli._options import project_option
from toxtrail.cli._output import (
    echo_note,
    echo_tree,
    json_option,
    print_json,
    print_table,
    terminal_width,
)
from toxtrail.cli.verify import BROKEN_EXIT, MAX_LINES, exit_code, public_keys, show
from toxtrail.config.plugins import PLUGIN_BACKEND
from toxtrail.console import cell, echo, joined
from toxtrail.errors import BackendError, ConfigError
from toxtrail.experiment import Experiment
from toxtrail.reporting.table import Table, number_columns, text_columns

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from rich.tree import Tree

    from toxtrail.auditing.lineage.lineage import HashStatus, LineageNode
    from toxtrail.auditing.reproduce import Reproduction, ReproductionResult
    from toxtrail.backends.protocols import TrackedRun

WHOLE_DIGESTS = 120
"""Columns of a terminal in which a tree has room for complete SHA-256."""
SHA256 = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{48}\b")
COLOURS: dict[HashStatus, str] = {
    "matches": "green",
    "MISMATCH": "bold red",
    "unread": "red",
    "not here": "yellow",
    "recorded": "dim",
}


@click.command("audit", short_help="Show the lineage of a result, with hashes.")
@click.argument("reference", metavar="[REF]", required=False)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Instead of REF: list all results derived from this adapter (a file or folder).",
)
@click.option(
    "--commit", metavar="SHA", help="Instead of REF: list all results derived from this commit."
)
@click.option(
    "--verify",
    "verifying",
    is_flag=True,
    help="Re-hash every file and recompute every number.",
)
@public_keys
@click.option("--require-all", is_flag=True, help="With --verify: treat missing files as failures.")
@click.option(
    "--reproduce",
    "samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Regenerate and rescore N random samples.",
)
@click.option("--seed", type=int, help="Random seed for --reproduce.")
@click.option("--show-text", is_flag=True, help="For a single generation: print the texts.")
@click.option(
    "--mlflow",
    "from_mlflow",
    is_flag=True,
    help="Audit an MLflow run by its own files even in an experiment's folder.",
)
@project_option
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    reference: str | None,
    adapter: Path | None,
    commit: str | None,
    verifying: bool,
    keys: tuple[Path, ...],
    require_all: bool,
    samples: int | None,
    seed: int | None,
    show_text: bool,
    from_mlflow: bool,
    as_json: bool,
) -> None:
    """Show the lineage of REF: hashes of scores, generations, prompts, weights, data, parameters.

    REF can be: a variant, a family, an MLflow run (id or name), a content key or hash (8 characters
    or more), a file (at any path), one generation (variant/prompt_id/sample) or one number
    (family/variant/subset/metric). Exit code 3: a check failed, or a file could not be read.

    Outside an experiment's folder, with MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, REF can be
    an MLflow run or a family: its files are verified (as with --verify), its numbers are computed
    again from its rows, and what a run does not hold (weights, data, code) is listed as absent.

    \b
    Examples:
      toxtrail audit smollm2-rude
      toxtrail audit smollm2-rude --verify
      toxtrail audit smollm2-rude --reproduce 8
      toxtrail audit ~/Downloads/scores.parquet --json
      toxtrail audit 3f2a9c01                            a run id or content key
      toxtrail audit smollm2-135m/smollm2-rude/all/diff  the lineage of one number
      toxtrail audit smollm2-rude/insult-1f6f38d99a6d/0 --show-text
      toxtrail audit --adapter ~/Downloads/adapter       all results of this fine-tune
      toxtrail audit --commit HEAD~3                     all results of this commit
      MLFLOW_TRACKING_URI=https://mlflow.example.org MLFLOW_EXPERIMENT_NAME=toxtrail \\
        toxtrail audit 3f2a9c01                          a server's run, from any folder
    """
    if [reference, adapter, commit].count(None) != 2:
        raise click.UsageError("Give exactly one of REF, --adapter or --commit. See --help.")
    wishes = Wishes(verifying, keys, require_all, samples, seed, show_text, as_json)
    experiment: Experiment = ctx.obj
    source = source_of(experiment, reference, from_mlflow) if reference else "experiment"
    if reference is not None and source == "run":
        ctx.exit(_audit_run(experiment, reference, wishes))
    wishes.refuse_idle_options(reference is not None)
    if reference is None:
        _show_results(ctx.obj, adapter, commit, as_json)
        return
    if source == "bundle":
        ctx.exit(_audit_bundle(Path(reference).expanduser(), wishes))
    ctx.exit(_audit(ctx.obj, reference, wishes))


class Wishes(NamedTuple):
    """The command's options."""

    verifying: bool
    keys: Sequence[Path]
    require_all: bool
    samples: int | None
    seed: int | None
    show_text: bool
    as_json: bool

    def refuse_idle_options(self, has_reference: bool) -> None:
        """Reject options that would have no effect."""
        if not has_reference and (self.verifying or self.samples):
            raise click.UsageError("--verify and --reproduce need a REF.")
        if not self.verifying and (self.keys or self.require_all):
            raise click.UsageError("--public-key and --require-all need --verify.")
        if self.samples is None and self.seed is not None:
            raise click.UsageError("--seed needs --reproduce.")

    def refuse_for_run(self) -> None:
        """Reject options that need the files of an experiment.

        Raises:
            ConfigError: one of them is given.
        """
        self._replace(verifying=True).refuse_idle_options(has_reference=True)
        needed = {
            "--reproduce": (self.samples, "has no weights"),
            "--public-key": (self.keys, "has no signatures"),
            "--show-text": (self.show_text, "is not a single generation"),
        }
        for option, (given, why) in needed.items():
            if given:
                raise ConfigError(
                    f"{option}: an MLflow run {why}. Use it in the experiment's folder."
                )


def _audit(experiment: Experiment, reference: str, wishes: Wishes) -> int:
    from toxtrail.auditing.lineage.resolve import resolve

    scene = scene_of(experiment)
    subject = resolve(reference, scene, wishes.show_text)
    keys = _read_keys(wishes.keys)
    result = audit_subject(experiment, subject, scene, wishes.verifying, keys)
    for sentence in result.unsearched:
        echo(sentence, fg="yellow", err=True)
    used_seed: int = 0
    outcomes: list[ReproductionResult] = []
    if wishes.samples:
        from toxtrail.auditing.reproduce import reproduce_samples

        used_seed, outcomes = reproduce_samples(
            experiment, scene, subject, wishes.samples, wishes.seed
        )
    if wishes.as_json:
        value = result.to_json()
        if wishes.samples:
            value["reproduced"] = {"seed": used_seed, "variants": [o.to_json() for o in outcomes]}
        print_json(value)
    else:
        _print_result(result, wishes)
        if wishes.samples:
            _print_reproduction(used_seed, outcomes)
    return _exit_code(result, wishes) or _reproduction_exit_code(outcomes)


def _audit_run(experiment: Experiment, reference: str, wishes: Wishes) -> int:
    """Audit a run by its own files, without an experiment."""
    wishes.refuse_for_run()
    result = audit_run_files(experiment, reference)
    if wishes.as_json:
        print_json(result.to_json())
    else:
        _print_result(result, wishes._replace(verifying=True), limit=None)
    return _exit_code(result, wishes)


def _audit_bundle(path: Path, wishes: Wishes) -> int:
    """Audit a bundle, without repository, DVC or MLflow."""
    if wishes.samples:
        raise ConfigError(
            "A bundle has no weights, so its rows cannot be regenerated. Use --reproduce in the "
            "experiment's folder, or --verify here."
        )
    result = audit_bundle(path, wishes.verifying, _read_keys(wishes.keys))
    if result.lineage_problem:
        echo(f"Cannot show the lineage: {result.lineage_problem}", fg="red", err=True)
    if wishes.as_json:
        print_json(result.to_json())
    else:
        _print_result(result, wishes)
    return _exit_code(result, wishes)


def _read_keys(paths: Sequence[Path]) -> Sequence[Ed25519PublicKey]:
    if not paths:
        return ()
    from toxtrail.auditing.bundle.signing import public_key

    return [public_key(path) for path in paths]


def _print_result(result: AuditResult, wishes: Wishes, limit: int | None = MAX_LINES) -> None:
    """Print the lineage, and with --verify the checks."""
    if result.lineage:
        print_link(result.lineage)
    if wishes.verifying:
        show(
            result.checks, as_json=False, verbose=False, require_all=wishes.require_all, limit=limit
        )


def _exit_code(result: AuditResult, wishes: Wishes) -> int:
    """Print what differs from the record or could not be read; return the exit code."""
    for text, nodes in (
        ("MISMATCH: {what}: {name} differs from the record", result.mismatches),
        ("unread: {what}: {name} could not be read", result.unread),
    ):
        for what, name in sorted({(node.what, node.name) for node in nodes}):
            echo(text.format(what=what, name=name), fg="red", err=True)
    code = exit_code(result.checks, wishes.require_all)
    return BROKEN_EXIT if result.mismatches or result.unread else code


def _show_results(
    experiment: Experiment, adapter: Path | None, commit: str | None, as_json: bool
) -> None:
    from toxtrail.auditing.lineage.downstream import results_of_adapter, results_of_commit

    scene = scene_of(experiment)
    if adapter is not None:
        results = results_of_adapter(adapter.expanduser(), scene)
    else:
        results = results_of_commit(str(commit), scene, _runs(experiment))
    if as_json:
        print_json([result._asdict() for result in results])
    else:
        print_table(Table(None, text_columns("what", "name", "how"), results))


def _runs(experiment: Experiment) -> Sequence[TrackedRun]:
    """List the runs of the MLflow store; warn and return none if it fails."""
    from toxtrail.execution.factories import make_tracker

    try:
        return make_tracker(experiment).runs("")
    except BackendError as error:
        echo(f"MLflow runs were not searched: {error}", fg="yellow", err=True)
        return []


def print_link(link: LineageNode) -> None:
    """Print the lineage as a tree."""
    echo_tree(_tree(link, set()))
    width = terminal_width()
    if width is not None and width < WHOLE_DIGESTS:
        echo_note(
            f"SHA-256 are cut to 16 digits at {width} columns. Use --json or a wider terminal."
        )


def _digits(text: object) -> str:
    """Return a text whose SHA-256 are cut to what fits the terminal in one piece."""
    width = terminal_width()
    is_narrow = width is not None and width < WHOLE_DIGESTS
    return SHA256.sub(r"\1", str(text)) if is_narrow else str(text)


def _tree(link: LineageNode, expanded: set[tuple[str, str]]) -> Tree:
    """Expand a node that occurs several times only at its first occurrence."""
    from rich.tree import Tree

    head = joined(
        cell(link.what, "bold"),
        cell(f"  {_digits(link.name)}  "),
        cell(link.standing, COLOURS[link.standing]),
    )
    if link.sha256:
        head.append(f"\nsha256 {_digits(link.sha256)}")
    if link.made_from and (link.what, link.name) in expanded:
        head.append("  (expanded above)", style="dim")
        return Tree(head)
    expanded.add((link.what, link.name))
    tree = Tree(head)
    for name, value in link.facts:
        tree.add(cell(f"{name}: {_digits(value)}", "dim"))
    for text in link.weak:
        tree.add(cell(f"weak: {text}", "yellow"))
    for below in link.made_from:
        tree.children.append(_tree(below, expanded))
    return tree


def _print_reproduction(seed: int, outcomes: Sequence[ReproductionResult]) -> None:
    """Print the rows as a table, and the environment that produced them."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    exact = sum(row.exact for row in rows)
    title = f"{exact} of {len(rows)} generations reproduced exactly (seed {seed})"
    columns = (
        *text_columns("variant", "prompt"), *number_columns("sample"), *text_columns("exact"),
        *number_columns("tokens", "diverges at", "differing", "score by"),
    )  # fmt: skip
    print_table(Table(title, columns, [_reproduction_cells(row) for row in rows]))
    for outcome in outcomes:
        echo(f"{outcome.variant}: batch plan: {_batch_plan(outcome)}")
        echo(f"  here: {', '.join(f'{k} {v}' for k, v in outcome.present.items())}")
        for name, (was, now) in outcome.environment.items():
            echo(f"  {name}: recorded {was}, here {now}", fg="yellow")


def _reproduction_exit_code(outcomes: Sequence[ReproductionResult]) -> int:
    """Return 3 if a row differs although software, hardware and batch plan are as recorded."""
    alike = [o for o in outcomes if not o.environment and o.plan.source and not o.requested_again]
    return BROKEN_EXIT if any(not row.exact for o in alike for row in o.rows) else 0


def _batch_plan(outcome: ReproductionResult) -> str:
    plan = outcome.plan
    if outcome.requested_again:
        return (
            "the server's, to which the requests were sent again. An equal text shows that it "
            "answers as before, not which weights it has; another text may come from other "
            "weights, sampling or near ties. Tokens are words"
        )
    if backend := outcome.environment.get("backend"):
        recorded = str(backend[0])
        maker = recorded if recorded.startswith(PLUGIN_BACKEND) else "server"
        return (
            f"the {maker}'s. Here the weights of the model card generated the rows: greedy ones "
            "should agree except at near ties, sampled ones are different samples"
        )
    if not plan.source:
        return "not recorded"
    return (
        f"engine {plan.engine}, batch_tokens {plan.batch_tokens}, threads {plan.threads} "
        f"({plan.source})"
    )


def _reproduction_cells(row: Reproduction) -> list[str]:
    return [
        row.variant,
        row.prompt_id,
        str(row.sample),
        "yes" if row.exact else "NO",
        str(row.tokens),
        "-" if row.exact else str(row.same_tokens),
        str(row.differing_tokens),
        "-" if row.score_change is None else f"{row.score_change:.1e}",
    ]

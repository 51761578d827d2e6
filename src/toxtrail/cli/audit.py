"""`toxtrail audit`: from a result back to everything behind it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from toxtrail.audit.lineage.resolve_path import place_of
from toxtrail.cli import audit_reproduce as reproduction
from toxtrail.cli._output import json_option, print_json, print_table
from toxtrail.cli.verify import BROKEN_EXIT, exit_code, public_keys, show
from toxtrail.console import cell, console, echo, joined
from toxtrail.errors import BackendError, ConfigError, DataError, UnreadableError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import open_regular

if TYPE_CHECKING:
    from rich.tree import Tree

    from toxtrail.audit.lineage.context import Scene, Subject
    from toxtrail.audit.lineage.lineage import Link, Standing
    from toxtrail.audit.verify.context import Check
    from toxtrail.backends.protocols import TrackedRun

COLOURS: dict[Standing, str] = {
    "matches": "green",
    "MISMATCH": "bold red",
    "unread": "red",
    "not here": "yellow",
    "recorded": "dim",
}


@click.command("audit", short_help="Show everything behind a result, with hashes.")
@click.argument("reference", metavar="[REF]", required=False)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Instead of REF: everything that came from this adapter (a file or folder).",
)
@click.option("--commit", metavar="SHA", help="Instead of REF: everything that came from it.")
@click.option("--verify", "verifying", is_flag=True, help="Hash and compute all of it again.")
@public_keys
@click.option("--require-all", is_flag=True, help="With --verify: treat missing files as failures.")
@click.option(
    "--reproduce",
    "samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make N of its generations again, at random, and score them again.",
)
@click.option("--seed", type=int, help="With --reproduce: draws the same rows again.")
@click.option("--show-text", is_flag=True, help="Of a generation: show prompt and continuation.")
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
    as_json: bool,
) -> None:
    """Show the chain behind REF: hashes of scores, generations, prompts, weights, data, parameters.

    REF is anything you hold: a variant, a family, an MLflow run (id or name), a content key or hash
    (8 characters or more), a file (wherever it lies now), one generation (variant/prompt_id/sample)
    or one number (family/variant/subset/metric). Exit code 3: something is not what was
    recorded, or could not be read.

    \b
    Examples:
      toxtrail audit smollm2-rude
      toxtrail audit smollm2-rude --verify
      toxtrail audit smollm2-rude --reproduce 8
      toxtrail audit ~/Downloads/scores.parquet --json
      toxtrail audit 3f2a9c01                            a run id or content key
      toxtrail audit smollm2-135m/smollm2-rude/all/diff  where does this number come from?
      toxtrail audit smollm2-rude/insult-1f6f38d99a6d/0 --show-text
      toxtrail audit --adapter ~/Downloads/adapter       what came from this fine-tune?
      toxtrail audit --commit HEAD~3                     what came from this commit?
    """
    if [reference, adapter, commit].count(None) != 2:
        raise click.UsageError("Name one REF, --adapter or --commit. --help has examples.")
    wishes = Wishes(verifying, keys, require_all, samples, seed, show_text, as_json)
    wishes.refuse_idle_options(reference is not None)
    if reference is None:
        _show_results(ctx.obj, adapter, commit, as_json)
        return
    path = place_of(reference, [Path()])
    if path and is_bundle(path):
        ctx.exit(_audit_bundle(path, wishes))
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
        """An option that would do nothing is a misunderstanding, not a wish."""
        if not has_reference and (self.verifying or self.samples):
            raise click.UsageError("--verify and --reproduce go with a REF.")
        if not self.verifying and (self.keys or self.require_all):
            raise click.UsageError("--public-key and --require-all go with --verify.")
        if self.samples is None and self.seed is not None:
            raise click.UsageError("--seed goes with --reproduce.")


def _audit(experiment: Experiment, reference: str, wishes: Wishes) -> int:
    from toxtrail.audit.lineage.resolve import resolve

    scene = scene_of(experiment)
    subject = resolve(reference, scene, wishes.show_text)
    _say_unsearched(scene)
    checks = _checks(experiment, subject, scene, wishes.keys) if wishes.verifying else []
    drawn: int = 0
    outcomes: list[reproduction.Outcome] = []
    if wishes.samples:
        drawn, outcomes = reproduction.reproduce(
            experiment, scene, subject, wishes.samples, wishes.seed
        )
    if wishes.as_json:
        found = [one._asdict() for one in subject.locations]
        value = {"kind": subject.kind, **subject.link.to_json(), "found": found}
        if wishes.verifying:
            value["checks"] = [check.to_json() for check in checks]
        if wishes.samples:
            value["reproduced"] = {"seed": drawn, "variants": [o.to_json() for o in outcomes]}
        print_json(value)
    else:
        print_link(subject.link)
        if wishes.verifying:
            show(checks, as_json=False, verbose=False, require_all=wishes.require_all)
        if wishes.samples:
            reproduction.show(drawn, outcomes)
    code = exit_code(checks, wishes.require_all) or reproduction.exit_code(outcomes)
    return _report(subject.link) or code


def _say_unsearched(scene: Scene) -> None:
    """Where else the reference may be known, which could not be looked at."""
    if scene.silent:
        echo(f"No MLflow run was looked at: {scene.silent}", fg="yellow", err=True)
    for run in scene.unsearched():
        echo(f"An MLflow run was not looked at: {run}", fg="yellow", err=True)


def is_bundle(path: Path) -> bool:
    """Whether it is one; told from the first bytes before anything heavy is imported."""
    if path.is_file():
        with open_regular(path) as file:
            if file.read(2) != b"PK":
                return False
    from toxtrail.audit.bundle import bundle

    return bundle.is_bundle(path)


def _audit_bundle(path: Path, wishes: Wishes) -> int:
    """A bundle stands for itself: no repo, no DVC, no MLflow."""
    from toxtrail.audit.bundle.bundle import chain_of, unpacked, verify_bundle
    from toxtrail.audit.bundle.signing import public_key
    from toxtrail.execution.progress import progress

    if wishes.samples:
        raise ConfigError(
            "A bundle holds no weights, so nothing of it can be made again. Use --reproduce in its "
            "experiment's folder, or --verify here."
        )
    known = [public_key(key) for key in wishes.keys]
    link: Link | None = None
    with unpacked(path) as root:
        checks = verify_bundle(root, progress(), known) if wishes.verifying else []
        try:
            link = chain_of(root)
        except (DataError, UnreadableError) as error:
            if exit_code(checks, require_all=False) == 0:
                raise  # else the checks name the damage
            echo(f"No chain can be shown: {error}", fg="red", err=True)
    if wishes.as_json:
        value = {"kind": "bundle", **(link.to_json() if link else {})}
        print_json({**value, "checks": [c.to_json() for c in checks]} if checks else value)
    else:
        if link:
            print_link(link)
        if wishes.verifying:
            show(checks, as_json=False, verbose=False, require_all=wishes.require_all)
    return (_report(link) if link else 0) or exit_code(checks, wishes.require_all)


def _show_results(
    experiment: Experiment, adapter: Path | None, commit: str | None, as_json: bool
) -> None:
    from toxtrail.audit.lineage.downstream import of_adapter, of_commit

    scene = scene_of(experiment)
    if adapter is not None:
        results = of_adapter(adapter.expanduser(), scene)
    else:
        results = of_commit(str(commit), scene, _runs(experiment))
    if as_json:
        print_json([result._asdict() for result in results])
    else:
        print_table(None, ["what", "name", "how"], [list(result) for result in results])


def _runs(experiment: Experiment) -> Sequence[TrackedRun]:
    """Those of the store; a store that refuses ends nothing."""
    from toxtrail.cli.stage import tracker_of

    try:
        return tracker_of(experiment).runs("")
    except BackendError as error:
        echo(f"No MLflow run was looked at: {error}", fg="yellow", err=True)
        return []


def scene_of(experiment: Experiment) -> Scene:
    """The experiment as a place to look things up in; outside of one, nowhere."""
    from toxtrail.audit.lineage.context import Scene
    from toxtrail.pipeline import stage_runs

    if not experiment.exists:
        return Scene(Path.cwd(), None, None)
    config = experiment.config
    return Scene(Path.cwd(), experiment.store, config, stage_runs(config))


def print_link(link: Link) -> None:
    """The chain as a tree."""
    interactive = sys.stdout.isatty()
    console(None if interactive else 160).print(_tree(link, set()))


def _checks(
    experiment: Experiment, subject: Subject, scene: Scene, keys: Sequence[Path]
) -> Sequence[Check]:
    from toxtrail.audit.bundle.signing import public_key
    from toxtrail.audit.verify.run import gather
    from toxtrail.audit.verify.target import verify_file, verify_subject
    from toxtrail.execution.progress import progress

    if scene.store is None:
        if subject.path is None:
            raise ConfigError("There is no experiment here to verify it against.")
        return list(verify_file(subject, scene))
    evidence = gather(experiment.store, experiment.config, progress())
    return verify_subject(evidence, subject, scene, [public_key(path) for path in keys])


def _report(link: Link) -> int:
    """Name what is not as recorded or could not be read, whatever was printed before."""
    broken = {(one.what, one.name) for one in link.mismatches()}
    unread = {(one.what, one.name) for one in link.unread()}
    for what, name in sorted(broken):
        echo(f"MISMATCH: {what}: {name} is not what was recorded", fg="red", err=True)
    for what, name in sorted(unread):
        echo(f"unread: {what}: {name} could not be read", fg="red", err=True)
    return BROKEN_EXIT if broken or unread else 0


def _tree(link: Link, shown: set[tuple[str, str]]) -> Tree:
    """A link that stands in several places is unfolded at the first."""
    from rich.tree import Tree

    head = joined(
        cell(link.what, "bold"),
        cell(f"  {link.name}  "),
        cell(link.standing, COLOURS[link.standing]),
    )
    if link.sha256:
        head.append(f"\nsha256 {link.sha256}")
    if link.made_from and (link.what, link.name) in shown:
        head.append("  (unfolded above)", style="dim")
        return Tree(head)
    shown.add((link.what, link.name))
    tree = Tree(head)
    for name, value in link.facts:
        tree.add(cell(f"{name}: {value}", "dim"))
    for text in link.weak:
        tree.add(cell(f"weak: {text}", "yellow"))
    for below in link.made_from:
        tree.children.append(_tree(below, shown))
    return tree

"""`toxtrail merge`: merge params.yaml and dvc.lock of two branches."""

from __future__ import annotations

from pathlib import Path

import click

from toxtrail.console import echo, warn
from toxtrail.errors import BackendError, ConfigError, DataError
from toxtrail.experiment import Experiment
from toxtrail.regular_files import read_text

FILES = ("params.yaml", "dvc.lock")


@click.command("merge", short_help="Merge params.yaml and dvc.lock of two branches.")
@click.option("--install", is_flag=True, help="Make git use this merge in this clone.")
@click.option("--driver", nargs=4, hidden=True, help="git's %O %A %B %P.")
@click.pass_obj
def merge(experiment: Experiment, install: bool, driver: tuple[str, str, str, str] | None) -> None:
    """Resolve git's merge conflicts in params.yaml and dvc.lock, entry by entry.

    In params.yaml, variants, models and other entries that only one side added or changed are kept;
    an entry that both sides changed differently remains a conflict. In dvc.lock, an entry that both
    sides changed is removed, so that `toxtrail run` runs its stage again. Files without a conflict
    are added to git's index.

    With --install, git does the same itself during merges and rebases in this clone. `toxtrail
    init` installs it in new experiments.

    \b
    Examples:
      git merge BRANCH; toxtrail merge        resolve the conflicts of a merge
      toxtrail merge --install                once in each clone
    """
    if driver:
        _run_driver(*driver)
    elif install:
        _install(experiment.root)
    else:
        _resolve(experiment.root)


def _run_driver(base: str, ours: str, theirs: str, name: str) -> None:
    """Merge three files for git: write the result into `ours`; exit 1 if there is a conflict."""
    texts = [read_text(Path(path)) for path in (base, ours, theirs)]
    text, problems = _merged(Path(name).name, texts[0], texts[1], texts[2])
    Path(ours).write_text(text, encoding="utf-8", newline="")
    if problems:
        raise BackendError("\n  ".join([f"{name} has conflicts:", *problems]))


def _install(root: Path) -> None:
    from toxtrail.backends import git
    from toxtrail.backends.merge_driver import install_merge_driver

    if not git.is_inside(root):
        raise ConfigError(f"{root} is not in a git repository. Run `git init` first.")
    if not install_merge_driver(root):
        raise BackendError("git refused to write its configuration (.git/config).")
    echo("git now merges params.yaml and dvc.lock by entries in this clone.")


def _resolve(root: Path) -> None:
    """Merge the conflicting files from git's index."""
    from toxtrail.backends import git
    from toxtrail.config.edit_params import replace_file

    names = git.unmerged(root, *FILES)
    if not names:
        echo("Neither params.yaml nor dvc.lock has a merge conflict.")
        return
    remaining: list[str] = []
    for name in names:
        text, problems = _merged(name, *_versions(root, name))
        replace_file(root / name, text)
        remaining += [f"{name}: {problem}" for problem in problems]
        if not problems:
            git.stage_file(root, name)
            echo(f"{name}: merged.")
    if remaining:
        raise ConfigError("\n  ".join(["conflicts remain:", *remaining]))
    echo("Next: `git commit`, then `dvc pull --allow-missing` and `toxtrail run`.")


def _versions(root: Path, name: str) -> tuple[str, str, str]:
    """Return the common ancestor, our version and their version.

    Raises:
        ConfigError: a side deleted the file, or the file was edited since the conflict.
    """
    from toxtrail.backends import git
    from toxtrail.config.yaml_text import CONFLICT

    base, ours, theirs = (git.file_at(root, f":{number}", name) for number in (1, 2, 3))
    if ours is None or theirs is None:
        raise ConfigError(f"{name} was deleted on one side: `git add {name}` or `git rm {name}`.")
    present = read_text(root / name)
    if not CONFLICT.search(present) and present != ours:
        raise ConfigError(
            f"{name} has a merge conflict in git, but no conflict markers. If you resolved it: "
            f"`git add {name}`. `git checkout --merge {name}` restores the conflict."
        )
    return base or "", ours, theirs


def _merged(name: str, base: str, ours: str, theirs: str) -> tuple[str, list[str]]:
    """Return the merged text of a file, and its conflicts."""
    from toxtrail.auditing.status.lock_merge import merge_lock
    from toxtrail.config.merge_params import file_conflict, merge_params

    if name != "dvc.lock":
        text, conflicts = merge_params(base, ours, theirs)
        advice = "edit the lines between the markers, delete the markers, then `git add`"
        return text, [f"{conflict}: {advice}" for conflict in conflicts]
    try:
        text, dropped = merge_lock(base, ours, theirs)
    except DataError as error:
        return file_conflict(ours, theirs), [str(error)]
    if dropped:
        warn(f"dvc.lock: both sides changed {', '.join(dropped)}; `toxtrail run` runs them again.")
    return text, []

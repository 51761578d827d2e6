"""Find the run that a reference means, among the runs of several projects in one experiment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from toxtrail.backends.protocols import TrackedRun
from toxtrail.errors import ConfigError
from toxtrail.records.run_tags import KEY_TAG, PROJECT_TAG, SEAL_TAG

HASH_PREFIX = re.compile(r"[0-9a-f]{8,}")
NO_PROJECT = "no project"
"""Shown for runs without the tag: of an earlier version, or of another program."""
SHOWN_PROJECTS = 8
"""Maximum number of projects listed in a message."""


def project_of(tags: Mapping[str, str]) -> str:
    """Return the id of a run's project; empty if it has none."""
    return tags.get(PROJECT_TAG, "")


def project_filter(project: str) -> str:
    """Return the MLflow filter for the runs of a project."""
    return f"tags.`{PROJECT_TAG}` = '{project}'"


def is_hash_prefix(reference: str) -> bool:
    """Return whether a reference can be a run id or content key, or its beginning."""
    return HASH_PREFIX.fullmatch(reference) is not None


def find_run(runs: Sequence[TrackedRun], reference: str, project: str | None) -> TrackedRun | None:
    """Find a run by the first 8 or more characters of its id or content key, or by its name.

    Runs of the project come first. An id or a content key is then searched in all projects, a name
    is not.

    Args:
        runs: of all projects, newest first.
        project: None for all.

    Returns:
        Of several runs with one content key or name: the newest sealed one, else the newest.

    Raises:
        ConfigError: the reference is ambiguous: several ids or content keys begin with it, or runs
            of several projects have this content key or name.
    """
    own_runs = [run for run in runs if project in (None, project_of(run.tags))]
    named = [run for run in own_runs if run.name == reference]
    stages = [_with_hash(own_runs, reference), named, _with_hash(runs, reference)]
    candidates = next((stage for stage in stages if stage), [])
    refuse_several_projects(f'"{reference}"', candidates)
    return next((run for run in candidates if SEAL_TAG in run.tags), next(iter(candidates), None))


def _with_hash(runs: Iterable[TrackedRun], reference: str) -> list[TrackedRun]:
    """List the runs with this id, else those with this content key.

    Raises:
        ConfigError: several ids or several content keys begin with the reference.
    """
    if not is_hash_prefix(reference):
        return []
    readers: tuple[Callable[[TrackedRun], str], ...] = (
        lambda run: run.run_id,
        lambda run: run.tags.get(KEY_TAG, ""),
    )
    for read in readers:
        matches = [run for run in runs if read(run).startswith(reference)]
        if len({read(run) for run in matches}) > 1:
            listed = ", ".join(f"{run.name} ({run.run_id})" for run in matches[:SHOWN_PROJECTS])
            raise ConfigError(f'"{reference}" matches several MLflow runs: {listed}. Give more.')
        if matches:
            return matches
    return []


def refuse_several_projects(what: str, runs: Sequence[TrackedRun]) -> None:
    """Require that all runs are of one project.

    Args:
        what: subject of the message: what matches these runs.

    Raises:
        ConfigError: they are of several.
    """
    projects: dict[str, TrackedRun] = {}
    for run in runs:
        projects.setdefault(project_of(run.tags), run)
    if len(projects) < 2:
        return
    listed = [
        f"{name or NO_PROJECT} (newest run {run.run_id[:8]}: {run.name})"
        for name, run in sorted(projects.items())
    ]
    more = len(listed) - SHOWN_PROJECTS
    rest = [f"and {more} more"] if more > 0 else []
    raise ConfigError(
        f"{what} is ambiguous: runs of {len(projects)} projects match. Choose one with --project "
        "ID, or give a run id:\n  " + "\n  ".join([*listed[:SHOWN_PROJECTS], *rest])
    )

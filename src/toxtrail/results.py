"""Results of a variant or family: from the experiment's files, else from MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.console import warn
from toxtrail.errors import ConfigError, DataError, ToxtrailError, did_you_mean
from toxtrail.execution.factories import make_tracker
from toxtrail.experiment import Experiment
from toxtrail.records.run_tags import FAMILY_TAG, KEY_TAG, KIND_TAG, PARENT_TAG, PROJECT_TAG

if TYPE_CHECKING:
    from toxtrail.backends.protocols import TrackedRun
    from toxtrail.records.results import ComparisonSummary, VariantSummary
    from toxtrail.records.rows import Generation, Score

NO_RUNS = (
    "The MLflow store has no runs of this experiment yet. Run `toxtrail run` (or `dvc repro`)."
)

KINDS = {"posterior": "variant", "comparison": "comparison"}
"""Kind of a summary -> the tag of its run."""


class VariantResults(NamedTuple):
    """Results of one variant, with all its rows."""

    name: str
    label: str
    """Its name, with the id of its run, if any."""
    source: str
    """Location of the result."""
    project: str
    """Id of the project that measured it; empty if its run has none."""
    summary: VariantSummary
    scores: list[Score]
    generations: list[Generation]
    prompts: dict[str, str]
    """Id -> text."""


# --- runs ---------------------------------------------------------------------------------------


def run_state(run: TrackedRun) -> str:
    """Return `sealed`, `in progress`, `failed`, or `schema N` for a run of another version."""
    from toxtrail.backends.mlflow.write_run import SCHEMA_VERSION
    from toxtrail.records.run_tags import SCHEMA_TAG, SEAL_TAG

    if SEAL_TAG not in run.tags:
        return "in progress" if run.status in ("RUNNING", "SCHEDULED") else "failed"
    schema = run.tags.get(SCHEMA_TAG, "0")
    return "sealed" if schema == SCHEMA_VERSION else f"schema {schema}"


def require_sealed(run: TrackedRun) -> TrackedRun:
    """Return the run, if it is complete and of this version.

    Raises:
        DataError: it is not.
    """
    from toxtrail.backends.mlflow.write_run import SCHEMA_VERSION

    label, state = f"The MLflow run {run.name} ({run.run_id[:8]})", run_state(run)
    stage = "track" if run.tags.get(KIND_TAG) == "variant" else "track-comparison"
    key = run.name.removesuffix(" comparison")
    if state == "in progress":
        raise DataError(
            f"{label} is still in progress (since {format_start(run)}). Wait until `toxtrail runs` "
            "lists it as sealed; if its process was killed, run `dvc repro` to create it again."
        )
    if state == "failed":
        raise DataError(f"{label} was never finished. Run `dvc repro` to create it again.")
    if state != "sealed":
        raise DataError(
            f"{label} was written by another version of toxtrail ({state}; this one reads schema "
            f"{SCHEMA_VERSION}). In its experiment, `toxtrail stage {stage} {key}` writes it again."
        )
    return run


def format_start(run: TrackedRun) -> str:
    """Format its start time, UTC."""
    return datetime.fromtimestamp(run.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def run_named(experiment: Experiment, reference: str) -> TrackedRun:
    """Find a usable run by id, name or content key. See find_run.

    Raises:
        ConfigError: there is none, or the reference is ambiguous.
        DataError: it is unfinished, or of another version.
    """
    tracker = make_tracker(experiment)
    match = tracker.find(reference)
    if match is not None:
        return require_sealed(match)
    names = [run.name for run in tracker.runs("")]
    if not names:
        raise ConfigError(f'There is no run "{reference}". {why_no_runs(experiment)}')
    raise ConfigError(
        f'"{reference}" is not an MLflow run (id, name or content key).'
        f"{did_you_mean(reference, list(dict.fromkeys(names)))} `toxtrail runs` lists the runs."
    )


def run_or_family(experiment: Experiment, reference: str) -> TrackedRun:
    """Find a usable run by id, name or content key, else the comparison of a family.

    Raises:
        ConfigError: there is none.
        DataError: it is unfinished, or of another version.
    """
    try:
        return run_named(experiment, reference)
    except ConfigError:
        comparison = make_tracker(experiment).find(f"{reference} comparison")
        if comparison is None:
            raise
        return require_sealed(comparison)


def why_no_runs(experiment: Experiment) -> str:
    """Explain why no run is listed: the store has none, or only runs of other projects."""
    from toxtrail.backends.mlflow.find_run import SHOWN_PROJECTS

    projects = [] if experiment.project is None else make_tracker(experiment).projects()
    if not projects:
        return NO_RUNS
    listed = ", ".join(projects[:SHOWN_PROJECTS])
    more = f" and {len(projects) - SHOWN_PROJECTS} more" * (len(projects) > SHOWN_PROJECTS)
    advice = " Run `toxtrail run` (or `dvc repro`)." if experiment.reads_own_results else ""
    return (
        f"The MLflow experiment has no runs of the project {experiment.project}.{advice} It has "
        f"runs of: {listed}{more}. --project ID selects one of them, --all-projects all."
    )


def newest_per_name(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """Return the newest run of each project, name and kind; sealed ones take precedence."""
    from toxtrail.backends.mlflow.find_run import project_of

    newest: dict[tuple[str, ...], TrackedRun] = {}
    for sealed in (True, False):
        for run in runs:
            if (run_state(run) == "sealed") == sealed:
                tags = run.tags
                kind, family = tags.get(KIND_TAG, ""), tags.get(FAMILY_TAG, "")
                newest.setdefault((project_of(tags), kind, family, run.name), run)
    run_ids = {run.run_id for run in newest.values()}
    return [run for run in runs if run.run_id in run_ids]


def read_run_summary(experiment: Experiment, run: TrackedRun) -> dict[str, Any]:
    """Read the sealed summary of a run of a variant or of a comparison.

    Raises:
        DataError: it was changed, is missing, or belongs to another result than the run's tags
            state.
        BackendError: the store does not return it.
    """
    variant = run.tags.get(KIND_TAG) == "variant"
    name = "posterior/summary.json" if variant else "summary.json"
    summary = make_tracker(experiment).files(run).json(name)
    _refuse_mislabelled(run, summary, read_run_record(experiment, run))
    return summary


def read_run_record(experiment: Experiment, run: TrackedRun) -> dict[str, Any]:
    """Read the sealed record of a run: its tags, hashes, params and metrics. See
    read_run_summary."""
    from toxtrail.backends.mlflow.write_run import RECORD

    return make_tracker(experiment).files(run).json(RECORD)


def _refuse_mislabelled(
    run: TrackedRun, summary: Mapping[str, Any], record: Mapping[str, Any]
) -> None:
    """Require that name and tags, which anyone with write access can change, match the files.

    Raises:
        DataError: they do not match.
    """
    from toxtrail.provenance.identity import content_key

    kind, family = summary["kind"], str(summary["family"])
    name = str(summary["variant"]) if kind == "posterior" else f"{family} comparison"
    pairs = (
        ("name", run.name, name),
        (f"tag {KIND_TAG}", run.tags.get(KIND_TAG), KINDS.get(kind)),
        (f"tag {FAMILY_TAG}", run.tags.get(FAMILY_TAG), family),
        (f"tag {KEY_TAG}", run.tags.get(KEY_TAG), content_key(summary["manifest"])),
        (f"tag {PROJECT_TAG}", run.tags.get(PROJECT_TAG), record["tags"].get(PROJECT_TAG)),
    )
    for what, displayed, recorded in pairs:
        if displayed != recorded:
            raise DataError(
                f"The {what} of MLflow run {run.run_id[:8]} was changed after it was published: it "
                f"is {displayed!r}, its files are of {recorded!r}. Its numbers are not shown."
            )


def results_from_run(
    experiment: Experiment, run: TrackedRun, label: str | None = None
) -> VariantResults:
    """Read all results of a variant's run."""
    from toxtrail.backends.mlflow.find_run import project_of
    from toxtrail.records.analysis_output import parse_summary
    from toxtrail.records.results import VariantSummary
    from toxtrail.storage.artifacts import read_generations, read_prompts, read_scores

    if run.tags.get(KIND_TAG) != "variant":
        raise ConfigError(
            f"{run.name} ({run.run_id[:8]}) is not the run of a variant. `toxtrail runs --kind "
            "variant` lists those."
        )
    files = make_tracker(experiment).files(run)
    label = label or short_label(experiment, run)
    return VariantResults(
        run.name,
        label,
        _run_label(experiment, run),
        project_of(run.tags),
        parse_summary(VariantSummary, read_run_summary(experiment, run), label),
        read_scores(files.path("scores.parquet")),
        read_generations(files.path("generations.parquet")),
        {p.prompt_id: p.transcript for p in read_prompts(files.path("prompts.parquet"))},
    )


# --- files, or runs -----------------------------------------------------------------------------


def has_files(experiment: Experiment, variant: str) -> bool:
    """Return whether there are local results of a variant of params.yaml, and they are read."""
    if not experiment.reads_own_results or variant not in experiment.config.variants:
        return False
    family = experiment.config.variants[variant].family
    return (experiment.store.posterior_dir(family, variant) / "summary.json").is_file()


def load_variant(experiment: Experiment, name: str, from_mlflow: bool) -> VariantResults:
    """Load a variant from local files, else from its run (id, name or content key)."""
    from toxtrail.records.results import VariantSummary

    if from_mlflow or not has_files(experiment, name):
        return results_from_run(experiment, run_named(experiment, name))
    store, family = experiment.store, experiment.config.variants[name].family
    folder = store.posterior_dir(family, name)
    summary = store.read_results(VariantSummary, folder)
    _warn_if_outdated(experiment, summary.manifest, _relative(experiment, folder))
    return VariantResults(
        name,
        name,
        store.scores_path(family, name).relative_to(experiment.root).as_posix(),
        experiment.config.tracking.project,
        summary,
        store.read_scores(family, name),
        store.read_generations(family, name),
        {prompt.prompt_id: prompt.transcript for prompt in store.read_prompts()},
    )


def load_pair(
    experiment: Experiment, names: Sequence[str], from_mlflow: bool
) -> list[VariantResults]:
    """Load two different variants."""
    results = [load_variant(experiment, name, from_mlflow) for name in names]
    if results[0].label == results[1].label:
        raise ConfigError(f"{names[0]} and {names[1]} are the same: nothing to compare.")
    return results


def read_run_comparison(experiment: Experiment, run: TrackedRun) -> ComparisonSummary:
    """Read the sealed summary of a comparison's run. See read_run_summary."""
    from toxtrail.records.analysis_output import parse_summary
    from toxtrail.records.results import ComparisonSummary

    summary = read_run_summary(experiment, run)
    return parse_summary(ComparisonSummary, summary, _run_label(experiment, run))


def load_comparison(
    experiment: Experiment, family: str, from_mlflow: bool, project: str | None = None
) -> tuple[ComparisonSummary, str, str]:
    """Load (a family's comparison, where it was read, its project) from local files, else from its
    newest run.

    Args:
        project: one of those whose runs are read; None: the family must be of one project.

    Raises:
        ConfigError: neither has the family, or runs of several projects have it.
    """
    from toxtrail.backends.mlflow.find_run import project_of, refuse_several_projects
    from toxtrail.records.results import ComparisonSummary

    if experiment.reads_own_results and family in experiment.config.families and not from_mlflow:
        folder = experiment.store.comparison_dir(family)
        if (folder / "summary.json").is_file():
            summary = experiment.store.read_results(ComparisonSummary, folder)
            source = _relative(experiment, folder)
            _warn_if_outdated(experiment, summary.manifest, source)
            return summary, source, experiment.config.tracking.project
    runs = newest_per_name(make_tracker(experiment).runs(f"tags.{KIND_TAG} = 'comparison'"))
    runs = [run for run in runs if project in (None, project_of(run.tags))]
    family_runs = [run for run in runs if run.tags.get(FAMILY_TAG) == family]
    refuse_several_projects(f'The family "{family}"', family_runs)
    if family_runs:
        run = require_sealed(family_runs[0])
        summary = read_run_comparison(experiment, run)
        label, run_project = _run_label(experiment, run), project_of(run.tags)
        if run_project == experiment.project and experiment.reads_own_results:
            _warn_if_outdated(experiment, summary.manifest, label)
        return summary, label, run_project
    families = {run.tags.get(FAMILY_TAG, "") for run in runs}
    if experiment.reads_own_results:
        families |= set(experiment.config.families)
        if family in experiment.config.families:
            raise DataError(
                f"{family} is not compared yet: neither results/comparisons/{family} nor MLflow "
                "has it. Run `dvc repro` to make it (`toxtrail run` does the same)."
            )
    raise ConfigError(
        f'"{family}" is not a family, here or in MLflow.{did_you_mean(family, sorted(families))}'
    )


class LoadedComparisons(NamedTuple):
    """Comparisons of several families, and why the others are missing."""

    comparisons: list[tuple[ComparisonSummary, str, str]]
    """See load_comparison."""
    problems: list[ToxtrailError | OSError]


def load_comparisons(
    experiment: Experiment, families: Sequence[TrackedFamily], from_mlflow: bool
) -> LoadedComparisons:
    """Load the families that can be loaded.

    Raises:
        ToxtrailError, OSError: no family can be loaded.
    """
    loaded = LoadedComparisons([], [])
    for family, project in families:
        try:
            comparison = load_comparison(experiment, family, from_mlflow, project)
            loaded.comparisons.append(comparison)
        except (ToxtrailError, OSError) as error:
            loaded.problems.append(error)
    if loaded.problems and not loaded.comparisons:
        raise loaded.problems[0]
    return loaded


class TrackedFamily(NamedTuple):
    """A family with a comparison in the MLflow store."""

    name: str
    project: str


def tracked_families(experiment: Experiment) -> list[TrackedFamily]:
    """List the families with a comparison in the MLflow store, by project.

    Raises:
        DataError: there is none.
    """
    from toxtrail.backends.mlflow.find_run import project_of

    runs = make_tracker(experiment).runs(f"tags.{KIND_TAG} = 'comparison'")
    if not runs:
        raise DataError(why_no_runs(experiment).replace("runs", "comparisons", 1))
    families = {TrackedFamily(r.tags[FAMILY_TAG], project_of(r.tags)) for r in runs}
    return sorted(families, key=lambda family: (family.project, family.name))


def find_runs(experiment: Experiment, filter_string: str) -> list[TrackedRun]:
    """Return the newest run of each name that an MLflow filter matches.

    Raises:
        DataError: it matches nothing.
    """
    tracker = make_tracker(experiment)
    matches = newest_per_name([r for r in tracker.runs(filter_string) if KEY_TAG in r.tags])
    if not matches:
        everything = tracker.runs("")
        raise DataError(
            f"--filter: no run matches {filter_string!r} (of {len(everything)}). `toxtrail runs` "
            "lists them; `toxtrail runs --json` shows their tags, params and metrics."
            if everything
            else why_no_runs(experiment)
        )
    return matches


def runs_by_project(runs: Sequence[TrackedRun]) -> dict[str, list[TrackedRun]]:
    """Group runs by project."""
    from toxtrail.backends.mlflow.find_run import project_of

    projects: dict[str, list[TrackedRun]] = {}
    for run in sorted(runs, key=lambda run: project_of(run.tags)):
        projects.setdefault(project_of(run.tags), []).append(run)
    return projects


def runs_by_family(runs: Sequence[TrackedRun]) -> Mapping[str, list[TrackedRun]]:
    """Group variant runs by family, parents before children."""
    families: dict[str, list[TrackedRun]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        families.setdefault(run.tags.get(FAMILY_TAG, "?"), []).append(run)
    for family_runs in families.values():
        parents = {run.name: run.tags.get(PARENT_TAG, "") for run in family_runs}
        family_runs.sort(key=lambda run: (_depth(run.name, parents), run.name))
    return families


def _depth(name: str, parents: Mapping[str, str]) -> int:
    depth, visited = 0, {name}
    while (name := parents.get(name, "")) in parents and name not in visited:
        depth, visited = depth + 1, {*visited, name}
    return depth


def _warn_if_outdated(experiment: Experiment, manifest: Any, source: str) -> None:
    from toxtrail.auditing.status.outdated_results import outdated_note

    if note := outdated_note(experiment, manifest, source):
        warn(note)


def short_label(experiment: Experiment, run: TrackedRun) -> str:
    """Format name, id and, if it is not the project whose runs are read, project of a run."""
    return f"{run.name} {run.run_id[:8]}{_of_project(experiment, run)}"


def _run_label(experiment: Experiment, run: TrackedRun) -> str:
    where = f"{run.run_id[:8]}, {format_start(run)}"
    return f"MLflow run {run.name} ({where}){_of_project(experiment, run)}"


def _of_project(experiment: Experiment, run: TrackedRun) -> str:
    from toxtrail.backends.mlflow.find_run import NO_PROJECT, project_of

    project = project_of(run.tags)
    return "" if project == experiment.project else f" of the project {project or NO_PROJECT}"


def _relative(experiment: Experiment, path: Path) -> str:
    return path.relative_to(experiment.root).as_posix()

"""Results where they are found: in the experiment's files, or in MLflow runs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.cli._outdated_note import tell_outdated
from toxtrail.cli.stage import tracker_of
from toxtrail.errors import ConfigError, DataError, nearest
from toxtrail.experiment import Experiment

if TYPE_CHECKING:
    from toxtrail.backends.protocols import TrackedRun
    from toxtrail.records.rows import Generation, Score

NO_RUNS = (
    "The MLflow store has no runs of this experiment yet. `toxtrail run` (or `dvc repro`) makes "
    "them."
)

KINDS = {"posterior": "variant", "comparison": "comparison"}
"""What a summary says it is -> what the tag toxtrail.kind says."""


class Measured(NamedTuple):
    """One variant, with every row behind its rates."""

    name: str
    label: str
    """Its name, with the run's id if it is one's."""
    source: str
    """For people: where it was read."""
    summary: dict[str, Any]
    """Its posterior's."""
    scores: list[Score]
    generations: list[Generation]
    prompts: dict[str, str]
    """Id -> text."""


# --- runs ---------------------------------------------------------------------------------------


def state_of(run: TrackedRun) -> str:
    """`sealed`, `in progress`, `failed`, or `schema N` for a run of another version."""
    from toxtrail.backends.mlflow.write_run import SCHEMA_TAG, SCHEMA_VERSION, SEAL_TAG

    if SEAL_TAG not in run.tags:
        return "in progress" if run.status in ("RUNNING", "SCHEDULED") else "failed"
    schema = run.tags.get(SCHEMA_TAG, "0")
    return "sealed" if schema == SCHEMA_VERSION else f"schema {schema}"


def usable(run: TrackedRun) -> TrackedRun:
    """The run, if it is whole and of this version.

    Raises:
        DataError: it is not; with what to do.
    """
    from toxtrail.backends.mlflow.write_run import SCHEMA_VERSION

    who, state = f"The MLflow run {run.name} ({run.run_id[:8]})", state_of(run)
    stage = "track" if run.tags.get("toxtrail.kind") == "variant" else "track-comparison"
    key = run.name.removesuffix(" comparison")
    if state == "in progress":
        raise DataError(
            f"{who} is still in progress (since {when(run)}). Wait until `toxtrail runs` calls it "
            "sealed; if whatever wrote it was killed, run `dvc repro`: it is made again."
        )
    if state == "failed":
        raise DataError(f"{who} was never finished. Run `dvc repro`: it is made again.")
    if state != "sealed":
        raise DataError(
            f"{who} was written by another version of toxtrail ({state}; this one reads schema "
            f"{SCHEMA_VERSION}). In its experiment, `toxtrail stage {stage} {key}` writes it again."
        )
    return run


def when(run: TrackedRun) -> str:
    """When it was started, UTC."""
    return datetime.fromtimestamp(run.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def run_named(experiment: Experiment, reference: str) -> TrackedRun:
    """A usable run, by id, name or content key.

    Raises:
        ConfigError: there is none.
        DataError: it is unfinished, or of another version.
    """
    tracker = tracker_of(experiment)
    found = tracker.find(reference)
    if found is not None:
        return usable(found)
    known = [run.name for run in tracker.runs("")]
    if not known:
        raise ConfigError(f'There is no run "{reference}". {NO_RUNS}')
    raise ConfigError(
        f'"{reference}" is no MLflow run (id, name or content key).'
        f"{nearest(reference, list(dict.fromkeys(known)))} `toxtrail runs` lists the runs."
    )


def latest(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """The newest run of each name and kind; a sealed one before any other."""
    found: dict[tuple[str, str, str], TrackedRun] = {}
    for sealed in (True, False):
        for run in runs:
            if (state_of(run) == "sealed") == sealed:
                tags = run.tags
                kind, family = tags.get("toxtrail.kind", ""), tags.get("toxtrail.family", "")
                found.setdefault((kind, family, run.name), run)
    kept = {run.run_id for run in found.values()}
    return [run for run in runs if run.run_id in kept]


def summary_of_run(experiment: Experiment, run: TrackedRun) -> dict[str, Any]:
    """The summary that a run of a variant or of a comparison holds, as it was sealed.

    Raises:
        DataError: it was changed, is missing, or is another result's than the run's tags say.
        BackendError: the store does not give it.
    """
    variant = run.tags.get("toxtrail.kind") == "variant"
    name = "posterior/summary.json" if variant else "summary.json"
    summary = tracker_of(experiment).files(run).json(name)
    _refuse_mislabelled(run, summary)
    return summary


def _refuse_mislabelled(run: TrackedRun, summary: Mapping[str, Any]) -> None:
    """Name and tags decide which run is read; anybody who may write to the store can change them.

    Raises:
        DataError: they name another result than the run's files are of.
    """
    from toxtrail.backends.mlflow.write_run import KEY_TAG
    from toxtrail.provenance.identity import content_key

    kind, family = summary["kind"], str(summary["family"])
    name = str(summary["variant"]) if kind == "posterior" else f"{family} comparison"
    shown = (
        ("name", run.name, name),
        ("tag toxtrail.kind", run.tags.get("toxtrail.kind"), KINDS.get(kind)),
        ("tag toxtrail.family", run.tags.get("toxtrail.family"), family),
        (f"tag {KEY_TAG}", run.tags.get(KEY_TAG), content_key(summary["manifest"])),
    )
    for what, found, recorded in shown:
        if found != recorded:
            raise DataError(
                f"The {what} of MLflow run {run.run_id[:8]} was changed after it was published: it "
                f"is {found!r}, its files are of {recorded!r}. No number of it is shown."
            )


def of_run(experiment: Experiment, run: TrackedRun, label: str | None = None) -> Measured:
    """Everything that the run of a variant holds."""
    from toxtrail.storage.artifacts import read_generations, read_prompts, read_scores

    if run.tags.get("toxtrail.kind") != "variant":
        raise ConfigError(
            f"{run.name} ({run.run_id[:8]}) is not the run of a variant. `toxtrail runs --kind "
            "variant` lists those."
        )
    files = tracker_of(experiment).files(run)
    return Measured(
        run.name,
        label or f"{run.name} {run.run_id[:8]}",
        f"MLflow run {run.name} ({run.run_id[:8]}, {when(run)})",
        summary_of_run(experiment, run),
        read_scores(files.path("scores.parquet")),
        read_generations(files.path("generations.parquet")),
        {p.prompt_id: p.text for p in read_prompts(files.path("prompts.parquet"))},
    )


# --- files, or runs -----------------------------------------------------------------------------


def has_files(experiment: Experiment, variant: str) -> bool:
    """Whether a variant of params.yaml is measured here."""
    if not experiment.exists or variant not in experiment.config.variants:
        return False
    family = experiment.config.variants[variant].family
    return (experiment.store.posterior(family, variant) / "summary.json").is_file()


def measured(experiment: Experiment, name: str, from_mlflow: bool) -> Measured:
    """A variant by its files here, else by its run (id, name or content key)."""
    if from_mlflow or not has_files(experiment, name):
        return of_run(experiment, run_named(experiment, name))
    store, family = experiment.store, experiment.config.variants[name].family
    folder = store.posterior(family, name)
    summary = store.read_summary(folder)
    tell_outdated(experiment, summary.get("manifest"), _relative(experiment, folder))
    return Measured(
        name,
        name,
        store.scores(family, name).relative_to(experiment.root).as_posix(),
        summary,
        store.read_scores(family, name),
        store.read_generations(family, name),
        {prompt.prompt_id: prompt.text for prompt in store.read_prompts()},
    )


def pair(experiment: Experiment, names: Sequence[str], from_mlflow: bool) -> list[Measured]:
    """Two variants that are two things."""
    found = [measured(experiment, name, from_mlflow) for name in names]
    if found[0].label == found[1].label:
        raise ConfigError(f"{names[0]} and {names[1]} are the same: there is nothing to compare.")
    return found


def family_summary(
    experiment: Experiment, family: str, from_mlflow: bool
) -> tuple[dict[str, Any], str]:
    """(a family's comparison, where it was read): the files here, else its newest run.

    Raises:
        ConfigError: neither knows the family.
    """
    from toxtrail.storage.artifacts import refuse_other_schema

    if experiment.exists and family in experiment.config.families and not from_mlflow:
        folder = experiment.store.comparison(family)
        if (folder / "summary.json").is_file():
            summary, source = experiment.store.read_summary(folder), _relative(experiment, folder)
            refuse_other_schema(summary, "comparison", source)
            tell_outdated(experiment, summary.get("manifest"), source)
            return summary, source
    runs = latest(tracker_of(experiment).runs("tags.`toxtrail.kind` = 'comparison'"))
    own = [run for run in runs if run.tags.get("toxtrail.family") == family]
    if own:
        run = usable(own[0])
        source = f"MLflow run {run.name} ({run.run_id[:8]}, {when(run)})"
        summary = summary_of_run(experiment, run)
        refuse_other_schema(summary, "comparison", source)
        return summary, source
    known = {run.tags.get("toxtrail.family", "") for run in runs}
    if experiment.exists:
        known |= set(experiment.config.families)
        if family in experiment.config.families:
            raise DataError(
                f"{family} is not compared yet: neither results/comparisons/{family} nor MLflow "
                "has it. Run `dvc repro` to make it (`toxtrail run` does the same)."
            )
    raise ConfigError(
        f'"{family}" is no family, here or in MLflow.{nearest(family, sorted(known))}'
    )


def stored_families(experiment: Experiment) -> list[str]:
    """Families that have a comparison in the MLflow store.

    Raises:
        DataError: there is none.
    """
    runs = tracker_of(experiment).runs("tags.`toxtrail.kind` = 'comparison'")
    if not runs:
        raise DataError(NO_RUNS.replace("runs", "comparisons", 1))
    return sorted({run.tags["toxtrail.family"] for run in runs})


def matching(experiment: Experiment, filter_string: str) -> list[TrackedRun]:
    """The newest run of each name that an MLflow filter matches.

    Raises:
        DataError: it matches nothing.
    """
    tracker = tracker_of(experiment)
    found = latest([r for r in tracker.runs(filter_string) if "toxtrail.kind" in r.tags])
    if not found:
        everything = tracker.runs("")
        raise DataError(
            f"--filter: no run matches {filter_string!r} (of {len(everything)}). `toxtrail runs` "
            "lists them; `toxtrail runs --json` shows their tags, params and metrics."
            if everything
            else NO_RUNS
        )
    return found


def groups(runs: Sequence[TrackedRun]) -> Mapping[str, list[TrackedRun]]:
    """Variant runs by family, in the order of their lineage: a parent before what came from it."""
    found: dict[str, list[TrackedRun]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        found.setdefault(run.tags.get("toxtrail.family", "?"), []).append(run)
    for own in found.values():
        parents = {run.name: run.tags.get("toxtrail.parent", "") for run in own}
        own.sort(key=lambda run: (_depth(run.name, parents), run.name))
    return found


def _depth(name: str, parents: Mapping[str, str]) -> int:
    depth, seen = 0, {name}
    while (name := parents.get(name, "")) in parents and name not in seen:
        depth, seen = depth + 1, {*seen, name}
    return depth


def _relative(experiment: Experiment, path: Path) -> str:
    return path.relative_to(experiment.root).as_posix()

"""MLflow implementation of Tracker: find or create one sealed run for each content."""

from __future__ import annotations

from collections.abc import Container, Mapping, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.mlflow import registry, saved_view
from toxtrail.backends.mlflow.conflicts import retry_conflicts
from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.find_run import (
    find_run,
    is_hash_prefix,
    project_filter,
    project_of,
)
from toxtrail.backends.mlflow.search import search
from toxtrail.backends.mlflow.store import (
    artifact_root,
    deleted_experiment,
    is_local,
    locked_client,
    readonly_client,
    store_exists,
)
from toxtrail.backends.mlflow.store_errors import explain_error
from toxtrail.backends.mlflow.write_run import require_valid_names
from toxtrail.backends.protocols import PublishedRun, RunContent, TrackedRun
from toxtrail.errors import BackendError, ConfigError
from toxtrail.records.run_tags import KEY_TAG, PROJECT_TAG, VERDICT_TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

    from toxtrail.backends.mlflow.read_store import StoredRun


class MlflowTracker:
    """The runs of one project in an experiment, or of all projects in it."""

    def __init__(self, root: Path, experiment: str, project: str | None) -> None:
        """Args:
        root: of the experiment; it determines the store.
        experiment: name of the MLflow experiment.
        project: id; None for all projects, in which nothing can be published.
        """
        self._root = root
        self._experiment = experiment
        self._project = project

    def publish(self, run: RunContent) -> PublishedRun:
        """Find the project's sealed, intact run of this content, or create it. See mlflow_publish.

        Raises:
            BackendError: a name that MLflow does not support, or the store refuses.
        """
        from toxtrail.backends.mlflow.publish import Publication

        assert self._project is not None, "a run is published by one project"
        run = replace(run, tags={**run.tags, PROJECT_TAG: self._project})
        require_valid_names([*run.params, *run.metrics, *run.curves])
        with locked_client(self._root) as client:
            experiment = self._get_or_create_experiment(client)
            published = Publication(client, self._root, experiment, run).publish()
            refused = annotate(client, experiment, run, self._project)
            return published._replace(remarks=(*published.remarks, *refused))

    def in_project(self, project: str) -> MlflowTracker:
        """Return the tracker of another project in the same experiment."""
        return MlflowTracker(self._root, self._experiment, project)

    def runs(self, filter_string: str) -> list[TrackedRun]:
        """List the project's runs that match an MLflow filter, newest first; none if the store
        has no such experiment. Neither is created.

        Raises:
            ConfigError: MLflow cannot read the filter.
            BackendError: the store refuses, or a server is down.
        """
        return self._runs(filter_string, self._project)

    def _runs(self, filter_string: str, project: str | None) -> list[TrackedRun]:
        if not store_exists(self._root):
            return []
        with readonly_client(self._root) as client:
            experiment = self._experiment_id(client)
            matches = (
                []
                if experiment is None
                else _search_filtered(client, experiment, filter_string, project)
            )
            return [as_tracked(run) for run in matches]

    def projects(self) -> list[str]:
        """List the projects that have runs in the experiment.

        Raises:
            BackendError: the store refuses, or a server is down.
        """
        return sorted({project_of(run.tags) for run in self._runs("", None)} - {""})

    def find(self, reference: str) -> TrackedRun | None:
        """Find a run by id, content key or name. See find_run.

        Raises:
            ConfigError: the reference is ambiguous.
        """
        everywhere = self._project is None or is_hash_prefix(reference)
        runs = self._runs("", None if everywhere else self._project)
        return find_run(runs, reference, self._project)

    def files(self, run: TrackedRun) -> RunFiles:
        """Return the files of a run, each verified before it is returned."""
        return RunFiles(self._root, run.run_id, run.name, run.tags, run.artifact_uri)

    def read(self, run_ids: Container[str] | None = None) -> list[StoredRun]:
        """Read runs with their files and all that can be changed of them, to verify them.

        Args:
            run_ids: of the runs, of any project; None for all of this project.

        Raises:
            BackendError: the store cannot be opened.
        """
        from toxtrail.backends.mlflow.read_store import read_store

        project = self._project if run_ids is None else None
        view = read_store(self._root, self._experiment, project, run_ids)
        return list(view.runs) if view else []

    def page(self) -> str:
        """Return the part of a URL of the UI that shows the table of runs; empty without runs.

        Raises:
            BackendError: the store refuses.
        """
        if not store_exists(self._root):
            return ""
        with readonly_client(self._root) as client:
            experiment = self._experiment_id(client)
        return saved_view.page(experiment) if experiment else ""

    def set_tags(self, content_key: str, tags: Mapping[str, str]) -> list[str]:
        """Set tags on the runs of a content, and return their ids.

        Raises:
            BackendError: the store refuses.
        """
        runs = self.runs(f"tags.`{KEY_TAG}` = '{content_key}'")
        if runs:
            with locked_client(self._root) as client:
                for run in runs:
                    for name, value in tags.items():
                        client.set_tag(run.run_id, name, value)
        return [run.run_id for run in runs]

    def set_alias(self, run: TrackedRun, model: str, alias: str) -> str:
        """Set an alias of a registered model to the version of a run. See registry.set_alias.

        Raises:
            BackendError: the store refuses.
        """
        with locked_client(self._root) as client:
            return registry.set_alias(client, run, model, alias)

    def _get_or_create_experiment(self, client: MlflowClient) -> Experiment:
        """Find or create the experiment with an explicit artifact folder: MLflow's default depends
        on the working directory. Another publisher may create it at the same time."""
        from mlflow.exceptions import MlflowException

        location = artifact_root(self._root).as_uri() if is_local(self._root) else None
        if (experiment := self._find_experiment(client)) is not None:
            return experiment
        try:
            client.create_experiment(self._experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = self._find_experiment(client)
        if experiment is None:
            raise BackendError(
                f'The MLflow experiment "{self._experiment}" was created and then disappeared. '
                "Check whether another program deletes experiments, and run again."
            )
        return experiment

    def _experiment_id(self, client: MlflowClient) -> str | None:
        """Return the experiment's id; None if the store has no such experiment."""
        experiment = self._find_experiment(client)
        return None if experiment is None else str(experiment.experiment_id)

    def _find_experiment(self, client: MlflowClient) -> Experiment | None:
        """Return the experiment; raise BackendError if it was deleted or its store was moved."""
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            number, name = str(experiment.experiment_id), str(experiment.name)
            raise BackendError(deleted_experiment(self._root, number, name))
        self._refuse_moved(experiment)
        return experiment

    def _refuse_moved(self, experiment: Experiment) -> None:
        """Raise BackendError for a local store created in another folder, which shows no files."""
        expected_location = artifact_root(self._root).as_uri()
        if is_local(self._root) and experiment.artifact_location != expected_location:
            raise BackendError(
                "mlruns/ was created elsewhere and stores files in "
                f"{experiment.artifact_location}, so this folder was moved or copied. Delete "
                "mlruns/ and run `dvc repro` to rebuild it."
            )


def annotate(
    client: MlflowClient, experiment: Experiment, run: RunContent, project: str
) -> list[str]:
    """Set the experiment's kind and primary metric and the tags of the project's other runs, where
    they are missing.

    Returns:
        What the store refused; users with read access only need not publish anything.
    """
    from mlflow.exceptions import MlflowException

    experiment_id, refused = str(experiment.experiment_id), []
    try:
        _set_experiment_tags(client, experiment, run.primary_metric)
    except MlflowException as error:
        refused.append(_refusal_message("the experiment's kind and metric", client, error))
    for key, tags in run.notes.items():
        for other in search(
            client, experiment_id, f"{project_filter(project)} and tags.`{KEY_TAG}` = '{key}'"
        ):
            try:
                _set_tags(client, other, tags, VERDICT_TAGS)
            except MlflowException as error:
                subject = f"the verdict of the MLflow run {other.info.run_name}"
                refused.append(_refusal_message(subject, client, error))
    return refused


def _set_experiment_tags(client: MlflowClient, experiment: Experiment, metric: str) -> None:
    """Set the tags by which the UI opens the table of runs, with the primary metric."""
    tags = {"mlflow.experimentKind": "custom_model_development"}
    if metric:
        tags["mlflow.experiment.primaryMetric.name"] = metric
        tags["mlflow.experiment.primaryMetric.greaterIsBetter"] = "False"
        tags[saved_view.VIEW_TAG] = saved_view.saved_view(metric)
    for name, value in tags.items():
        if experiment.tags.get(name) != value:
            set_tag = partial(client.set_experiment_tag, experiment.experiment_id, name, value)
            retry_conflicts(set_tag)


def _set_tags(client: MlflowClient, run: Run, tags: Mapping[str, str], replaced: Set[str]) -> None:
    """Set tags on a run and its logged models.

    Args:
        replaced: tags to delete if they are not among `tags`.
    """
    for name, text in tags.items():
        if run.data.tags.get(name) != text:
            client.set_tag(run.info.run_id, name, text)
    for name in sorted(replaced & run.data.tags.keys() - tags.keys()):
        client.delete_tag(run.info.run_id, name)
    for output in run.outputs.model_outputs if run.outputs else []:
        model = client.get_logged_model(output.model_id)
        if any(model.tags.get(name) != text for name, text in tags.items()):
            client.set_logged_model_tags(output.model_id, dict(tags))
        for name in sorted(replaced & model.tags.keys() - tags.keys()):
            client.delete_logged_model_tag(output.model_id, name)


def _refusal_message(what: str, client: MlflowClient, error: Exception) -> str:
    return f"The MLflow store did not accept {what}: {explain_error(error, client.tracking_uri)}"


def _search_filtered(
    client: MlflowClient, experiment: str, filter_string: str, project: str | None
) -> list[Run]:
    """Search a project, or all, with a filter; raise ConfigError if MLflow cannot parse it."""
    from mlflow.exceptions import MlflowException

    of_project = [] if project is None else [project_filter(project)]
    conditions = [*of_project, *([filter_string] if filter_string.strip() else [])]
    try:
        runs = search(client, experiment, " and ".join(conditions))
        return [run for run in runs if project in (None, project_of(run.data.tags))]
    except MlflowException as error:
        if not filter_string or error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--filter: MLflow cannot parse {filter_string!r}: {first} Example: "
            "tags.role = 'benign' and metrics.`judge/all/rate_pct` > 10"
        ) from None


def as_tracked(run: Run) -> TrackedRun:
    """Convert an MLflow run to plain values."""
    data: Any = run.data
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        status=run.info.status,
        start_time=run.info.start_time,
        tags=dict(data.tags),
        params=dict(data.params),
        metrics=dict(data.metrics),
        artifact_uri=run.info.artifact_uri or "",
    )

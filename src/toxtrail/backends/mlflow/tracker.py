"""MLflow behind Tracker: one sealed run for each content, found or created."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.search import search
from toxtrail.backends.mlflow.store import (
    artifact_root,
    deleted_experiment,
    is_local,
    opened,
    reading,
    store_exists,
)
from toxtrail.backends.mlflow.store_errors import explained
from toxtrail.backends.mlflow.write_run import KEY_TAG, SEAL_TAG, refuse_names
from toxtrail.backends.protocols import Published, RunContent, TrackedRun
from toxtrail.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


class MlflowTracker:
    """The runs of one experiment."""

    def __init__(self, root: Path, experiment: str) -> None:
        self._root = root
        self._experiment = experiment

    def publish(self, run: RunContent) -> Published:
        """Find the sealed, intact run of this content, or make it. See mlflow_publish.

        Raises:
            BackendError: a name that MLflow cannot hold, or the store refuses.
        """
        from toxtrail.backends.mlflow.publish import Publication

        refuse_names([*run.params, *run.metrics, *run.curves])
        with opened(self._root) as client:
            experiment = self._made_experiment(client)
            published = Publication(client, self._root, experiment, run).publish()
            refused = annotate(client, experiment, run)
            return published._replace(remarks=(*published.remarks, *refused))

    def runs(self, filter_string: str) -> list[TrackedRun]:
        """Runs of the experiment that match an MLflow filter, newest first; none if the store does
        not know the experiment. Looking makes neither.

        Raises:
            ConfigError: MLflow cannot read the filter.
            BackendError: the store refuses, or a server is down.
        """
        if not store_exists(self._root):
            return []
        with reading(self._root) as client:
            experiment = self._known(client)
            found = [] if experiment is None else _filtered(client, experiment, filter_string)
            return [as_tracked(run) for run in found]

    def find(self, reference: str) -> TrackedRun | None:
        """By run id or content key (at least 8 characters of either), or by name: the newest that
        is sealed, else the newest."""
        matches = [run for run in self.runs("") if _means(run, reference)]
        sealed = [run for run in matches if SEAL_TAG in run.tags]
        return next(iter([*sealed, *matches]), None)

    def files(self, run: TrackedRun) -> RunFiles:
        """The files of a run, each checked before it is given out."""
        return RunFiles(self._root, run.run_id, run.name, run.tags, run.artifact_uri)

    def _made_experiment(self, client: MlflowClient) -> Experiment:
        """Made with its own artifact folder: MLflow's default depends on where it is called
        from. Another publisher may make it at the same time."""
        from mlflow.exceptions import MlflowException

        location = artifact_root(self._root).as_uri() if is_local(self._root) else None
        if (known := self._known_experiment(client)) is not None:
            return known
        try:
            client.create_experiment(self._experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._known_experiment(client)
        if known is None:
            raise BackendError(
                f'The MLflow experiment "{self._experiment}" was made and is gone again. Is '
                "somebody deleting experiments?"
            )
        return known

    def _known(self, client: MlflowClient) -> str | None:
        """The experiment's id; None if the store does not know it."""
        known = self._known_experiment(client)
        return None if known is None else str(known.experiment_id)

    def _known_experiment(self, client: MlflowClient) -> Experiment | None:
        """BackendError for one that was deleted, or lies in a store that was moved."""
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            number, name = str(experiment.experiment_id), str(experiment.name)
            raise BackendError(deleted_experiment(self._root, number, name))
        self._refuse_moved(experiment)
        return experiment

    def _refuse_moved(self, found: Experiment) -> None:
        """BackendError for a local store that was made in another folder: it shows no files."""
        own = artifact_root(self._root).as_uri()
        if is_local(self._root) and found.artifact_location != own:
            raise BackendError(
                f"mlruns/ was made elsewhere and keeps files in {found.artifact_location}: this "
                "folder was moved or copied. Delete mlruns/ and run `dvc repro`: it is rebuilt."
            )


def annotate(client: MlflowClient, experiment: Experiment, run: RunContent) -> list[str]:
    """What a run says beyond itself, where it is not said yet: the experiment's primary metric, and
    tags of other runs.

    Returns:
        What the store refused. A reader of a team's server may publish nothing, and need not.
    """
    from mlflow.exceptions import MlflowException

    experiment_id, refused = str(experiment.experiment_id), []
    try:
        _set_primary_metric(client, experiment, run.primary_metric)
    except MlflowException as error:
        refused.append(_not_noted("the experiment's primary metric", client, error))
    for key, tags in run.notes.items():
        for other in search(client, experiment_id, f"tags.`{KEY_TAG}` = '{key}'"):
            try:
                _set_tags(client, other, tags)
            except MlflowException as error:
                who = f"the verdict of the MLflow run {other.info.run_name}"
                refused.append(_not_noted(who, client, error))
    return refused


def _set_primary_metric(client: MlflowClient, experiment: Experiment, metric: str) -> None:
    wanted = {"name": metric, "greaterIsBetter": "False"} if metric else {}
    for what, value in wanted.items():
        name = f"mlflow.experiment.primaryMetric.{what}"
        if experiment.tags.get(name) != value:
            client.set_experiment_tag(experiment.experiment_id, name, value)


def _set_tags(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    for name, text in tags.items():
        if run.data.tags.get(name) != text:
            client.set_tag(run.info.run_id, name, text)


def _not_noted(what: str, client: MlflowClient, error: Exception) -> str:
    return f"The MLflow store did not take {what}: {explained(error, client.tracking_uri)}"


def _filtered(client: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """ConfigError for a filter that MLflow cannot read."""
    from mlflow.exceptions import MlflowException

    try:
        return search(client, experiment, filter_string)
    except MlflowException as error:
        if not filter_string or error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        first = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--filter: MLflow cannot read {filter_string!r}: {first} For example: "
            "tags.`toxtrail.role` = 'benign' and metrics.`judge/all/rate_pct` > 10"
        ) from None


def as_tracked(run: Run) -> TrackedRun:
    """Plain values of a run."""
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


def _means(run: TrackedRun, reference: str) -> bool:
    if len(reference) >= 8 and re.fullmatch(r"[0-9a-f]+", reference):
        keys = (run.run_id, run.tags.get(KEY_TAG, ""))
        return any(key.startswith(reference) for key in keys)
    return run.name == reference

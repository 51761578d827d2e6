"""MLflow behind Tracker: one sealed run for each content, found or created."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.base import Published, RunContent, TrackedRun
from toxtrail.backends.mlflow_artifacts import RunFiles
from toxtrail.backends.mlflow_runs import (
    KEY_TAG,
    SCHEMA_TAG,
    SCHEMA_VERSION,
    SEAL_TAG,
    create_run,
    delete_run,
    recorded_payload,
    refuse_names,
    stored_sha256,
)
from toxtrail.backends.mlflow_store import (
    artifact_root,
    is_local,
    opened,
    reading,
    store_exists,
)
from toxtrail.errors import BackendError, ConfigError
from toxtrail.identity import sha256_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

PAGE = 500


class MlflowTracker:
    """The runs of one experiment."""

    def __init__(self, root: Path, experiment: str) -> None:
        self._root = root
        self._experiment = experiment

    def publish(self, run: RunContent) -> Published:
        """Find the sealed, intact run of this content, or make it; broken ones are deleted.

        Raises:
            BackendError: a name that MLflow cannot hold, or the store refuses.
        """
        refuse_names([*run.params, *run.metrics, *run.curves])
        with opened(self._root) as client:
            experiment = self._experiment_id(client)
            same = search(client, experiment, f"tags.`{KEY_TAG}` = '{run.content_key}'")
            intact = [found for found in same if self._intact(client, found, run.manifest)]
            for broken in same:
                if broken not in intact[:1]:
                    delete_run(client, experiment, broken.info.run_id)
            annotate(client, experiment, run)
            if intact:
                run_id = intact[0].info.run_id
                return Published(run_id, created=False, payload=recorded_payload(client, run_id))
            return create_run(client, experiment, run)

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

    def _experiment_id(self, client: MlflowClient) -> str:
        """Made with its own artifact folder: MLflow's default depends on where it is called
        from."""
        location = artifact_root(self._root).as_uri() if is_local(self._root) else None
        known = self._known(client)
        return known or str(client.create_experiment(self._experiment, artifact_location=location))

    def _known(self, client: MlflowClient) -> str | None:
        """The experiment's id; None if the store does not know it."""
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            return None
        self._refuse_moved(found)
        return str(found.experiment_id)

    def _refuse_moved(self, found: Experiment) -> None:
        """BackendError for a local store that was made in another folder: it shows no files."""
        own = artifact_root(self._root).as_uri()
        if is_local(self._root) and found.artifact_location != own:
            raise BackendError(
                f"mlruns/ was made elsewhere and keeps files in {found.artifact_location}: this "
                "folder was moved or copied. Delete mlruns/ and run `dvc repro`: it is rebuilt."
            )

    def _intact(self, client: MlflowClient, run: Run, manifest: str) -> bool:
        """Finished, of this schema, sealed with this manifest, and every file still there and
        unchanged."""
        tags = run.data.tags
        if run.info.status != "FINISHED" or tags.get(SCHEMA_TAG) != SCHEMA_VERSION:
            return False
        if tags.get(SEAL_TAG) != sha256_text(manifest):
            return False
        payload = recorded_payload(client, run.info.run_id)
        return bool(payload) and all(
            stored_sha256(client, run.info.run_id, name) == wanted
            for name, wanted in payload.items()
        )


def search(
    client: MlflowClient, experiment: str, filter_string: str, view: int | None = None
) -> list[Run]:
    """All pages of a search, newest first; `view` is an MLflow ViewType (default: not deleted)."""
    from mlflow.entities import ViewType

    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment], filter_string, max_results=PAGE, page_token=token,
            run_view_type=ViewType.ACTIVE_ONLY if view is None else view,
            order_by=["attributes.start_time DESC"],
        )  # fmt: skip
        found += page
        token = page.token
        if not token:
            return found


def annotate(client: MlflowClient, experiment: str, run: RunContent) -> None:
    """What a run says beyond itself: the experiment's primary metric, and tags of other runs."""
    if run.primary_metric:
        name, greater = "mlflow.experiment.primaryMetric.name", "greaterIsBetter"
        client.set_experiment_tag(experiment, name, run.primary_metric)
        client.set_experiment_tag(experiment, f"mlflow.experiment.primaryMetric.{greater}", "False")
    for key, tags in run.notes.items():
        for other in search(client, experiment, f"tags.`{KEY_TAG}` = '{key}'"):
            for name, text in tags.items():
                if other.data.tags.get(name) != text:
                    client.set_tag(other.info.run_id, name, text)


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

"""Write one MLflow run in an order in which only a complete run is sealed."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toxtrail.backends.mlflow.conflicts import retry_conflicts
from toxtrail.backends.mlflow.search import search
from toxtrail.backends.protocols import EXPERIMENT_PLACEHOLDER, LoggedWeights, RunContent
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.records.run_tags import (
    KEY_TAG,
    NONFINITE_TAG,
    NOTE_TAG,
    PAYLOAD_TAG,
    PROJECT_TAG,
    PUBLISHER_TAG,
    SCHEMA_TAG,
    SEAL_TAG,
)
from toxtrail.regular_files import read_bytes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput as MlflowDatasetInput
    from mlflow.entities import Metric

SCHEMA_VERSION = "7"

RECORD, PAYLOAD, MLMODEL = "record.json", "payload.json", "MLmodel"

PARAM_LIMIT, TAG_LIMIT, DIGEST_LIMIT, BATCH = 6000, 8000, 8, 900
"""MLflow's limits: longer params and tags are truncated without a warning, so they are refused or
stored elsewhere. Digests of data sets have 8 characters in MLflow's own clients too."""

NAME = re.compile(r"[\w\-. :/]+")


def delete_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    """Delete a run and the logged models that it created."""
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)
    client.delete_run(run_id)


def write_run(
    client: MlflowClient,
    experiment: str,
    run: RunContent,
    publisher: str,
    check: Callable[[str], None],
) -> tuple[str, dict[str, str]]:
    """Write a new run with all of its content; the seal is written last. The run stays RUNNING: see
    mlflow_publish.

    Args:
        publisher: id of this clone.
        check: called with the run's id before it is sealed; raises if its files are not stored.

    Returns:
        Its id; artifact path -> sha256.
    """
    tags = {**run.tags, KEY_TAG: run.content_key, PUBLISHER_TAG: publisher}
    run_id = str(client.create_run(experiment, run_name=run.name, tags=tags).info.run_id)
    try:
        payload = _write_content(client, experiment, run_id, replace(run, tags=tags))
        check(run_id)
        client.set_tag(run_id, SEAL_TAG, sha256_text(run.manifest))
    except BaseException:
        _mark_failed(client, run_id)
        raise
    return run_id, payload


def finish_run(client: MlflowClient, run_id: str) -> None:
    """Mark a sealed run as finished."""
    client.set_terminated(run_id, status="FINISHED")


def _mark_failed(client: MlflowClient, run_id: str) -> None:
    """Mark the run as failed if the store responds; errors are ignored in favour of the first."""
    with suppress(Exception):
        client.set_terminated(run_id, status="FAILED")


def _write_content(
    client: MlflowClient, experiment: str, run_id: str, run: RunContent
) -> dict[str, str]:
    curves = ((name, value) for name, points in run.curves.items() for _, value in points)
    values = (*run.metrics.items(), *curves)
    nonfinite = sorted({name for name, value in values if not math.isfinite(value)})
    note = run.description.replace(EXPERIMENT_PLACEHOLDER, experiment)
    tags = {**run.tags, SCHEMA_TAG: SCHEMA_VERSION, NOTE_TAG: note}
    if nonfinite:
        tags[NONFINITE_TAG] = ", ".join(nonfinite)
    if run.tables:
        artifacts = [{"path": path, "type": "table"} for path in run.tables]
        tags["mlflow.loggedArtifacts"] = json.dumps(artifacts)
    model = _log_weights(client, experiment, run_id, run.weights) if run.weights else None
    started, logged = client.get_run(run_id).info.start_time, int(time.time() * 1000)
    times = {"start": started, "logged": logged}
    more = {"model": model and model.recorded, "times": times}
    record = json.dumps({**record_of(run, tags), **more}, sort_keys=True, indent=1)
    with tempfile.TemporaryDirectory() as folder:
        payload = _write_files(client, run_id, run, {RECORD: record}, Path(folder))
    tags[PAYLOAD_TAG] = sha256_text(json.dumps(payload, sort_keys=True))
    links = _model_links(client, experiment, run, model.model_id if model else None)
    _log_values(client, run_id, run, tags, _metrics(run, logged, links))
    if run.inputs:
        datasets = list(_datasets(run))
        retry_conflicts(lambda: client.log_inputs(run_id, datasets))
    return payload


INPUT_FIELDS = ("name", "sha256", "context", "source", "schema", "profile")


def record_of(run: RunContent, tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of the run's page for a file of the run: anybody can edit the page."""
    return {
        "name": run.name,
        "tags": dict(tags),
        "hashes": dict(run.hashes),
        "params": {name: _param_text(value) for name, value in run.params.items()},
        "metrics": {n: v for n, v in run.metrics.items() if math.isfinite(v)},
        "curves": {
            name: [[step, value] for step, value in points if math.isfinite(value)]
            for name, points in run.curves.items()
        },
        "inputs": sorted(
            [*(getattr(dataset, name) for name in INPUT_FIELDS)] for dataset in run.inputs
        ),
    }


def _write_files(
    client: MlflowClient,
    run_id: str,
    run: RunContent,
    extra_texts: Mapping[str, str],
    folder: Path,
) -> dict[str, str]:
    """Store every file; payload.json lists the expected hashes."""
    texts = {**run.texts, **extra_texts, "manifest.json": run.manifest}
    for path, columns in run.tables.items():
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        texts[path] = json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False)
    files = dict(run.files)
    for path, text in texts.items():
        files[path] = folder / path
        files[path].parent.mkdir(parents=True, exist_ok=True)
        files[path].write_text(text, encoding="utf-8")
    payload = {path: sha256_file(local) for path, local in sorted(files.items())}
    listing = folder / PAYLOAD
    listing.write_text(json.dumps(payload, sort_keys=True), encoding="utf-8")
    for path, local in {**files, PAYLOAD: listing}.items():
        _log_file(client, run_id, path, local, folder)
    return payload


def _log_file(client: MlflowClient, run_id: str, path: str, local: Path, folder: Path) -> None:
    """Store a file under its artifact path; MLflow uses the local name, so rename a copy."""
    target = Path(path)
    if local.name != target.name:
        renamed = folder / "renamed" / path
        renamed.parent.mkdir(parents=True, exist_ok=True)
        renamed.write_bytes(read_bytes(local, limit=None))
        local = renamed
    parent = target.parent.as_posix()
    client.log_artifact(run_id, str(local), None if parent == "." else parent)


def _log_values(
    client: MlflowClient,
    run_id: str,
    run: RunContent,
    tags: Mapping[str, str],
    metrics: Sequence[Metric],
) -> None:
    from mlflow.entities import Param, RunTag

    params = [Param(name, _param_text(value)) for name, value in run.params.items()]
    for name, value in tags.items():
        if len(value) > TAG_LIMIT:
            raise BackendError(
                f"The tag {name} has {len(value)} characters; MLflow's limit is {TAG_LIMIT}."
            )
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


class ModelLink(NamedTuple):
    """A logged model that a metric describes, and the data set with which it was measured."""

    model_id: str
    dataset_name: str | None
    dataset_digest: str | None


def _model_links(
    client: MlflowClient, experiment: str, run: RunContent, model_id: str | None
) -> dict[str, ModelLink]:
    """Return metric -> logged model that has it too: the run's own, or that of a run of another
    content."""
    links: dict[str, ModelLink] = {}
    if model_id and run.weights:
        evaluated = [dataset for dataset in run.inputs if dataset.context == "evaluation"]
        name, digest = (
            (evaluated[0].name, evaluated[0].sha256[:DIGEST_LIMIT]) if evaluated else (None, None)
        )
        links |= {metric: ModelLink(model_id, name, digest) for metric in run.weights.metrics}
    by_content = {
        key: _model_of_content(client, experiment, key, run.tags.get(PROJECT_TAG, ""))
        for key in sorted(set(run.model_metrics.values()))
    }
    for metric, key in run.model_metrics.items():
        if link := by_content[key]:
            links[metric] = link
    return links


def _model_of_content(
    client: MlflowClient, experiment: str, key: str, project: str
) -> ModelLink | None:
    """Return the logged model of the project's newest sealed run of a content; None without one."""
    for other in search(client, experiment, f"tags.`{KEY_TAG}` = '{key}'"):
        if other.data.tags.get(PROJECT_TAG, "") != project:
            continue
        models = other.outputs.model_outputs if other.outputs else []
        if SEAL_TAG in other.data.tags and models:
            datasets = [
                item.dataset
                for item in (other.inputs.dataset_inputs if other.inputs else [])
                if ("mlflow.data.context", "evaluation") in {(t.key, t.value) for t in item.tags}
            ]
            name, digest = (datasets[0].name, datasets[0].digest) if datasets else (None, None)
            return ModelLink(models[0].model_id, name, digest)
    return None


def _metrics(run: RunContent, logged: int, links: Mapping[str, ModelLink]) -> list[Metric]:
    """Return finite metrics only: MLflow stores infinity as a huge number.

    Args:
        logged: time in milliseconds since the epoch, the same for all, as in the record.
        links: metric -> logged model that has it too.
    """
    from mlflow.entities import Metric

    single = ((name, 0, value) for name, value in run.metrics.items())
    curves = ((name, step, v) for name, points in run.curves.items() for step, v in points)
    metrics = []
    for name, step, value in (*single, *curves):
        if math.isfinite(value):
            link = links[name]._asdict() if name in links else {}
            metrics.append(Metric(name, value, logged, step, **link))
    return metrics


def _param_text(value: str | int | float) -> str:
    """Format a parameter; if too long for MLflow, its hash (the manifest has the full value)."""
    text = str(value)
    return text if len(text) <= PARAM_LIMIT else f"sha256:{sha256_text(text)} (see manifest.json)"


def _datasets(run: RunContent) -> Iterator[MlflowDatasetInput]:
    """Convert dataset inputs; MLflow's digest is shorter, so a tag has the full hash."""
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    for dataset_input in run.inputs:
        source = json.dumps({"uri": dataset_input.source})
        dataset = Dataset(
            dataset_input.name, dataset_input.sha256[:DIGEST_LIMIT], "local", source,
            schema=dataset_input.schema or None, profile=dataset_input.profile or None,
        )  # fmt: skip
        tags = [
            InputTag("mlflow.data.context", dataset_input.context),
            InputTag("sha256", dataset_input.sha256),
        ]
        yield MlflowDatasetInput(dataset, tags)


class LoggedModel(NamedTuple):
    """A logged model of this run."""

    model_id: str
    recorded: dict[str, Any]
    """Its expected metadata in the store."""


def _log_weights(
    client: MlflowClient, experiment: str, run_id: str, weights: LoggedWeights
) -> LoggedModel:
    """Log an external model: its hashes, not its weights. It can be registered like any other."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus
    from mlflow.models.utils import get_external_mlflow_model_spec

    tags = {**weights.tags, "sha256": weights.sha256, "mlflow.model.isExternal": "true"}
    if weights.description:
        tags[NOTE_TAG] = weights.description.replace(EXPERIMENT_PLACEHOLDER, experiment)
    params = {name: value[:PARAM_LIMIT] for name, value in weights.params.items()}
    model = client.create_logged_model(
        experiment, name=weights.name, source_run_id=run_id, tags=tags, params=params,
        model_type=weights.kind,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MLMODEL
        get_external_mlflow_model_spec(model).save(str(path))
        digest = sha256_file(path)
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    recorded = {
        "name": weights.name, "tags": tags, "params": params, "mlmodel_sha256": digest,
        "metrics": sorted(weights.metrics),
    }  # fmt: skip
    return LoggedModel(str(model.model_id), recorded)


def require_valid_names(names: list[str]) -> None:
    """Raise BackendError for a name that MLflow would refuse or change."""
    for name in names:
        if not NAME.fullmatch(name):
            raise BackendError(
                f"MLflow does not support the name {name!r}. Allowed: letters, digits, spaces and "
                "_ - . : /"
            )

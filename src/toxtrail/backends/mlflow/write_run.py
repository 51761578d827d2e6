"""One MLflow run: written in an order in which only a whole one is ever sealed."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toxtrail.backends.protocols import EXPERIMENT, LoggedAdapter, RunContent
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import sha256_file, sha256_text
from toxtrail.regular_files import read_bytes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput as MlflowDatasetInput
    from mlflow.entities import Metric

KEY_TAG = "toxtrail.content_key"
SEAL_TAG = "toxtrail.seal"
PAYLOAD_TAG = "toxtrail.payload_sha256"
NONFINITE_TAG = "toxtrail.nonfinite_metrics"
SCHEMA_TAG = "toxtrail.schema_version"
SCHEMA_VERSION = "5"
PUBLISHER_TAG = "toxtrail.publisher"
"""Which clone wrote a run: only that one may delete it if it was never finished."""

RECORD, PAYLOAD, MLMODEL = "record.json", "payload.json", "MLmodel"

PARAM_LIMIT, TAG_LIMIT, DIGEST_LIMIT, BATCH = 6000, 8000, 36, 900
"""What MLflow holds: longer params and tags are cut without a word, so they are refused or
moved."""

NAME = re.compile(r"[\w\-. :/]+")


def delete_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    """A run and the logged models that it brought."""
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
    """A new run with everything in it; the seal is its last write. It is RUNNING still: see
    mlflow_publish.

    Args:
        publisher: which clone this is.
        check: called with the run's id before it is sealed; raises if its files did not arrive.

    Returns:
        Its id; artifact path -> sha256.
    """
    tags = {KEY_TAG: run.content_key, PUBLISHER_TAG: publisher}
    run_id = str(client.create_run(experiment, run_name=run.name, tags=tags).info.run_id)
    try:
        payload = _fill(client, experiment, run_id, replace(run, tags={**run.tags, **tags}))
        check(run_id)
        client.set_tag(run_id, SEAL_TAG, sha256_text(run.manifest))
    except BaseException:
        _mark_failed(client, run_id)
        raise
    return run_id, payload


def finish_run(client: MlflowClient, run_id: str) -> None:
    """Say that a sealed run stands."""
    client.set_terminated(run_id, status="FINISHED")


def _mark_failed(client: MlflowClient, run_id: str) -> None:
    """As far as the store still answers: what went wrong first is what counts."""
    with suppress(Exception):
        client.set_terminated(run_id, status="FAILED")


def _fill(client: MlflowClient, experiment: str, run_id: str, run: RunContent) -> dict[str, str]:
    curves = ((name, value) for name, points in run.curves.items() for _, value in points)
    values = (*run.metrics.items(), *curves)
    bad = sorted({name for name, value in values if not math.isfinite(value)})
    note = run.description.replace(EXPERIMENT, experiment)
    tags = {**run.tags, SCHEMA_TAG: SCHEMA_VERSION, "mlflow.note.content": note}
    if bad:
        tags[NONFINITE_TAG] = ", ".join(bad)
    if run.tables:
        shown = [{"path": path, "type": "table"} for path in run.tables]
        tags["mlflow.loggedArtifacts"] = json.dumps(shown)
    adapter = _log_adapter(client, experiment, run_id, run.adapter) if run.adapter else None
    started, logged = client.get_run(run_id).info.start_time, int(time.time() * 1000)
    times = {"start": started, "logged": logged}
    more = {"adapter": adapter, "times": times}
    record = json.dumps({**record_of(run, tags), **more}, sort_keys=True, indent=1)
    with tempfile.TemporaryDirectory() as folder:
        payload = _write_files(client, run_id, run, {RECORD: record}, Path(folder))
    tags[PAYLOAD_TAG] = sha256_text(json.dumps(payload, sort_keys=True))
    _log_values(client, run_id, run, tags, logged)
    if run.inputs:
        client.log_inputs(run_id, list(_datasets(run)))
    return payload


def record_of(run: RunContent, tags: Mapping[str, str]) -> dict[str, Any]:
    """What the run's page shows, in a file of the run: MLflow lets anybody change the page."""
    return {
        "name": run.name,
        "tags": dict(tags),
        "params": {name: _param(value) for name, value in run.params.items()},
        "metrics": {n: v for n, v in run.metrics.items() if math.isfinite(v)},
        "curves": {
            name: [[step, value] for step, value in points if math.isfinite(value)]
            for name, points in run.curves.items()
        },
        "inputs": sorted([one.name, one.sha256, one.context, one.source] for one in run.inputs),
    }


def _write_files(
    client: MlflowClient,
    run_id: str,
    run: RunContent,
    own: Mapping[str, str],
    folder: Path,
) -> dict[str, str]:
    """Store every file; payload.json says what each must hash to."""
    texts = {**run.texts, **own, "manifest.json": run.manifest}
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
        _store(client, run_id, path, local, folder)
    return payload


def _store(client: MlflowClient, run_id: str, path: str, local: Path, folder: Path) -> None:
    """MLflow keeps the local name: give the file the one it shall have."""
    target = Path(path)
    if local.name != target.name:
        renamed = folder / "renamed" / path
        renamed.parent.mkdir(parents=True, exist_ok=True)
        renamed.write_bytes(read_bytes(local, limit=None))
        local = renamed
    parent = target.parent.as_posix()
    client.log_artifact(run_id, str(local), None if parent == "." else parent)


def _log_values(
    client: MlflowClient, run_id: str, run: RunContent, tags: Mapping[str, str], logged: int
) -> None:
    from mlflow.entities import Param, RunTag

    metrics = list(_metrics(run, logged))
    params = [Param(name, _param(value)) for name, value in run.params.items()]
    for name, value in tags.items():
        if len(value) > TAG_LIMIT:
            raise BackendError(
                f"The tag {name} has {len(value)} characters; MLflow holds {TAG_LIMIT}."
            )
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


def _metrics(run: RunContent, logged: int) -> Iterator[Metric]:
    """Finite ones only: MLflow stores infinity as a huge number.

    Args:
        logged: when, in milliseconds since the epoch: the same for all, as the record says it.
    """
    from mlflow.entities import Metric

    single = ((name, 0, value) for name, value in run.metrics.items())
    curves = ((name, step, v) for name, points in run.curves.items() for step, v in points)
    for name, step, value in (*single, *curves):
        if math.isfinite(value):
            yield Metric(name, value, logged, step)


def _param(value: str | int | float) -> str:
    """Too long for MLflow: its hash; the manifest has it in full."""
    text = str(value)
    return text if len(text) <= PARAM_LIMIT else f"sha256:{sha256_text(text)} (see manifest.json)"


def _datasets(run: RunContent) -> Iterator[MlflowDatasetInput]:
    """MLflow's digest holds 36 characters: the whole hash goes into a tag of the input."""
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    for one in run.inputs:
        source = json.dumps({"uri": one.source})
        dataset = Dataset(one.name, one.sha256[:DIGEST_LIMIT], "local", source)
        tags = [InputTag("mlflow.data.context", one.context), InputTag("sha256", one.sha256)]
        yield MlflowDatasetInput(dataset, tags)


def _log_adapter(
    client: MlflowClient, experiment: str, run_id: str, adapter: LoggedAdapter
) -> dict[str, Any]:
    """An external logged model: its hashes, not its weights. It can be registered like any other.

    Returns:
        What the store must say of it.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus
    from mlflow.models.utils import get_external_mlflow_model_spec

    tags = {**adapter.tags, "adapter_sha256": adapter.sha256, "mlflow.model.isExternal": "true"}
    params = {name: value[:PARAM_LIMIT] for name, value in adapter.params.items()}
    model = client.create_logged_model(
        experiment, name=adapter.name, source_run_id=run_id, tags=tags, params=params,
        model_type="LoRA adapter",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MLMODEL
        get_external_mlflow_model_spec(model).save(str(path))
        digest = sha256_file(path)
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return {"name": adapter.name, "tags": tags, "params": params, "mlmodel_sha256": digest}


def refuse_names(names: list[str]) -> None:
    """BackendError for a name that MLflow would refuse, or change, half-way through."""
    for name in names:
        if not NAME.fullmatch(name):
            raise BackendError(
                f"MLflow cannot hold the name {name!r}: letters, digits and _ - . : / and "
                "spaces only."
            )

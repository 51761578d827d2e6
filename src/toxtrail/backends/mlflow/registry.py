"""MLflow model registry: aliases of the variants that passed a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toxtrail.backends.protocols import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient


def set_alias(client: MlflowClient, run: TrackedRun, model: str, alias: str) -> str:
    """Set an alias of a registered model to the version of a run, which is created if necessary.

    Args:
        run: of a variant. Its logged model is registered, or, if it has none, the run's artifacts:
            in both cases hashes and results, not weights.

    Returns:
        The number of the version.

    Raises:
        MlflowException: the store refuses.
    """
    _create_model(client, model)
    version = _find_version(client, model, run.run_id) or _create_version(client, model, run)
    client.set_registered_model_alias(model, alias, version)
    return version


def _create_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: MlflowClient, model: str, run_id: str) -> str | None:
    quoted = model.replace("'", "''")
    versions = client.search_model_versions(f"name='{quoted}'")
    return next((str(version.version) for version in versions if version.run_id == run_id), None)


def _create_version(client: MlflowClient, model: str, run: TrackedRun) -> str:
    stored = client.get_run(run.run_id)
    logged = [output.model_id for output in stored.outputs.model_outputs] if stored.outputs else []
    model_id = logged[0] if logged else None
    # not `models:/<id>`, which MLflow looks up in the global store
    source = client.get_logged_model(model_id).artifact_location if model_id else run.artifact_uri
    version = client.create_model_version(model, source, run_id=run.run_id, model_id=model_id)
    return str(version.version)

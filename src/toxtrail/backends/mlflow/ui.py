"""Serve the MLflow UI for an experiment's local store."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from toxtrail.backends.mlflow.store import artifact_root, is_local, locked_client, tracking_uri
from toxtrail.backends.subprocesses import run_foreground
from toxtrail.errors import BackendError
from toxtrail.redaction import redacted


def server_address(root: Path, page: str) -> str:
    """Return the address of a page on the team's server; empty for a local store or a database,
    which have none.

    Args:
        page: see MlflowTracker.page.
    """
    uri = redacted(tracking_uri(root)).rstrip("/")
    return "" if is_local(root) or not uri.startswith(("http://", "https://")) else f"{uri}{page}"


def serve_ui(root: Path, host: str, port: int) -> int:
    """Run `mlflow ui` until it is stopped, together with its child processes.

    Returns:
        Its exit code, 0 if it was stopped by Ctrl-C.

    Raises:
        BackendError: the port is in use, or the store is a team's server, which has its own UI.
    """
    if not is_local(root):
        raise BackendError(
            f"MLFLOW_TRACKING_URI is {redacted(tracking_uri(root))}, not this experiment's store. "
            "If it is a database, start `mlflow ui` for it."
        )
    _refuse_taken_port(host, port)
    with locked_client(root):
        pass
    command = [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri(root),
        "--default-artifact-root", artifact_root(root).as_uri(),
        "--host", host, "--port", str(port),
        "--workers", "1",  # starts at once; several are restarted forever on a busy machine
    ]  # fmt: skip
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five processes that toxtrail does not use
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    try:
        return run_foreground(command, root, environment)
    except KeyboardInterrupt:
        return 0


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BackendError(
                f"{host}:{port} cannot be used ({error.strerror}). Try another port: toxtrail ui "
                f"--port {port + 1}"
            ) from None

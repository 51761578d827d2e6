"""Which MLflow store belongs to an experiment, and how it is opened without breaking it."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.errors import BackendError, ConfigError, UnreadableError, why_unread
from toxtrail.provenance.identity import sha256_text
from toxtrail.redaction import redacted
from toxtrail.regular_files import is_file, open_regular, read_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 600
"""Longer than any one run takes to publish."""


def tracking_root(root: Path) -> Path:
    """$DVC_ROOT where DVC sets it (queued experiments run in copies of the repo), else `root`."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def tracking_uri(root: Path) -> str:
    """$MLFLOW_TRACKING_URI (a team's server), else the SQLite file under mlruns/."""
    own = os.environ.get("MLFLOW_TRACKING_URI")
    return own or f"sqlite:///{local_store(root)}"


def artifact_root(root: Path) -> Path:
    """Where the local store keeps files."""
    return tracking_root(root) / "mlruns" / "artifacts"


def is_local(root: Path) -> bool:
    """Whether the store is the experiment's own."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def store_exists(root: Path) -> bool:
    """False only for a local store that was never written, or is an empty file: MLflow would fill
    that without a word.
    """
    path = local_store(root)
    return not is_local(root) or (path.is_file() and path.stat().st_size > 0)


def local_store(root: Path) -> Path:
    """The experiment's own database."""
    return tracking_root(root) / "mlruns" / "mlflow.db"


def publisher_id(root: Path) -> str:
    """Which clone on which host this is, without saying so; to be asked while the store is open.

    A copy of a clone is another one, and so is the same folder seen from another host: what an
    interrupted publication left is deleted only by the one that made it.
    """
    lock = _lock_file(root)
    mark = lock.with_name(".publisher")
    try:
        own = read_text(mark) if is_file(mark) else ""
        if not re.fullmatch(r"[0-9a-f]{32}", own):
            own = uuid.uuid4().hex
            mark.write_text(own, encoding="utf-8")
    except OSError:  # a folder to be read only: nothing here can be told from another's
        own = uuid.uuid4().hex
    return sha256_text(f"{own} {platform.node()} {lock} {lock.stat().st_ino}")[:16]


def deleted_experiment(root: Path, experiment_id: str, name: str) -> str:
    """What to do about an experiment that is in MLflow's bin."""
    where = f"MLFLOW_TRACKING_URI={tracking_uri(root)} " if is_local(root) else ""
    return (
        f'The MLflow experiment "{name}" was deleted in MLflow. Its runs are kept until '
        f"somebody runs `mlflow gc`. To restore them: `{where}mlflow experiments restore "
        f"--experiment-id {experiment_id}`. To leave them and start anew: write another "
        "name under tracking.experiment in params.yaml."
    )


def scratch_folder() -> Path:
    """A new folder for what is fetched from a server; gone when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="toxtrail-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def opened(root: Path) -> Iterator[MlflowClient]:
    """A client, alone on this host while the block runs.

    Several processes that open a missing SQLite store at once can break it for good, and two that
    look for the same run can both create it: so there is one lock for both.

    Raises:
        BackendError: the store cannot be opened, or another process holds it for ten minutes.
    """
    from filelock import FileLock, Timeout

    lock = _lock_file(root)
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield from _client(root)
    except Timeout:
        raise BackendError(
            f"Another process has held {lock} for {LOCK_SECONDS} s. Stop it, then run again."
        ) from None


def _lock_file(root: Path) -> Path:
    """In mlruns/; where nobody may write, a checkout to be read only, beside other temporary files:
    no run can be made there, so there is no race to lose.
    """
    lock = tracking_root(root) / "mlruns" / ".lock"
    with suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    if os.access(lock if lock.exists() else lock.parent, os.W_OK):
        return lock
    name = f"toxtrail-{sha256_text(str(lock))[:16]}-{os.getuid()}.lock"
    return Path(tempfile.gettempdir()) / name


@contextmanager
def reading(root: Path) -> Iterator[MlflowClient]:
    """A client to look with: a team's server needs no lock of ours, nor a folder to keep it in."""
    if is_local(root):
        with opened(root) as client:
            yield client
    else:
        yield from _client(root)


def _client(root: Path) -> Iterator[MlflowClient]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    uri = tracking_uri(root)
    _refuse_address(uri)
    try:
        if is_local(root):
            from toxtrail.backends.mlflow.create_store import complete_store

            _refuse_unreadable(local_store(root))
            complete_store(local_store(root), artifact_root(root))
        yield MlflowClient(tracking_uri=uri)
    except Exception as error:
        if not _is_of_a_store(error):
            raise
        raise _refused(root, uri, error) from error


def _refuse_unreadable(path: Path) -> None:
    """MLflow would try for minutes to open a database that may not be read.

    Raises:
        UnreadableError: it is there, and the operating system refuses it.
    """
    try:
        if is_file(path):
            open_regular(path).close()
    except OSError as error:
        raise UnreadableError(f"The MLflow store: {why_unread(error) or error}") from error


class UnreachableStoreError(BackendError):
    """Nothing answers at the store's address: nothing can be said of it."""


class DamagedStoreError(BackendError):
    """The store is there and was read, and is no database of MLflow's."""


CLIENTS = frozenset(
    {
        "mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "boto3", "botocore", "s3transfer",
        "azure", "google", "paramiko", "pysftp", "databricks",
    }
)  # fmt: skip
"""Packages by which a store is reached. Those of cloud stores need not be installed, so that their
errors are known by name: they are raised as they are where files are written."""


def _is_of_a_store(error: Exception) -> bool:
    modules = {one.__module__.partition(".")[0] for one in type(error).__mro__}
    return isinstance(error, ImportError) or not modules.isdisjoint(CLIENTS)


def _refuse_address(uri: str) -> None:
    """ConfigError for an address without a scheme: MLflow takes it for a folder."""
    if "://" in uri or uri in ("databricks", "databricks-uc", "uc"):
        return
    if uri.startswith((".", "/", "~", "file:")) or Path(uri).is_dir():
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is a folder ({redacted(uri)}): MLflow no longer keeps runs in "
            "one. Write the address of a server (https://...) or of a database "
            "(sqlite:////FOLDER/mlflow.db), or unset it to use the experiment's own store."
        )
    raise ConfigError(
        f"MLFLOW_TRACKING_URI has no scheme: {redacted(uri)}. Write https://{redacted(uri)} or "
        f"http://{redacted(uri)}."
    )


def _refused(root: Path, uri: str, error: Exception) -> BackendError:
    """The store's failure in words."""
    from toxtrail.backends.mlflow.store_errors import explained, is_damage, is_unreachable

    cure, kind = "", BackendError
    if is_local(root) and is_damage(error):
        cure = " To rebuild it from the results here, delete mlruns/ and run `dvc repro`."
        kind = DamagedStoreError
    elif not is_local(root):
        cure = " Without MLFLOW_TRACKING_URI, this experiment's own store is used."
        kind = UnreachableStoreError if is_unreachable(error) else BackendError
    return kind(f"The MLflow store {redacted(uri)} failed. {explained(error, uri)}{cure}")

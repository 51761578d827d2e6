"""Locate an experiment's MLflow store, and open it safely."""

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
"""Timeout of the lock: longer than the publication of any run."""
CONNECT_SECONDS = 10
"""Time in which a database server must accept a connection. Our choice."""
TIMEOUT_DRIVERS = frozenset({"psycopg", "psycopg2", "pymysql", "mysqldb", "mysqlconnector"})
"""SQLAlchemy's names of the drivers with an argument `connect_timeout`."""


def tracking_root(root: Path) -> Path:
    """Return $DVC_ROOT if DVC sets it (queued experiments run in copies), else `root`."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def tracking_uri(root: Path) -> str:
    """Return $MLFLOW_TRACKING_URI (a team's server), else the SQLite file under mlruns/."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    return configured or f"sqlite:///{local_store(root)}"


def artifact_root(root: Path) -> Path:
    """Return the local store's folder of artifacts."""
    return tracking_root(root) / "mlruns" / "artifacts"


def is_local(root: Path) -> bool:
    """Return whether the store is the experiment's local one."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def store_exists(root: Path) -> bool:
    """Return whether the store exists: False only for a local store that was never written, or is
    an empty file, which MLflow would fill without a warning.
    """
    path = local_store(root)
    return not is_local(root) or (path.is_file() and path.stat().st_size > 0)


def local_store(root: Path) -> Path:
    """Return the path of the experiment's local database."""
    return tracking_root(root) / "mlruns" / "mlflow.db"


def publisher_id(root: Path) -> str:
    """Return an anonymous id of this clone on this host; call it while the store is open.

    A copy of a clone is a different one, and so is the same folder on another host: leftovers of an
    interrupted publication are deleted only by the clone that created them.
    """
    lock = _lock_file(root)
    mark = lock.with_name(".publisher")
    try:
        clone_id = read_text(mark) if is_file(mark) else ""
        if not re.fullmatch(r"[0-9a-f]{32}", clone_id):
            clone_id = uuid.uuid4().hex
            mark.write_text(clone_id, encoding="utf-8")
    except OSError:  # a read-only folder: this clone cannot be identified
        clone_id = uuid.uuid4().hex
    return sha256_text(f"{clone_id} {platform.node()} {lock} {lock.stat().st_ino}")[:16]


def deleted_experiment(root: Path, experiment_id: str, name: str) -> str:
    """Explain what to do about an experiment that was deleted in MLflow."""
    where = f"MLFLOW_TRACKING_URI={tracking_uri(root)} " if is_local(root) else ""
    return (
        f'The MLflow experiment "{name}" was deleted in MLflow. Its runs are kept until '
        f"`mlflow gc` is run. To restore them: `{where}mlflow experiments restore "
        f"--experiment-id {experiment_id}`. To leave them deleted and start again: set another "
        "name at tracking.experiment in params.yaml (or in MLFLOW_EXPERIMENT_NAME, if it is set)."
    )


def scratch_folder() -> Path:
    """Create a folder for files fetched from a server; it is deleted when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="toxtrail-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def locked_client(root: Path) -> Iterator[MlflowClient]:
    """Open a client, and lock the store on this host for the block.

    Several processes that open a missing SQLite store at once can damage it permanently, and two
    that search for the same run can both create it: so there is one lock for both.

    Raises:
        BackendError: the store cannot be opened, or another process locks it for ten minutes.
    """
    from filelock import FileLock, Timeout

    lock = _lock_file(root)
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield from _open_client(root)
    except Timeout:
        raise BackendError(
            f"Another process has locked {lock} for {LOCK_SECONDS} s. Stop it, then run again."
        ) from None


def _lock_file(root: Path) -> Path:
    """Return the lock file in mlruns/; for a read-only checkout, one in the temporary folder: no
    run can be created there, so there is no race.
    """
    lock = tracking_root(root) / "mlruns" / ".lock"
    with suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    if os.access(lock if lock.exists() else lock.parent, os.W_OK):
        return lock
    name = f"toxtrail-{sha256_text(str(lock))[:16]}-{os.getuid()}.lock"
    return Path(tempfile.gettempdir()) / name


@contextmanager
def readonly_client(root: Path) -> Iterator[MlflowClient]:
    """Open a client for reading; a team's server needs no lock, and no folder for it."""
    if is_local(root):
        with locked_client(root) as client:
            yield client
    else:
        yield from _open_client(root)


def _open_client(root: Path) -> Iterator[MlflowClient]:
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
        _connect_once(uri)
        if is_local(root):
            from toxtrail.backends.mlflow.create_store import complete_store

            _refuse_unreadable(local_store(root))
            complete_store(local_store(root), artifact_root(root))
        yield MlflowClient(tracking_uri=uri)
    except Exception as error:
        if not _is_store_error(error):
            raise
        raise _store_error(root, uri, error) from error


def _connect_once(uri: str) -> None:
    """Connect to a database server, so that one that does not respond is an error at once: MLflow
    would repeat its attempts for minutes.

    Raises:
        SQLAlchemyError: it does not accept the connection.
    """
    if not uri.startswith(("postgresql", "mysql")):
        return
    from sqlalchemy import NullPool, create_engine

    with create_engine(uri, connect_args=connect_arguments(uri), poolclass=NullPool).connect():
        pass


def connect_arguments(uri: str) -> dict[str, int]:
    """Return the time-out in seconds for a database's driver; empty if the address has one, or if
    the driver has no such argument.

    Raises:
        SQLAlchemyError: the address names an unknown driver.
    """
    from sqlalchemy import make_url

    url = make_url(uri)
    if "connect_timeout" in url.query or url.get_driver_name() not in TIMEOUT_DRIVERS:
        return {}
    return {"connect_timeout": CONNECT_SECONDS}


def _refuse_unreadable(path: Path) -> None:
    """Raise if the database cannot be read; MLflow would retry for minutes.

    Raises:
        UnreadableError: it exists, and the operating system refuses access.
    """
    try:
        if is_file(path):
            open_regular(path).close()
    except OSError as error:
        raise UnreadableError(f"The MLflow store: {why_unread(error) or error}") from error


class UnreachableStoreError(BackendError):
    """The store cannot be reached, so its content is unknown."""


class DamagedStoreError(BackendError):
    """The store was read, and is not an MLflow database."""


CLIENTS = frozenset(
    {
        "mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3", "boto3", "botocore", "s3transfer",
        "azure", "google", "paramiko", "pysftp", "databricks",
    }
)  # fmt: skip
"""Packages that access a store. Those of cloud stores may not be installed, so their errors are
recognised by name; they are raised where files are written."""


def _is_store_error(error: Exception) -> bool:
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, ImportError) or not modules.isdisjoint(CLIENTS)


def _refuse_address(uri: str) -> None:
    """Raise ConfigError for an address without a scheme, which MLflow treats as a folder."""
    if "://" in uri or uri in ("databricks", "databricks-uc", "uc"):
        return
    if uri.startswith((".", "/", "~", "file:")) or Path(uri).is_dir():
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is a folder ({redacted(uri)}), which MLflow no longer supports. "
            "Set it to the address of a server (https://...) or of a database "
            "(sqlite:////FOLDER/mlflow.db), or unset it to use the experiment's local store."
        )
    raise ConfigError(
        f"MLFLOW_TRACKING_URI has no scheme: {redacted(uri)}. Use https://{redacted(uri)} or "
        f"http://{redacted(uri)}."
    )


def _store_error(root: Path, uri: str, error: Exception) -> BackendError:
    """Convert the store's failure to an error with an explanation."""
    from toxtrail.backends.mlflow.store_errors import explain_error, is_unreachable, needs_rebuild

    cure, kind = "", BackendError
    if is_local(root) and needs_rebuild(error):
        cure = " To rebuild it from the local results, delete mlruns/ and run `dvc repro`."
        kind = DamagedStoreError
    elif not is_local(root):
        cure = " Without MLFLOW_TRACKING_URI, this experiment's local store is used."
        kind = UnreachableStoreError if is_unreachable(error) else BackendError
    return kind(f"The MLflow store {redacted(uri)} failed. {explain_error(error, uri)}{cure}")

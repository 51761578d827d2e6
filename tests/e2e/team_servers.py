"""A team's servers on this machine: PostgreSQL, an object store with the S3 protocol, MLflow.

All are real programs that listen on loopback, and their files are in temporary folders.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

BUCKET = "artifacts"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "team-key", "AWS_SECRET_ACCESS_KEY": "team-secret"}
START_SECONDS = 180
PROGRAMS = Path(sys.executable).parent


class Database(NamedTuple):
    """A running PostgreSQL cluster."""

    port: int
    password: str

    def uri(self, name: str) -> str:
        """The address of a database, as MLflow takes it."""
        return f"postgresql://mlflow:{self.password}@127.0.0.1:{self.port}/{name}"

    def rows(self, name: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement in a database; the rows that it returns."""
        import psycopg

        with psycopg.connect(self.uri(name), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


class ObjectStore(NamedTuple):
    """A running server with the S3 protocol."""

    url: str

    @property
    def settings(self) -> dict[str, str]:
        """Variables for its clients."""
        return {
            **S3_KEYS, "MLFLOW_S3_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip

    def keys(self, run_id: str) -> dict[str, str]:
        """Path of each file of a run -> its key in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        marker = f"{run_id}/artifacts/"
        return {key.partition(marker)[2]: key for key in keys if marker in key}


class MlflowServer:
    """An `mlflow server` that can be killed and started again."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], log: Path, *, prefix: str = "",
        tls: Certificates | None = None,
    ) -> None:  # fmt: skip
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}{prefix}"
        self._command = [
            str(PROGRAMS / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(self.port),
            *arguments,
        ]  # fmt: skip
        self._env = {
            **os.environ, **env, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
        }  # fmt: skip
        self._env.pop("MLFLOW_TRACKING_URI", None)
        self._log = log
        self._context = ssl.create_default_context(cafile=tls.authority) if tls else None
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start it without waiting, instead of one that may still run."""
        self.kill()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until it answers."""
        process = self._process
        assert process is not None
        wait_for(lambda: answers(f"{self.url}/health", self._context), process, self._log)

    def start(self) -> None:
        self.launch()
        self.wait()

    def kill(self) -> None:
        """Kill it and its workers at once, as `kill -9` does."""
        stop(self._process, signal.SIGKILL)
        self._process = None


class Certificates(NamedTuple):
    """A private certification authority, and a server certificate that it signed."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Certificates for 127.0.0.1, with the extensions that Python 3.13 demands (RFC 5280)."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def identifier(kind: Any, owner: str) -> Any:
        public = keys[owner].public_key()
        is_subject = kind is x509.SubjectKeyIdentifier
        return kind.from_public_key(public) if is_subject else kind.from_issuer_public_key(public)

    def key_usage(*, is_authority: bool) -> x509.KeyUsage:
        others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                  "encipher_only", "decipher_only")  # fmt: skip
        return x509.KeyUsage(
            digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority,
            **dict.fromkeys(others, False),
        )  # fmt: skip

    now = datetime.now(UTC)
    keys = {owner: ec.generate_private_key(ec.SECP256R1()) for owner in ("authority", "server")}
    written = {}
    for owner in keys:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(owner))
            .issuer_name(name("authority"))
            .public_key(keys[owner].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(owner == "authority", None), critical=True)
            .add_extension(identifier(x509.SubjectKeyIdentifier, owner), critical=False)
            .add_extension(identifier(x509.AuthorityKeyIdentifier, "authority"), critical=False)
            .add_extension(key_usage(is_authority=owner == "authority"), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        certificate = builder.sign(keys["authority"], hashes.SHA256())
        written[owner] = folder / f"{owner}.pem"
        written[owner].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key = folder / "server.key"
    key.write_bytes(
        keys["server"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificates(written["authority"], written["server"], key)


@contextmanager
def postgres() -> Iterator[Database]:
    """A new cluster on a free port. PostgreSQL does not run as root: it gets another user then."""
    programs = postgres_programs()
    account = unprivileged_account()
    folder = Path(tempfile.mkdtemp(prefix="toxtrail-postgres-"))
    database = Database(free_port(), secrets.token_hex(8))
    (folder / "password").write_text(database.password, "utf-8")
    options: dict[str, Any] = {"cwd": folder}
    if account is not None:
        for path in (folder, folder / "password"):
            os.chown(path, account.pw_uid, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    log = folder / "log"
    process = None
    try:
        create = [
            programs / "initdb", "--pgdata", folder / "data", "--username", "mlflow",
            "--pwfile", folder / "password", "--auth", "scram-sha-256", "--no-sync",
            "--encoding", "UTF8", "--locale", "C",
        ]  # fmt: skip
        done = subprocess.run(create, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off",
            "max_connections": "200", "shared_buffers": "32MB",
        }  # fmt: skip
        serve = [
            programs / "postgres", "-D", folder / "data", "-p", str(database.port),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                serve, stdout=output, stderr=output, start_new_session=True, **options
            )
        wait_for(lambda: _accepts(database), process, log)
        yield database
    finally:
        stop(process, signal.SIGQUIT, group=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """moto's server with one bucket."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    log = folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(PROGRAMS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_ENABLE_ISO_REGIONS": "false"},
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: answers(f"{store.url}/moto-api/"), process, log)
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        stop(process, signal.SIGKILL)


ADMIN = ("admin", "admin-password-1")
LOGINS = "logins"
"""The database of the server with a login."""
FORMS = ("proxied", "direct", "guarded")
"""How teams set up MLflow: the server passes files on; it hands out s3:// addresses; it requires a
login, has a path prefix, and a certificate of a private authority."""


class Team(NamedTuple):
    """PostgreSQL and an object store, and a server of each form on both."""

    database: Database
    objects: ObjectStore
    certificates: Certificates
    servers: dict[str, MlflowServer]

    def settings(self, form: str) -> dict[str, str]:
        """The variables with which a user reaches a server."""
        address = {"MLFLOW_TRACKING_URI": self.servers[form].url}
        if form == "direct":
            return address | self.objects.settings
        if form == "guarded":
            return address | {
                "MLFLOW_TRACKING_USERNAME": ADMIN[0],
                "MLFLOW_TRACKING_PASSWORD": ADMIN[1],
                "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.certificates.authority),
            }
        return address

    def post(self, path: str, **body: str) -> None:
        """Call the API of the server with logins as its administrator."""
        import requests

        with requests.Session() as session:
            session.trust_env = False  # other certificates may be set there
            response = session.post(
                f"{self.servers['guarded'].url}/api/{path}", json=body, auth=ADMIN,
                verify=str(self.certificates.authority), timeout=60,
            )  # fmt: skip
        assert response.status_code == 200, response.text


@contextmanager
def team(folder: Path, workers: int = 1, forms: Sequence[str] = FORMS) -> Iterator[Team]:
    """PostgreSQL, the object store and MLflow servers, started.

    Args:
        folder: for logs and certificates.
        workers: processes of the server that passes files on.
    """
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        objects = stack.enter_context(object_store(folder))
        certificates = make_certificates(folder)
        every = _servers(folder, database, objects, certificates, workers)
        servers = {form: every[form] for form in forms}
        _create_databases(database, [*forms, LOGINS])
        for server in servers.values():
            stack.callback(server.kill)
            server.launch()
        for server in servers.values():
            server.wait()
        yield Team(database, objects, certificates, servers)


def _create_databases(database: Database, names: Sequence[str]) -> None:
    """One for each server. MLflow creates its tables in seventy steps: once, then copied."""
    first, *others = names
    database.rows("postgres", f"CREATE DATABASE {first}")
    create = (
        "import sys; from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Store; "
        "Store(sys.argv[1], sys.argv[2])"
    )
    command = [sys.executable, "-c", create, database.uri(first), f"s3://{BUCKET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in others:
        template = "template1" if name == LOGINS else first
        database.rows("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")


def _servers(
    folder: Path, database: Database, objects: ObjectStore, certificates: Certificates, workers: int
) -> dict[str, MlflowServer]:
    login = folder / "auth.ini"
    login.write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = {database.uri(LOGINS)}\n"
        f"admin_username = {ADMIN[0]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 600\n",
        "utf-8",
    )

    def store(form: str, n: int = 1) -> list[str]:
        return ["--backend-store-uri", database.uri(form), "--workers", str(n)]

    bucket, prefix = f"s3://{BUCKET}", "/team/mlflow"
    guarded = {
        **objects.settings, "MLFLOW_AUTH_CONFIG_PATH": str(login),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-these-tests",
    }  # fmt: skip
    tls = f"--ssl-keyfile {certificates.key} --ssl-certfile {certificates.certificate}"
    return {
        "proxied": MlflowServer(
            [*store("proxied", workers), "--serve-artifacts", "--artifacts-destination",
             f"{bucket}/proxied"],
            objects.settings, folder / "proxied.log",
        ),
        "direct": MlflowServer(
            [*store("direct"), "--no-serve-artifacts", "--default-artifact-root",
             f"{bucket}/direct"],
            {}, folder / "direct.log",
        ),
        "guarded": MlflowServer(
            [*store("guarded"), "--serve-artifacts", "--artifacts-destination", f"{bucket}/guarded",
             "--app-name", "basic-auth", "--static-prefix", prefix, "--uvicorn-opts", tls],
            guarded, folder / "guarded.log", prefix=prefix, tls=certificates,
        ),
    }  # fmt: skip


def postgres_programs() -> Path:
    """The folder of initdb and postgres; without one the test is skipped, in CI it fails."""
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*known, *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    reason = "no PostgreSQL here: apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def unprivileged_account() -> pwd.struct_passwd | None:
    """An account for PostgreSQL if this process is root's."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    """Whether a server returns status 200."""
    assert urlsplit(url).hostname == "127.0.0.1"
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _accepts(database: Database) -> bool:
    import psycopg

    try:
        return database.rows("postgres", "SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def wait_for(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server's condition holds; fails with its log if it ends before."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        text = log.read_text("utf-8", errors="replace")[-4000:]
        assert process.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes] | None, number: int, *, group: bool = True) -> None:
    """Send a signal to a process, or to its group, and wait for its end."""
    if process is None or process.poll() is not None:
        return
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait(60)

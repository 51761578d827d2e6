"""What a failing store says: the true reason, the variable or package to change, and no secret."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fake_mlflow import Answer, serving

from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.read_store import read_store
from toxtrail.backends.mlflow.store import UnreachableStoreError, readonly_client
from toxtrail.backends.mlflow.store_errors import explain_error, is_unreachable
from toxtrail.backends.mlflow.tracker import MlflowTracker
from toxtrail.errors import BackendError, ConfigError, UnreadableError
from toxtrail.records.run_tags import PAYLOAD_TAG

PASSWORD = "correct-horse-battery"
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
PAGE = "<!DOCTYPE html><html><title>Sign in</title></html>"

PROJECT = "lab-0000abcd"


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in LOGIN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server


def message(root, kind=BackendError):
    with pytest.raises(kind) as caught:
        MlflowTracker(root, "toxtrail", PROJECT).runs("")
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


REDIRECTS = {
    "https://sso.example.org/login?next=x": ["sso.example.org/login", "login page", *LOGIN],
    "https://127.0.0.1/version": ["https://127.0.0.1", "MLFLOW_TRACKING_URI"],
}
FAULTS = {
    "no login": (Answer(401, "You are not authenticated"), ["401", *LOGIN]),
    "no permission": (Answer(403, "Permission denied"), ["403", "Permission denied", *LOGIN]),
    "a permission in MLflow's words": (
        Answer(403, '{"error_code": "PERMISSION_DENIED", "message": "not yours"}'),
        ["403", "not yours"],
    ),
    "a login page": (Answer(200, PAGE), ["HTML page", "login", *LOGIN]),
    "a gateway": (Answer(503, PAGE), ["503", "Service Unavailable"]),
    "another site": (Answer(404, PAGE), ["404", "MLFLOW_TRACKING_URI"]),
}


@pytest.mark.parametrize("how", list(FAULTS))
def test_each_refusal_is_said_as_it_is(fake, tmp_path, how):
    answer, words = FAULTS[how]
    fake.fails = lambda method, path: answer
    text = message(tmp_path)
    assert fake.url in text
    assert [word for word in words if word not in text] == []
    assert "delete mlruns" not in text
    assert "<" not in text


@pytest.mark.parametrize("target", list(REDIRECTS))
def test_a_redirect_is_named_with_its_target(fake, tmp_path, target):
    """Followed by MLflow's client it would end in a page, or lose the body of a request."""

    def fails(method, path):
        if path.endswith("/version"):
            return Answer(302, "", (("Location", target),))
        return Answer(200, PAGE)

    fake.fails = fails
    text = message(tmp_path)
    assert [word for word in REDIRECTS[target] if word not in text] == []


@pytest.mark.parametrize("how", ["variables", "address"])
def test_a_wrong_password_is_not_printed(fake, tmp_path, monkeypatch, how):
    fake.fails = lambda method, path: Answer(401, f"bad password {PASSWORD}")
    if how == "variables":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        text = message(tmp_path)
        assert "wrong or expired" in text
        assert "MLFLOW_TRACKING_PASSWORD" in text
        assert "MLFLOW_TRACKING_TOKEN" not in text
    else:
        address = fake.url.replace("http://", f"http://alice:{PASSWORD}@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        message(tmp_path)


def test_an_older_server_is_named_with_its_version(fake, tmp_path):
    fake.version = "2.22.5"
    fake.fails = lambda method, path: Answer(404, PAGE) if "logged-models" in path else None
    with pytest.raises(BackendError, match=r"older than MLflow 3 \(2\.22\.5\)"):
        read_store(tmp_path, "toxtrail", PROJECT)


def test_a_stopped_server_is_told_from_one_that_refuses(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:{PASSWORD}@127.0.0.1:{port}")
    assert "refused" in message(tmp_path, UnreachableStoreError)


@pytest.fixture
def tls(tmp_path):
    """A server's context with a certificate that nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(1))
        .not_valid_after(now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    text = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    path = tmp_path / "server.pem"
    path.write_bytes(text + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path


def test_a_certificate_that_cannot_be_verified_names_both_variables(tls, tmp_path, monkeypatch):
    context, certificate = tls
    with serving(context) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        text = message(tmp_path)
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in text
        assert "MLFLOW_TRACKING_INSECURE_TLS" in text
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert MlflowTracker(tmp_path, "toxtrail", PROJECT).runs("") == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlflow.example.org", ["no scheme", "https://mlflow.example.org"]),
        ("localhost:5000", ["no scheme", "http://localhost:5000"]),
        (f"bob:{PASSWORD}@mlflow.example.org", ["no scheme"]),
        ("./mlruns", ["is a folder", "sqlite:////"]),
        ("/srv/mlruns", ["is a folder"]),
    ],
)
def test_an_address_without_a_scheme_is_refused_with_one(uri, words, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    text = message(tmp_path, ConfigError)
    assert [word for word in words if word not in text] == []


def test_a_missing_driver_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://bob:{PASSWORD}@127.0.0.1:9/mlflow")
    text = message(tmp_path)
    assert 'pip install "psycopg[binary]"' in text


def test_a_missing_client_of_the_object_store_names_its_package(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    fake.add("b" * 32, "v", {}, {})
    fake.runs["b" * 32]["info"]["artifact_uri"] = "s3://bucket/1/b/artifacts"
    with pytest.raises(UnreadableError, match="pip install boto3"):
        RunFiles(tmp_path, "b" * 32, "v", {PAYLOAD_TAG: "x"}).path("summary.json")


class ClientError(Exception):
    """As botocore raises them."""


OTHERS = {
    "An error occurred (AccessDenied) when calling GetObject": "AWS_SECRET_ACCESS_KEY",
    "An error occurred (ExpiredToken) when calling GetObject": "AWS_SESSION_TOKEN",
    "Unable to locate credentials": "AWS_ACCESS_KEY_ID",
    "An error occurred (NoSuchBucket) when calling ListObjectsV2": "MLFLOW_S3_ENDPOINT_URL",
    'Could not connect to the endpoint URL: "http://10.0.0.1:9000/b"': "MLFLOW_S3_ENDPOINT_URL",
    "Can't load plugin: sqlalchemy.dialects:oracled": "oracled",
    'password authentication failed for user "ml"': "password",
    "connection to server failed: Connection refused": "cannot be reached",
    "Detected out-of-date database schema (found version a, but expected b)": "mlflow db upgrade",
    "The experiment 8 must be in the 'active' state.": "restore",
    "(sqlite3.OperationalError) database is locked": "Try again",
    "(sqlite3.OperationalError) database or disk is full": "disk is full",
}


@pytest.mark.parametrize("text", list(OTHERS))
def test_what_drivers_and_clients_say_is_put_into_words(text):
    assert OTHERS[text] in explain_error(
        ClientError(text), "postgresql://ml:pw@db.example.org/mlflow"
    )


def test_only_what_does_not_answer_is_called_unreachable():
    assert is_unreachable(ClientError("Connection refused"))
    assert not is_unreachable(ClientError("SSLError: Connection reset"))
    assert not is_unreachable(ClientError("failed with error code 503 != 200: Max retries"))
    assert not is_unreachable(ImportError("timed out", name="boto3"))


def test_an_error_of_a_cloud_client_is_a_failure_of_the_store(tmp_path, monkeypatch):
    """Where files are written, MLflow lets it through as it is."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    made = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})
    with pytest.raises(BackendError, match="AWS_ACCESS_KEY_ID"), readonly_client(tmp_path):
        raise made("Unable to locate credentials")
    with pytest.raises(ValueError, match="own"), readonly_client(tmp_path):
        raise ValueError("own")


class Proxy(BaseHTTPRequestHandler):
    """Refuses every request through it with a status."""

    status = 407

    def do_GET(self):
        self.send_error(self.status)

    do_POST = do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("scheme", "status", "words"),
    [
        ("http", 407, ["407", "password"]),
        ("https", 407, ["407", "password"]),
        ("https", 403, ["403"]),  # over http, the response does not tell who sent it
    ],
)
def test_a_refusal_of_a_proxy_is_told_from_one_of_the_server(
    proxy, monkeypatch, tmp_path, scheme, status, words
):
    monkeypatch.setattr(Proxy, "status", status)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://mlflow.example.org")
    text = message(tmp_path)
    expected = [*words, "HTTPS_PROXY", "NO_PROXY"]
    assert [word for word in expected if word not in text] == []


def test_a_proxy_that_does_not_respond_is_named(proxy, monkeypatch, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.delenv("https_proxy")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
        text = message(tmp_path)
    assert [word for word in ("HTTPS_PROXY", "NO_PROXY", "refused") if word not in text] == []

"""Why an MLflow store could not be read or written, in words that name the variable to set.

MLflow wraps what happened in texts of its own, several times over, and lets errors of cloud clients
and database drivers through. Everything that a store can raise is turned into one sentence here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from toxtrail.errors import no_room
from toxtrail.redaction import redacted
from toxtrail.text_escaping import visible

SHOWN = 300
"""Characters of somebody else's message."""
PROBE_SECONDS = 5

PACKAGES = {
    "boto3": "boto3",
    "botocore": "boto3",
    "psycopg": '"psycopg[binary]"',
    "psycopg2": "psycopg2-binary",
    "pymysql": "pymysql",
    "MySQLdb": "mysqlclient",
    "pymssql": "pymssql",
    "pyodbc": "pyodbc",
    "oracledb": "oracledb",
    "azure": "azure-storage-blob azure-identity",
    "google": "google-cloud-storage",
    "pysftp": "pysftp",
    "databricks": "databricks-sdk",
    "requests_auth_aws_sigv4": "requests-auth-aws-sigv4",
}
"""Top-level module that a store needs -> what pip calls it."""

OTHER_SCHEMA = ("out-of-date database schema", "can't locate revision")
"""How MLflow says that another version of it wrote a database."""

STATUS = (
    re.compile(r"failed with error code (\d{3})"),
    re.compile(r"\b(\d{3}) (?:Client|Server) Error"),
    re.compile(r"too many (\d{3}) error responses"),
    re.compile(r"An error occurred \((\d{3})\)"),
)
CODES = {
    "UNAUTHENTICATED": 401,
    "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "TEMPORARILY_UNAVAILABLE": 503,
}
"""MLflow's own names of a refusal."""

NO_DATABASE = re.compile(
    r"connection refused|could not translate|resolve host|name or service|connection timeout",
    re.IGNORECASE,
)
TLS = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED|SSL: ")

PASSING = re.compile(
    r"database is locked|readonly database|unable to open database|disk I/O error|"
    r"must be in the 'active' state"
)

CREDENTIALS = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class Answer(NamedTuple):
    """What a server says when its address is opened without following redirects."""

    status: int
    location: str
    """Where it redirects to; empty if it does not."""
    body: str


def explained(error: BaseException, uri: str) -> str:
    """What happened and what to do, without a secret.

    Args:
        uri: of the tracking store.
    """
    text = " ".join(str(one) for one in causes(error))
    for explain in (_package, _state, _artifact_store, _database, _server):
        if sentence := explain(error, text, uri):
            return sentence
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{shown(first)}."


def is_unreachable(error: BaseException) -> bool:
    """Whether nothing answers at the store's address, so that nothing can be said of it."""
    text = " ".join(str(one) for one in causes(error))
    if any(isinstance(one, ImportError) for one in causes(error)) or TLS.search(text):
        return False
    return status_of(error) is None and (_silent(text) or NO_DATABASE.search(text) is not None)


def is_damage(error: BaseException) -> bool:
    """Whether making the store anew may help: it is not merely locked, full, read-only or written
    by another version of MLflow, which can still read it."""
    texts = [str(one) for one in causes(error)]
    readable = any(words in text.lower() for text in texts for words in OTHER_SCHEMA)
    return not readable and not any(map(PASSING.search, texts)) and not no_room(error)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and everything that it came from."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def shown(text: str) -> str:
    """Somebody else's message on one line, cut, without control characters and secrets."""
    line = visible(" ".join(redacted(text).split())).rstrip(".")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a failure came from, if it came from one."""
    for one in causes(error):
        response = getattr(one, "response", None)
        if isinstance(code := getattr(response, "status_code", None), int):
            return code
        if (code := CODES.get(str(getattr(one, "error_code", "")))) is not None:
            return code
        for pattern in STATUS:
            if match := pattern.search(str(one)):
                return int(match[1])
    return None


# --- packages and databases ---------------------------------------------------------------------


def _package(error: BaseException, text: str, uri: str) -> str:
    missing = next((e for e in causes(error) if isinstance(e, ImportError) and e.name), None)
    if missing is not None:
        name = str(missing.name)
        package = PACKAGES.get(name.split(".")[0], name)
        return (
            f"This store needs the Python package {name}, which is not installed. Run `pip install "
            f"{package}`."
        )
    if match := re.search(r"Can't load plugin: sqlalchemy\.dialects:([\w.]+)", text):
        return (
            f"MLFLOW_TRACKING_URI names the database {match[1]}, for which no driver is installed. "
            "MLflow supports postgresql, mysql, mssql and sqlite."
        )
    return ""


def _state(error: BaseException, text: str, uri: str) -> str:
    lowered = text.lower()
    if any(words in lowered for words in OTHER_SCHEMA):
        return (
            f"Its database was written by another version of MLflow ({shown(str(error))}). Use "
            "that version, or, if this one is newer, back the database up and run `mlflow db "
            "upgrade` on it."
        )
    if "must be in the 'active' state" in lowered:
        return (
            f"{shown(str(error))}: it was deleted in MLflow. Restore it in the MLflow UI, or with "
            "`mlflow experiments restore` or `mlflow runs restore`."
        )
    return _local_database(error, lowered)


def _database(error: BaseException, text: str, uri: str) -> str:
    lowered = text.lower()
    if urlsplit(uri).scheme.startswith(("http", "databricks", "uc")):
        return ""
    if "password authentication failed" in lowered or "access denied for user" in lowered:
        return (
            "The database refuses the user name or the password in MLFLOW_TRACKING_URI "
            f"({shown(_last(error))})."
        )
    if NO_DATABASE.search(text):
        return (
            f"No database answers there ({shown(_last(error))}). Is it running, and are host and "
            "port in MLFLOW_TRACKING_URI right?"
        )
    return ""


def _local_database(error: BaseException, lowered: str) -> str:
    if no_room(error):
        return "Its disk is full. Free some space, then run the same command again."
    if "database is locked" in lowered:
        return "Another program is writing to its database (database is locked). Try again later."
    if "readonly database" in lowered or "unable to open database" in lowered:
        return f"Its database cannot be opened for writing ({shown(_last(error))})."
    return ""


def _last(error: BaseException) -> str:
    """What the driver itself said."""
    return str(list(causes(error))[-1])


# --- object stores ------------------------------------------------------------------------------


def _artifact_store(error: BaseException, text: str, uri: str) -> str:
    if re.search(r"Unable to locate credentials|NoCredentialsError|Partial credentials", text):
        return (
            "The object store of its files needs credentials. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)."
        )
    if match := re.search(
        r"\((AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken)\)",
        text,
    ):
        return (
            f"The object store of its files refuses these credentials ({match[1]}). Check "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and what this user "
            "may read."
        )
    if match := re.search(r"Could not connect to the endpoint URL: \"?([^\"\s]+)", text):
        return (
            f"The object store of its files does not answer at {shown(match[1])}. Is "
            "MLFLOW_S3_ENDPOINT_URL right?"
        )
    if "NoSuchBucket" in text:
        return (
            "The object store has no such bucket (NoSuchBucket). Is MLFLOW_S3_ENDPOINT_URL right?"
        )
    return ""


# --- HTTP servers -------------------------------------------------------------------------------


def _server(error: BaseException, text: str, uri: str) -> str:
    if not urlsplit(uri).scheme.startswith("http"):
        return ""
    if TLS.search(text):
        return _tls(text)
    status = status_of(error)
    if status is None and _silent(text):
        return _unreachable(text)
    if status in (401, 403):
        return _refused(status, error)
    return _answered(error, text, status, uri)


def _answered(error: BaseException, text: str, status: int | None, uri: str) -> str:
    """Something answered, and not as MLflow does: what stands before it may say why."""
    answer = _asked(uri)
    if answer and 300 <= answer.status < 400:
        return _redirect(answer, uri)
    if _is_page(text, error) and status in (None, 200):
        return (
            "The server answers with an HTML page instead of JSON: a login page, or another site. "
            f"Open the address in a browser; if it asks for a login, {_lowered(CREDENTIALS)}."
        )
    if status == 404:
        return _unknown(text, answer, error)
    if status is not None and status >= 400:
        return (
            f"The server answered with status {status}{_reason(status)}: {shown(_body(error))}. "
            "Try again later, or ask who runs it."
        )
    return ""


def _lowered(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _tls(text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
        return (
            "The server does not speak TLS (https) at this port. Write http:// in "
            "MLFLOW_TRACKING_URI, or the port of https."
        )
    why = re.search(r"certificate verify failed: ([^(\]\")]+)", text)
    reason = shown(why[1]) if why else "the TLS connection failed"
    return (
        f"The server's certificate cannot be verified ({reason}). Set "
        "MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that signed it; "
        "MLFLOW_TRACKING_INSECURE_TLS=true switches the check off."
    )


def _silent(text: str) -> bool:
    return bool(
        re.search(
            r"NewConnectionError|ConnectionError|Connection refused|NameResolutionError|timeout "
            r"exception|timed out|RemoteDisconnected|Connection reset|Connection aborted|Max "
            r"retries|InvalidURL|Invalid url|ProxyError|IncompleteRead|ChunkedEncodingError",
            text,
        )
    )


def _unreachable(text: str) -> str:
    reasons = (
        ("NameResolution|Name or service|nodename|name resolution", "its name is not known"),
        ("refused", "the connection is refused"),
        ("timeout|timed out", "it does not answer in time (MLFLOW_HTTP_REQUEST_TIMEOUT)"),
        ("ProxyError", "the proxy of HTTP_PROXY or HTTPS_PROXY does not let it through"),
        ("InvalidURL|Invalid url", "its address is not a valid URL"),
    )
    matches = (words for pattern, words in reasons if re.search(pattern, text))
    reason = next(matches, "the connection was lost")
    return (
        f"The server cannot be reached: {reason}. Is it running, and is MLFLOW_TRACKING_URI right?"
    )


def _refused(status: int, error: BaseException) -> str:
    if status == 403:
        return (
            f"The server knows who asks and refuses this (status 403, {shown(_body(error))}). Ask "
            "for the permission, or use another account: MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    present = [name for name in names if os.environ.get(name)]
    if present:
        return (
            "The server refuses the user name, password or token that was sent (status 401): wrong "
            f"or expired. Check {', '.join(present)}."
        )
    return f"The server asks for a login (status 401). {CREDENTIALS}."


def _redirect(answer: Answer, uri: str) -> str:
    target, own = urlsplit(answer.location), urlsplit(uri)
    same = target.hostname in (None, own.hostname)
    login = re.search(r"log-?in|sso|auth|saml|sign-?in", answer.location, re.IGNORECASE)
    where = f"{target.scheme or own.scheme}://{target.netloc.rpartition('@')[2] or own.hostname}"
    if same and not login:
        return (
            f"The server redirects to {where}{target.path.removesuffix('/version')}. Write that "
            "address in MLFLOW_TRACKING_URI."
        )
    return (
        f"The server redirects to {where}{target.path} (status {answer.status}), a login page. "
        f"{CREDENTIALS}, as who runs it says; toxtrail cannot log in by a browser."
    )


def _unknown(text: str, answer: Answer | None, error: BaseException) -> str:
    version = answer.body.strip() if answer and answer.status == 200 else ""
    if re.fullmatch(r"[0-2]\.\d+(\.\w+)*", version) or "logged-models" in text:
        named = f" ({version})" if re.fullmatch(r"[\w.]{1,20}", version) else ""
        return f"The server is older than MLflow 3{named}. toxtrail needs MLflow 3 there."
    if answer is not None and answer.status == 200 and re.match(r"\d+\.\d+", version):
        return f"The server has no such thing (status 404): {shown(_body(error))}."
    return (
        "No MLflow server answers at this address (status 404). Is MLFLOW_TRACKING_URI right? A "
        "server started with --static-prefix needs the prefix in it."
    )


def _is_page(text: str, error: BaseException) -> bool:
    if re.search(r"valid JSON format|<!doctype|<html", text, re.IGNORECASE):
        return True
    return any(type(one).__name__ == "JSONDecodeError" for one in causes(error))


def _body(error: BaseException) -> str:
    """The server's own words."""
    match = re.search(r"Response body: '(.*)'", str(error), re.DOTALL)
    text = match[1] if match else str(error)
    return "it sent an HTML page" if re.match(r"\s*<", text) else text or "nothing was said"


def _reason(status: int) -> str:
    from http.client import responses

    return f" ({responses[status]})" if status in responses else ""


def _asked(uri: str) -> Answer | None:
    """GET /version of the server, which says what stands before it; None if that fails."""
    import requests

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    verify = False if insecure else os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    try:
        response = requests.get(
            f"{uri.rstrip('/')}/version",
            timeout=PROBE_SECONDS,
            allow_redirects=False,
            verify=verify,
        )
    except (requests.RequestException, OSError):
        return None
    return Answer(response.status_code, response.headers.get("Location", ""), response.text[:500])

"""Explain why an MLflow store could not be read or written, and which variable to set.

MLflow wraps errors in its own messages, several times over, and passes on errors of cloud clients
and database drivers. Every error of a store is converted to one message here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from toxtrail.errors import is_disk_full
from toxtrail.redaction import redacted
from toxtrail.text_escaping import escape_control_chars

MAX_MESSAGE = 300
"""Largest number of characters of another program's message."""
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
"""Top-level module that a store needs -> name of its pip package."""

OTHER_SCHEMA = ("out-of-date database schema", "can't locate revision")
"""MLflow's messages for a database of another MLflow version."""

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
"""MLflow's error codes -> HTTP status."""

NO_DATABASE = re.compile(
    r"connection refused|could not translate|resolve host|name or service|connection timeout",
    re.IGNORECASE,
)
TLS = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED|SSL: ")

TEMPORARY = re.compile(
    r"database is locked|readonly database|unable to open database|disk I/O error|"
    r"must be in the 'active' state"
)

CREDENTIALS = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class Answer(NamedTuple):
    """A server's response without following redirects."""

    status: int
    location: str
    """Target of a redirect; empty if there is none."""
    body: str


def explain_error(error: BaseException, uri: str) -> str:
    """Explain an error and what to do, without secrets.

    Args:
        uri: of the tracking store.
    """
    text = " ".join(str(cause) for cause in causes(error))
    for explain in (
        _explain_package,
        _explain_state,
        _explain_artifact_store,
        _explain_database,
        _explain_server,
    ):
        if sentence := explain(error, text, uri):
            return sentence
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{safe_line(first)}."


def is_unreachable(error: BaseException) -> bool:
    """Return whether no server answers at the store's address, so its content is unknown."""
    text = " ".join(str(cause) for cause in causes(error))
    if any(isinstance(cause, ImportError) for cause in causes(error)) or TLS.search(text):
        return False
    return status_of(error) is None and (
        _is_no_response(text) or NO_DATABASE.search(text) is not None
    )


def needs_rebuild(error: BaseException) -> bool:
    """Return whether rebuilding the store may help: it is not merely locked, full, read-only or
    written by another version of MLflow, which can still read it."""
    texts = [str(cause) for cause in causes(error)]
    readable = any(words in text.lower() for text in texts for words in OTHER_SCHEMA)
    return not readable and not any(map(TEMPORARY.search, texts)) and not is_disk_full(error)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the chain of its causes."""
    visited = set[int]()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def safe_line(text: str) -> str:
    """Format another program's message: one line, truncated, no control characters or secrets."""
    line = escape_control_chars(" ".join(redacted(text).split())).rstrip(".")
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error; None if there is none."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(code := getattr(response, "status_code", None), int):
            return code
        if (code := CODES.get(str(getattr(cause, "error_code", "")))) is not None:
            return code
        for pattern in STATUS:
            if match := pattern.search(str(cause)):
                return int(match[1])
    return None


# --- packages and databases ---------------------------------------------------------------------


def _explain_package(error: BaseException, text: str, uri: str) -> str:
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


def _explain_state(error: BaseException, text: str, uri: str) -> str:
    lowered = text.lower()
    if any(words in lowered for words in OTHER_SCHEMA):
        return (
            f"Its database was written by another version of MLflow ({safe_line(str(error))}). Use "
            "that version, or, if this one is newer, back up the database and run `mlflow db "
            "upgrade`."
        )
    if "must be in the 'active' state" in lowered:
        return (
            f"{safe_line(str(error))}: it was deleted in MLflow. Restore it in the MLflow UI, or "
            "with `mlflow experiments restore` or `mlflow runs restore`."
        )
    return _local_database(error, lowered)


def _explain_database(error: BaseException, text: str, uri: str) -> str:
    lowered = text.lower()
    if urlsplit(uri).scheme.startswith(("http", "databricks", "uc")):
        return ""
    if "password authentication failed" in lowered or "access denied for user" in lowered:
        return (
            "The database rejected the user name or the password in MLFLOW_TRACKING_URI "
            f"({safe_line(_driver_message(error))})."
        )
    if NO_DATABASE.search(text):
        return (
            f"The database cannot be reached ({safe_line(_driver_message(error))}). Check that it "
            "is running, and the host and port in MLFLOW_TRACKING_URI."
        )
    return ""


def _local_database(error: BaseException, lowered: str) -> str:
    if is_disk_full(error):
        return "Its disk is full. Free some space, then run the same command again."
    if "database is locked" in lowered:
        return "Another program is writing to its database (database is locked). Try again later."
    if "readonly database" in lowered or "unable to open database" in lowered:
        return f"Its database cannot be opened for writing ({safe_line(_driver_message(error))})."
    return ""


def _driver_message(error: BaseException) -> str:
    """Return the message of the driver."""
    return str(list(causes(error))[-1])


# --- object stores ------------------------------------------------------------------------------


def _explain_artifact_store(error: BaseException, text: str, uri: str) -> str:
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
            f"The object store of its files rejected these credentials ({match[1]}). Check "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and this user's "
            "permissions."
        )
    if match := re.search(r"Could not connect to the endpoint URL: \"?([^\"\s]+)", text):
        return (
            f"The object store of its files does not respond at {safe_line(match[1])}. Check "
            "MLFLOW_S3_ENDPOINT_URL."
        )
    if "NoSuchBucket" in text:
        return "The object store has no such bucket (NoSuchBucket). Check MLFLOW_S3_ENDPOINT_URL."
    return ""


# --- HTTP servers -------------------------------------------------------------------------------


def _explain_server(error: BaseException, text: str, uri: str) -> str:
    if not urlsplit(uri).scheme.startswith("http"):
        return ""
    if TLS.search(text):
        return _explain_tls(text)
    status = status_of(error)
    if status == 407 or (status is None and "ProxyError" in text):
        return _explain_proxy(text, status)
    if status is None and _is_no_response(text):
        return _explain_unreachable(text)
    if status in (401, 403):
        return _explain_refused(status, error)
    return _explain_response(error, text, status, uri)


def _explain_response(error: BaseException, text: str, status: int | None, uri: str) -> str:
    """Explain a response that is not MLflow's; a proxy in front of it may give the cause."""
    answer = _probe(uri)
    if answer and 300 <= answer.status < 400:
        return _explain_redirect(answer, uri)
    if _is_page(text, error) and status in (None, 200):
        return (
            "The server returned an HTML page instead of JSON: a login page, or another site. "
            f"Open the address in a browser; if it requires a login, {_lower_first(CREDENTIALS)}."
        )
    if status == 404:
        return _explain_not_found(text, answer, error)
    if status is not None and status >= 400:
        return (
            f"The server returned status {status}{_status_name(status)}: "
            f"{safe_line(_response_body(error))}. Try again later, or contact its administrator."
        )
    return ""


def _lower_first(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _explain_tls(text: str) -> str:
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
        return (
            "The server does not use TLS (https) on this port. Use http:// in "
            "MLFLOW_TRACKING_URI, or the https port."
        )
    why = re.search(r"certificate verify failed: ([^(\]\")]+)", text)
    reason = safe_line(why[1]) if why else "the TLS connection failed"
    return (
        f"The server's certificate cannot be verified ({reason}). Set "
        "MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that signed it; "
        "MLFLOW_TRACKING_INSECURE_TLS=true disables the check."
    )


def _is_no_response(text: str) -> bool:
    return bool(
        re.search(
            r"NewConnectionError|ConnectionError|Connection refused|NameResolutionError|timeout "
            r"exception|timed out|RemoteDisconnected|Connection reset|Connection aborted|Max "
            r"retries|InvalidURL|Invalid url|ProxyError|IncompleteRead|ChunkedEncodingError",
            text,
        )
    )


def _explain_unreachable(text: str) -> str:
    reasons = (
        ("NameResolution|Name or service|nodename|name resolution", "unknown host name"),
        ("refused", "connection refused"),
        ("timeout|timed out", "no response in time (MLFLOW_HTTP_REQUEST_TIMEOUT)"),
        ("InvalidURL|Invalid url", "its address is not a valid URL"),
    )
    matches = (words for pattern, words in reasons if re.search(pattern, text))
    reason = next(matches, "the connection was lost")
    return (
        f"The server cannot be reached: {reason}. Check that it is running, and "
        "MLFLOW_TRACKING_URI."
    )


def _explain_proxy(text: str, status: int | None) -> str:
    if status == 407 or re.search(r"\b407\b", text):
        return (
            "The proxy in HTTPS_PROXY or HTTP_PROXY requires a login (status 407). Put the user "
            "name and password before the host in its address, or add the MLflow server's host to "
            "NO_PROXY."
        )
    return (
        "The proxy in HTTPS_PROXY or HTTP_PROXY does not reach the server "
        f"({_proxy_reason(text)}). Check its address, or add the MLflow server's host to NO_PROXY."
    )


def _proxy_reason(text: str) -> str:
    if match := re.search(r"Tunnel connection failed: ([^')]+)", text):
        return safe_line(match[1])
    return "connection refused" if "refused" in text else "it does not respond"


def _explain_refused(status: int, error: BaseException) -> str:
    if status == 403:
        return (
            "This account has no permission on the server (status 403, "
            f"{safe_line(_response_body(error))}). Request it, or use another account: "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    present = [name for name in names if os.environ.get(name)]
    if present:
        return (
            "The server rejected the user name, password or token (status 401): wrong or expired. "
            f"Check {', '.join(present)}."
        )
    return f"The server requires a login (status 401). {CREDENTIALS}."


def _explain_redirect(answer: Answer, uri: str) -> str:
    target, base = urlsplit(answer.location), urlsplit(uri)
    same = target.hostname in (None, base.hostname)
    login = re.search(r"log-?in|sso|auth|saml|sign-?in", answer.location, re.IGNORECASE)
    where = f"{target.scheme or base.scheme}://{target.netloc.rpartition('@')[2] or base.hostname}"
    if same and not login:
        return (
            f"The server redirects to {where}{target.path.removesuffix('/version')}. Set "
            "MLFLOW_TRACKING_URI to that address."
        )
    return (
        f"The server redirects to {where}{target.path} (status {answer.status}), a login page. "
        f"{CREDENTIALS}, as its administrator advises; toxtrail cannot log in with a browser."
    )


def _explain_not_found(text: str, answer: Answer | None, error: BaseException) -> str:
    version = answer.body.strip() if answer and answer.status == 200 else ""
    if re.fullmatch(r"[0-2]\.\d+(\.\w+)*", version) or "logged-models" in text:
        suffix = f" ({version})" if re.fullmatch(r"[\w.]{1,20}", version) else ""
        return f"The server is older than MLflow 3{suffix}. toxtrail needs a server with MLflow 3."
    if answer is not None and answer.status == 200 and re.match(r"\d+\.\d+", version):
        body = safe_line(_response_body(error))
        return f"The server did not find the resource (status 404): {body}."
    return (
        "There is no MLflow server at this address (status 404). Check MLFLOW_TRACKING_URI; for a "
        "server started with --static-prefix, it must include the prefix."
    )


def _is_page(text: str, error: BaseException) -> bool:
    if re.search(r"valid JSON format|<!doctype|<html", text, re.IGNORECASE):
        return True
    return any(type(cause).__name__ == "JSONDecodeError" for cause in causes(error))


def _response_body(error: BaseException) -> str:
    """Return the body of the server's response."""
    match = re.search(r"Response body: '(.*)'", str(error), re.DOTALL)
    text = match[1] if match else str(error)
    return "an HTML page" if re.match(r"\s*<", text) else text or "empty response"


def _status_name(status: int) -> str:
    from http.client import responses

    return f" ({responses[status]})" if status in responses else ""


def _probe(uri: str) -> Answer | None:
    """Request /version, which reveals a proxy in front of the server; None if that fails."""
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

"""HTTP client for a server that may be busy, slow or temporarily down, with bounded retries."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from toxtrail.errors import BackendError
from toxtrail.redaction import MASK, redacted

if TYPE_CHECKING:
    from requests import Response

Read = TypeVar("Read")

CONNECT_SECONDS = 10.0
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 600
"""Seconds; a longer Retry-After is reduced to this."""
RETRYABLE_STATUS = {408, 425, 429}
"""Temporary errors: a retry may succeed, as after any 5xx."""
SHORTEST_KEY = 4
"""Shortest key that is masked in a server's text; a shorter one may occur by chance."""
MAX_MESSAGE = 300
"""Largest number of characters of a server's text in a message."""


class RefusedError(BackendError):
    """The server rejected the request; a retry would not help."""

    def __init__(
        self, status: int, message: str, body: object = None, server_message: str = ""
    ) -> None:
        """Args:
        body: JSON values of the response; None if it was no JSON.
        server_message: the server's own message, without secrets.
        """
        super().__init__(message)
        self.status = status
        self.body = body
        self.server_message = server_message


class UnansweredError(BackendError):
    """No usable response after all attempts."""

    def __init__(self, message: str, status: int | None) -> None:
        """Args:
        status: of the last response; None if there was none.
        """
        super().__init__(message)
        self.status = status


class Client:
    """Client of one server; several threads may share it."""

    def __init__(
        self, url: str, concurrency: int, timeout: float, tries: int, key: str | None
    ) -> None:
        """Args:
        url: up to and including `/v1`.
        concurrency: number of connections in the pool.
        timeout: seconds without a byte of a response, after which an attempt fails.
        tries: attempts for one request, including the first.
        key: sent as a bearer token; None: no authentication.
        """
        import requests

        self.url = url.rstrip("/")
        self._timeout = timeout
        self._tries = tries
        self._key = key
        self._stopped = threading.Event()
        self._jitter = random.SystemRandom()
        self._session = requests.Session()
        self._session.trust_env = not self.url.startswith("http://127.0.0.1:")  # no proxy to itself
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=concurrency))
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def get(self, url: str, read: Callable[[Response], Read], tries: int | None = None) -> Read:
        """Send a GET request to a full URL. See `post`.

        Args:
            tries: number of attempts; None: the client's default.
        """
        return self._request("GET", url, None, read, tries or self._tries)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Response], Read]) -> Read:
        """Send JSON, and read the response.

        Args:
            path: relative to the server's URL.
            read: parses the response; raises ValueError if it is invalid, which causes a retry.

        Raises:
            RefusedError: the server rejects the request (4xx, or a redirect).
            UnansweredError: no attempt gave a readable response.
        """
        return self._request("POST", f"{self.url}{path}", body, read, self._tries)

    def masked(self, text: str) -> str:
        """Mask secrets in a server's text, including the key, which some servers repeat."""
        long = self._key is not None and len(self._key) >= SHORTEST_KEY
        return redacted(text.replace(str(self._key), MASK) if long else text)

    def stop(self) -> None:
        """Start no further attempt, in any thread."""
        self._stopped.set()

    def _request(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Response], Read],
        tries: int,
    ) -> Read:
        import requests

        problem, status = "", None
        for number in range(1, tries + 1):
            min_pause, status = 0.0, None
            try:
                response = self._session.request(
                    method,
                    url,
                    json=body,
                    timeout=(CONNECT_SECONDS, self._timeout),
                    allow_redirects=False,
                )
                status = response.status_code
                if status == 200:
                    _refuse_stream(url, response)
                    return read(response)
                problem, min_pause = self._refusal(url, body, response), retry_after(response)
            except requests.JSONDecodeError as error:
                problem = f"the response is not JSON ({_html_hint(response) or error})"
            except requests.Timeout:
                problem = f"no response within {self._timeout:g} s"
            except requests.RequestException as error:
                problem = f"the connection failed ({_innermost(error)})"
            except ValueError as error:
                problem = f"invalid response ({error})"
            if number == tries or self._stopped.wait(self._pause(number, min_pause)):
                break
        raise UnansweredError(self.masked(f"{url}: {problem} (after {tries} attempts)"), status)

    def _refusal(self, url: str, body: Mapping[str, Any] | None, response: Response) -> str:
        """Describe an error response, if a retry may help.

        Raises:
            RefusedError: a retry would not help.
        """
        status, text = response.status_code, self._server_message(response, body)
        if status >= 500 or status in RETRYABLE_STATUS:
            return f"status {status}: {text}"
        cure = ""
        if status in (401, 403):
            cure = " Set its key in the environment variable TOXTRAIL_SERVER_KEY."
        if 300 <= status < 400:
            cure = f" It redirects to {response.headers.get('Location')}: use that URL."
        message = f"{url} rejected the request with status {status}: {text}{cure}"
        raise RefusedError(status, self.masked(message), _json_or_none(response), text)

    def _server_message(self, response: Response, body: Mapping[str, Any] | None) -> str:
        """Return the server's message on one line, without key and prompt."""
        try:
            values = response.json()
        except ValueError:
            values = response.text
        for name in ("error", "message", "detail"):
            if isinstance(values, dict) and name in values:
                values = values[name]
        text = str(values)
        for prompt in _prompts(body or {}):
            text = text.replace(prompt, "<prompt>")
        text = " ".join(self.masked(text).split()) or "empty response"
        return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."

    def _pause(self, failed: int, min_pause: float) -> float:
        """Return the seconds before the next attempt: at least the server's Retry-After."""
        backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failed - 1))
        return min_pause + self._jitter.uniform(backoff / 2, backoff)


def _prompts(body: Mapping[str, Any]) -> list[str]:
    """Return the texts in a request, longest first, that a server's message may repeat."""
    texts = [body.get("prompt"), *(message["content"] for message in body.get("messages", ()))]
    return sorted((t for t in texts if isinstance(t, str) and t), key=len, reverse=True)


def _json_or_none(response: Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def retry_after(response: Response) -> float:
    """Read the seconds in a Retry-After header; 0 if there is none, or an invalid one."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util.retry import Retry

    header = response.headers.get("Retry-After", "")
    try:
        return Retry(retry_after_max=LONGEST_RETRY_AFTER).parse_retry_after(header)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _refuse_stream(url: str, response: Response) -> None:
    """Raise RefusedError for a stream of events instead of a JSON document; retries do not help."""
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/event-stream") or response.content[:5] == b"data:":
        raise RefusedError(
            200,
            f"{url} returned a stream of events, although `stream: false` was sent. toxtrail "
            "needs plain JSON responses: disable streaming on the server or its gateway.",
        )


def _html_hint(response: Response) -> str:
    """Explain an HTML page instead of JSON; empty if it is not one."""
    start = response.text[:200].lstrip().lower()
    html = "html" in response.headers.get("Content-Type", "")
    if html or start.startswith(("<!doctype", "<html")):
        return "it is an HTML page: a login page, or another site; check the URL"
    return ""


def _innermost(error: BaseException) -> str:
    """Format the innermost error, which requests and urllib3 wrap several times."""
    reason = getattr(error, "reason", None) or next(
        (part for part in error.args if isinstance(part, BaseException)), None
    )
    if isinstance(reason, BaseException):
        return _innermost(reason)
    return redacted(f"{type(error).__name__}: {error}")[:MAX_MESSAGE]

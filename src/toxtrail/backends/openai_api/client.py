"""A server that is busy, slow or gone at times: asked again with patience, but not for ever."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from toxtrail.errors import BackendError
from toxtrail.redaction import MASK, redacted

if TYPE_CHECKING:
    from requests import Response

Read = TypeVar("Read")

CONNECT_SECONDS = 10.0
FIRST_PAUSE = 0.5
"""Seconds before the second try; doubled before each further one."""
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 600.0
"""Seconds; a server that asks for more is asked again after these."""
PASSING = {408, 425, 429}
"""Refusals that pass: asking again later may help, as after any 5xx."""
SHORTEST_KEY = 4
"""Characters of a key that is looked for in a server's text; a shorter one is there by chance."""
SHOWN = 300
"""Characters of what a server says that go into a message."""


class RefusedError(BackendError):
    """The server has understood the request and says no: asking again would not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnansweredError(BackendError):
    """No usable answer after every try."""

    def __init__(self, message: str, status: int | None) -> None:
        """Args:
        status: of the last answer; None if there was none.
        """
        super().__init__(message)
        self.status = status


class Client:
    """Requests to one server; several threads may share it."""

    def __init__(
        self, url: str, concurrency: int, timeout: float, tries: int, key: str | None
    ) -> None:
        """Args:
        url: up to and with `/v1`.
        concurrency: how many connections are kept open.
        timeout: seconds without a byte of an answer, after which a try has failed.
        tries: of one request, the first one counted.
        key: sent as a bearer token; None: none.
        """
        import requests

        self.url = url.rstrip("/")
        self._timeout = timeout
        self._tries = tries
        self._key = key
        self._stopped = threading.Event()
        self._jitter = random.SystemRandom()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=concurrency))
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def get(self, url: str, read: Callable[[Response], Read], tries: int | None = None) -> Read:
        """Ask for a whole address. See `post`.

        Args:
            tries: None: as for any request.
        """
        return self._ask("GET", url, None, read, tries or self._tries)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Response], Read]) -> Read:
        """Send JSON, and read the answer.

        Args:
            path: below the server's URL.
            read: raises ValueError if the answer is not what was asked for; it is asked for again.

        Raises:
            RefusedError: the server says no (4xx, or another address).
            UnansweredError: no try brought an answer that can be read.
        """
        return self._ask("POST", f"{self.url}{path}", body, read, self._tries)

    def masked(self, text: str) -> str:
        """Somebody else's text without the key, which some servers repeat, and other secrets."""
        long = self._key is not None and len(self._key) >= SHORTEST_KEY
        return redacted(text.replace(str(self._key), MASK) if long else text)

    def stop(self) -> None:
        """No further try is begun, by any thread."""
        self._stopped.set()

    def _ask(
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
            wanted, status = 0.0, None
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
                problem, wanted = self._refusal(url, body, response), retry_after(response)
            except requests.JSONDecodeError as error:
                problem = f"the answer is no JSON ({_page(response) or error})"
            except requests.Timeout:
                problem = f"no answer within {self._timeout:g} s"
            except requests.RequestException as error:
                problem = f"the connection failed ({_innermost(error)})"
            except ValueError as error:
                problem = f"the answer cannot be used ({error})"
            if number == tries or self._stopped.wait(self._pause(number, wanted)):
                break
        raise UnansweredError(self.masked(f"{url}: {problem} (tried {tries} times)"), status)

    def _refusal(self, url: str, body: Mapping[str, Any] | None, response: Response) -> str:
        """What the server says, if asking again may help.

        Raises:
            RefusedError: it would not.
        """
        status, said = response.status_code, self._said(response, body)
        if status >= 500 or status in PASSING:
            return f"status {status}: {said}"
        cure = ""
        if status in (401, 403):
            cure = " Give its key in the environment variable TOXTRAIL_SERVER_KEY."
        if 300 <= status < 400:
            cure = f" It points to {response.headers.get('Location')}: write that URL."
        message = f"{url} refused the request with status {status}: {said}{cure}"
        raise RefusedError(status, self.masked(message))

    def _said(self, response: Response, body: Mapping[str, Any] | None) -> str:
        """The server's own message on one line, without key and prompt."""
        try:
            values = response.json()
        except ValueError:
            values = response.text
        for name in ("error", "message", "detail"):
            if isinstance(values, dict) and name in values:
                values = values[name]
        text = str(values)
        prompt = (body or {}).get("prompt")
        if isinstance(prompt, str) and prompt:
            text = text.replace(prompt, "<prompt>")
        text = " ".join(self.masked(text).split()) or "nothing"
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

    def _pause(self, failed: int, wanted: float) -> float:
        """Seconds before the next try: at least as long as the server wants."""
        own = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failed - 1))
        return wanted + self._jitter.uniform(own / 2, own)


def retry_after(response: Response) -> float:
    """Seconds that a server wants to be left alone for (RFC 9110: a number, or a date)."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text)
    return min(LONGEST_RETRY_AFTER, seconds) if seconds > 0 and math.isfinite(seconds) else 0.0


def _until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()


def _refuse_stream(url: str, response: Response) -> None:
    """RefusedError for events in place of one JSON document: asking again would bring more."""
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/event-stream") or response.content[:5] == b"data:":
        raise RefusedError(
            200,
            f"{url} answers with a stream of events, although `stream: false` was sent. toxtrail "
            "reads plain JSON answers: switch streaming off on the server or its gateway.",
        )


def _page(response: Response) -> str:
    """What an HTML page in place of JSON may mean; empty if it is none."""
    start = response.text[:200].lstrip().lower()
    html = "html" in response.headers.get("Content-Type", "")
    if html or start.startswith(("<!doctype", "<html")):
        return "it is an HTML page: a login page, or another site; is the URL right?"
    return ""


def _innermost(error: BaseException) -> str:
    """requests and urllib3 wrap what happened several times over."""
    reason = getattr(error, "reason", None) or next(
        (part for part in error.args if isinstance(part, BaseException)), None
    )
    if isinstance(reason, BaseException):
        return _innermost(reason)
    return redacted(f"{type(error).__name__}: {error}")[:SHOWN]

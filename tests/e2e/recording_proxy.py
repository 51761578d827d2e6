"""A proxy in front of an MLflow server: records who asks for what, and fails on demand."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from fake_mlflow import Answer

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


class Exchange(NamedTuple):
    """One request and the status of the answer; the bodies only of API calls."""

    method: str
    path: str
    request: bytes
    status: int
    response: bytes


class Proxy:
    """What has passed through, and how it fails."""

    def __init__(self, upstream: str) -> None:
        self.url = ""
        self.upstream = urlsplit(upstream)
        self.seen: list[Exchange] = []
        self.count = 0
        self.fails: Callable[[str, str], Answer | None] = lambda method, path: None
        self.before: Callable[[int, str, str], None] = lambda number, method, path: None
        """Called with the number of the request (from 1), before it is passed on. An OSError drops
        the connection."""
        self.after: Callable[[int], None] = lambda number: None
        """The same, before the answer is passed on."""
        self._lock = threading.Lock()

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes):
        """Status, headers and body of the answer; OSError if the server does not answer."""
        with self._lock:
            self.count += 1
            number = self.count
        self.before(number, method, path)
        if (failure := self.fails(method, path)) is not None:
            return failure.status, list(failure.headers), failure.body.encode()
        connection = http.client.HTTPConnection(
            str(self.upstream.hostname), self.upstream.port, timeout=120
        )
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise ConnectionError from error
        finally:
            connection.close()
        self.after(number)
        if "/mlflow/" in path:
            self.seen.append(Exchange(method, path, body, response.status, content))
        kept = [(k, v) for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP]
        return response.status, kept, content

    def run_ids(self, action: str) -> list[str]:
        """Ids of the runs that its clients created or deleted (action: create, delete)."""
        ids = []
        for exchange in self.seen:
            if not exchange.path.endswith(f"/mlflow/runs/{action}") or exchange.status != 200:
                continue
            if action == "create":
                ids.append(json.loads(exchange.response)["run"]["info"]["run_id"])
            else:
                ids.append(json.loads(exchange.request)["run_id"])
        return ids


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy on a free port of this machine."""
    own = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            try:
                status, kept, content = own.pass_on(self.command, self.path, headers, body)
            except OSError:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in kept:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):  # the client was killed
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, address: object) -> None:
            pass  # the client was killed

    server = Server(("127.0.0.1", 0), Handler)
    own.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield own
    finally:
        server.shutdown()
        server.server_close()

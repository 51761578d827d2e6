"""A server that speaks as much of MLflow's protocol as reading a run takes, and fails on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
EXPERIMENT = {"experiment_id": "1", "name": "toxtrail", "lifecycle_stage": "active",
              "artifact_location": "mlflow-artifacts:/1", "tags": []}  # fmt: skip


class Answer(NamedTuple):
    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()


class FakeMlflow:
    """What the server holds, and how it fails."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, dict] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.version = "3.17.2"
        self.fails: Callable[[str, str], Answer | None] = lambda method, path: None
        self.seen: list[str] = []

    def add(self, run_id: str, name: str, tags: dict[str, str], files: dict[str, bytes], **data):
        """A finished run."""
        pairs = {
            kind: [{"key": k, "value": v} for k, v in data.get(kind, {}).items()]
            for kind in ("params", "metrics")
        }
        for metric in pairs["metrics"]:
            metric |= {"timestamp": 1, "step": 0}
        self.runs[run_id] = {
            "info": {
                "run_id": run_id, "run_uuid": run_id, "run_name": name, "experiment_id": "1",
                "status": "FINISHED", "start_time": 1, "end_time": 2, "lifecycle_stage": "active",
                "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts", "user_id": "u",
            },
            "data": {"tags": [{"key": k, "value": v} for k, v in tags.items()], **pairs},
            "inputs": {"dataset_inputs": []},
        }  # fmt: skip
        self.files[run_id] = files

    def answer(self, method: str, target: str) -> Answer | bytes:
        parts = urlsplit(target)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.seen.append(path)
        if (failure := self.fails(method, path)) is not None:
            return failure
        if path.endswith("/version"):
            return Answer(200, self.version)
        if path.startswith(f"{ARTIFACTS}/"):
            _, run_id, _, name = path.removeprefix(f"{ARTIFACTS}/").split("/", 3)
            content = self.files[run_id].get(name)
            return content if content is not None else Answer(404, '{"error_code": "NOT_FOUND"}')
        if path == ARTIFACTS:
            return Answer(200, json.dumps({"files": self.listing(query["path"][0])}))
        return self.api(path, query)

    def api(self, path: str, query: dict[str, list[str]]) -> Answer:
        match PurePosixPath(path).parts[-2:]:
            case ("experiments", "get-by-name"):
                return Answer(200, json.dumps({"experiment": EXPERIMENT}))
            case ("runs", "search"):
                return Answer(200, json.dumps({"runs": list(self.runs.values())}))
            case ("runs", "get"):
                return Answer(200, json.dumps({"run": self.runs[query["run_id"][0]]}))
            case ("logged-models", "search"):
                return Answer(200, json.dumps({"models": []}))
        return Answer(404, "<!doctype html><title>404 Not Found</title>")

    def listing(self, path: str) -> list[dict]:
        _, run_id, _, *inner = path.split("/", 3)
        prefix = f"{inner[0]}/" if inner else ""
        names = [n.removeprefix(prefix) for n in self.files[run_id] if n.startswith(prefix)]
        heads = {name.split("/")[0]: "/" in name for name in names}
        return [{"path": name, "is_dir": folder} for name, folder in heads.items()]


@contextmanager
def serving(tls=None) -> Iterator[FakeMlflow]:
    """A fake server on a free port of this machine."""
    fake = FakeMlflow()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            answer = fake.answer(self.command, self.path)
            if isinstance(answer, bytes):
                status, body, headers = 200, answer, ()
            else:
                status, body, headers = answer.status, answer.body.encode(), answer.headers
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

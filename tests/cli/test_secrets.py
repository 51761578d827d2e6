"""No password or token of the environment is printed or written by a command that only looks."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
import yaml
from click.testing import CliRunner

from toxtrail.cli import cli

PASSWORD, TOKEN, KEY = "Zq7hunter2/x@Zq", "Zqtoken4711Zq", "ZqSecretKey99Zq"
MARKS = ("hunter2", "token4711", "SecretKey99")
VARIABLES = {
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "MLFLOW_TRACKING_TOKEN": TOKEN,
    "AWS_SECRET_ACCESS_KEY": KEY,
    "HF_TOKEN": TOKEN,
    "OPENAI_API_KEY": KEY,
}
COMMANDS = [
    ["status"],
    ["plan"],
    ["check"],
    ["runs"],
    ["compare", "--mlflow"],
    ["compare", "one", "other"],
    ["flips", "one", "other"],
    ["card", "one"],
    ["verify"],
    ["audit", "one"],
    ["audit", "0123456789abcdef"],
    ["export", "f", "--to", "x.zip"],
    ["ui", "--help"],
    ["stage", "track", "one"],
]


class Repeating(BaseHTTPRequestHandler):
    """A server that refuses, and says with which credentials it was asked."""

    def answer(self) -> None:
        body = f'{{"message": "no: {self.headers.get("Authorization")} {PASSWORD} {self.path}"}}'
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Repeating) as own:
        threading.Thread(target=own.serve_forever, args=(0.01,), daemon=True).start()
        yield own.server_address[1]
        own.shutdown()


@pytest.fixture
def lab(tmp_path, monkeypatch, written):
    """An experiment with an entry in dvc.lock, in which nothing was run."""
    root = tmp_path / "lab"
    root.mkdir()
    values = yaml.safe_load(written(one="file:one", other="file:other").read_text("utf-8"))
    values["prompts"]["subsets"]["a"] = {"uri": "file:p.txt", "n": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n", "utf-8")
    (root / "p.txt").write_text("Hello\n", "utf-8")
    monkeypatch.chdir(root)
    monkeypatch.setenv("TOXTRAIL_CACHE", str(tmp_path / "cache"))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path


def closed_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
    return port


@pytest.mark.parametrize("kind", ["refusing", "silent", "postgresql", "unknown"])
def test_no_secret_is_printed_or_written(lab, server, monkeypatch, kind):
    user = f"mia:{quote(PASSWORD, safe='')}@127.0.0.1"
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI",
        {
            "refusing": f"http://{user}:{server}",
            "silent": f"http://{user}:{closed_port()}",
            "postgresql": f"postgresql://{user}:{closed_port()}/runs",
            "unknown": f"nosuch+scheme://mia:{PASSWORD}@127.0.0.1/runs",
        }[kind],
    )
    for command in COMMANDS:
        done = CliRunner().invoke(cli, command)
        text = f"{done.output}\n{done.stderr}\n{done.exception!r}"
        assert not [mark for mark in MARKS if mark in text], (command, text)
        assert done.exception is None or isinstance(done.exception, SystemExit), command
    written = [path for path in lab.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert not [mark for mark in MARKS if mark.encode() in path.read_bytes()], path


def test_the_server_of_the_test_does_repeat_what_it_was_sent(server):
    import requests

    said = requests.get(f"http://127.0.0.1:{server}/x", auth=("mia", "p"), timeout=5).text
    assert "hunter2" in said
    assert "Basic" in said

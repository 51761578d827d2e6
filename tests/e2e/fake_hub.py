"""A hub on this machine: repos with cards, gates, new names and files, and a log of questions."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """One repo; everything but its files is what the hub's API says of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    gated: str | bool = False
    open_to_us: bool = True
    parameters: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    """Announced instead of the real ones: nobody serves 16 GB in a test."""


class FakeHub(ThreadingHTTPServer):
    """Serves `models` and `datasets`; `moved` maps old names to new ones."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Repo] = {}
        self.datasets: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        if path.startswith("/api/") and path.count("/") >= 4:
            _, _, kind, org, name, *rest = path.split("/")
            self.api(kind, f"{org}/{name}", rest)
        elif "/resolve/" in path:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            self.file(repo, rest.partition("/")[2])
        else:
            self.refuse(404, "EntryNotFound")

    def api(self, kind: str, name: str, rest: list[str]) -> None:
        if name in self.server.moved:
            new = f"/api/{kind}/{self.server.moved[name]}" + "".join(f"/{part}" for part in rest)
            self.send(307, b"", {"Location": f"{self.server.url}{new}?{urlsplit(self.path).query}"})
            return
        repo: Repo | None = getattr(self.server, kind).get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")
        elif rest[:1] == ["auth-check"]:
            self.send(200, b"{}") if repo.open_to_us else self.refuse(403, "GatedRepo")
        elif rest[:1] == ["revision"] and rest[1] not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self.send(200, json.dumps([_listed(*file) for file in repo.files.items()]).encode())
        else:
            self.send(200, json.dumps(_described(name, repo)).encode())

    def file(self, name: str, file: str) -> None:
        repo = self.server.models.get(name)
        if repo is None or not repo.open_to_us:
            self.refuse(*((401, "RepoNotFound") if repo is None else (403, "GatedRepo")))
        elif file not in repo.files:
            self.refuse(404, "EntryNotFound")
        else:
            content = repo.files[file]
            tag = hashlib.sha1(content).hexdigest()
            self.send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        kind = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for key, value in {**kind, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _listed(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


def _described(name: str, repo: Repo) -> dict[str, Any]:
    files = {**{file: len(content) for file, content in repo.files.items()}, **repo.sizes}
    told: dict[str, Any] = {
        "id": name,
        "sha": COMMIT,
        "gated": repo.gated,
        "tags": repo.tags,
        "cardData": repo.card,
        "config": repo.config,
        "siblings": [{"rfilename": file, "size": size} for file, size in files.items()],
    }
    if repo.parameters is not None:
        told["safetensors"] = {"parameters": {"BF16": repo.parameters}, "total": repo.parameters}
    return told


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub for as long as the block lasts."""
    hub = FakeHub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


def pointed_at(hub: FakeHub, monkeypatch: Any, tmp_path: Any) -> None:
    """This process asks the fake hub: huggingface_hub read its settings when it was imported."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


MODEL = {"model.safetensors": b"weights", "config.json": b'{"model_type": "llama"}'}


def model(base: str | list[str] | None = None, **card: Any) -> Repo:
    """A checkpoint whose card names a base."""
    return Repo(
        files=dict(MODEL),
        card={**({"base_model": base} if base else {}), **card},
        config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    )


def adapter(base: str, **card: Any) -> Repo:
    """A LoRA adapter."""
    config = {"peft_type": "LORA", "base_model_name_or_path": base}
    files = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b"x"}
    return Repo(files=files, card=card)

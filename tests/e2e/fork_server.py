"""Commands as forks of one process that has imported their libraries.

To start Python and import torch, transformers, DVC and MLflow takes many times as long as most
commands on a tiny experiment. `python fork_server.py SOCKET --until PID` imports them once, and
waits as long as that process runs; each request (program, arguments, folder, environment, three
file descriptors) becomes a process of its own, with the exit code and the output of the installed
command. tests/e2e/test_forks.py holds the two against each other.

`python -I -S fork_server.py SOCKET PROGRAM ARGUMENTS...` asks for one: `toxtrail run` starts DVC
by it. It imports nothing but the standard library.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

READ_ONCE = (
    "PYTHON", "LANG", "LC_", "TZ", "HOME", "HF_", "TRANSFORMERS_", "TORCH", "CUDA", "OMP_", "MKL_",
    "ONEDNN_", "NO_COLOR", "FORCE_COLOR", "MLFLOW_",
)  # fmt: skip
"""Beginnings of the variables that Python or a library may read once, when it starts."""
READ_LATER = (
    "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
)  # fmt: skip
LIBRARIES = (
    "alembic.command", "alembic.config", "boto3", "configobj", "dulwich.repo", "dvc.analytics",
    "dvc.cachemgr", "dvc.cli.parser", "dvc.data_cloud", "dvc.lock", "dvc.repo.graph",
    "dvc.repo.index", "dvc.repo.open_repo", "dvc.repo.stage", "dvc.rwlock", "dvc.scm",
    "dvc.stage.run", "dvc.utils.strictyaml", "dvc_data.hashfile.db.local",
    "dvc_data.index.checkout", "dvc_s3", "flufl.lock", "fsspec.implementations.memory",
    "h5netcdf.legacyapi", "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.utils.search_logged_model_utils", "networkx", "nutpie",
    "peft.utils.transformers_weight_conversion", "pyarrow.dataset", "pyarrow.pandas_compat",
    "pymc", "rich.tree", "scmrepo.git", "sqlalchemy.dialects.sqlite",
    "transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama",
    "xarray.computation.nanops", "zc.lockfile",
)  # fmt: skip
"""What commands import late. Each command would import it again."""
SIZE = array.array("i").itemsize


def fixed(environment: Mapping[str, str]) -> dict[str, str]:
    """What a fork cannot change any more. A command for which it differs must start by itself."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_ONCE) and name not in READ_LATER
    }


def ask(
    address: str, program: str, arguments: Sequence[str], folder: str, env: Mapping[str, str],
    streams: tuple[int, int, int],
) -> int:  # fmt: skip
    """Run a program in a fork of the server, and wait for it; its exit code, as of subprocess."""
    request = json.dumps([program, list(arguments), folder, dict(env)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        connection.sendmsg([len(request).to_bytes(8, "big")], rights)
        connection.sendall(request)
        answer = connection.makefile("r").readline()
    if not answer:
        raise RuntimeError(f"the fork server ended while it ran {program} {arguments}")
    return int(answer)


class Running(NamedTuple):
    """A program that was asked for."""

    pid: int
    ended: int
    """File descriptor of the process, which is ready when it has ended."""
    connection: socket.socket
    """To who waits for its exit code."""


def serve(address: str, until: int) -> None:
    """Until that process ends."""
    leash = os.pidfd_open(until)
    _import_libraries()
    _make_once()
    running: list[Running] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen(16)
        Path(f"{address}.new").rename(address)  # it exists: it answers
        while True:
            waiting = [one.connection for one in running if one.connection.fileno() >= 0]
            ended = [one.ended for one in running]
            ready = select.select([server, leash, *ended, *waiting], [], [])[0]
            if leash in ready:
                return
            for one in [one for one in running if one.ended in ready]:
                running.remove(one)
                _answer(one)
            for one in running:
                if one.connection in ready:  # nobody waits any more
                    os.kill(one.pid, signal.SIGTERM)
                    one.connection.close()
            if server in ready:
                with contextlib.suppress(IndexError, ValueError, ConnectionError):  # nobody asks
                    running.append(_start(server, running))


def _import_libraries() -> None:
    import gc
    import importlib
    import pkgutil

    import toxtrail
    from toxtrail.cli import ARITHMETIC, GARBAGE_COLLECTION

    gc.set_threshold(*GARBAGE_COLLECTION)
    for name, value in ARITHMETIC.items():
        os.environ.setdefault(name, value)
    from toxtrail.cli import _dvc_fork

    _dvc_fork._import_libraries()
    own = {module.name for module in pkgutil.walk_packages(toxtrail.__path__, "toxtrail.")}
    for name in (*sorted(own - {"toxtrail.__main__"}), *LIBRARIES):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _make_once() -> None:
    """What takes many commands seconds together, and is the same in each: the model of languages,
    the machine code of the pooled model, and the tables of a new MLflow store."""
    import gc

    from toxtrail.analysis.response_flags import language_identification
    from toxtrail.stats.hierarchical import compiled

    language_identification._identifier()
    compiled.compiled()
    _copy_tables()
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    lost = [name for name in threads[1:] if not name.startswith("jemalloc")]  # that starts its own
    assert not lost, f"a fork would lose these threads: {lost}"
    gc.collect()
    gc.freeze()
    _use_large_pages()


def _use_large_pages() -> None:
    """A fork copies the table of all pages, and its end clears it: with pages of 2 MiB that takes
    about half of the time. Where the kernel cannot (before Linux 6.1), nothing changes."""
    import ctypes

    collapse, size = 25, 1 << 21  # MADV_COLLAPSE
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, mode, *_, inode = line.split()[:5]
        start, end = (int(address, 16) for address in addresses.split("-"))
        start, end = -(-start // size) * size, end // size * size
        if mode.startswith("rw-p") and inode == "0" and start < end:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), collapse)


def _copy_tables() -> None:
    """MLflow creates the tables of a database in about seventy steps: once, then copied."""
    import sqlite3
    import tempfile

    import sqlalchemy
    from mlflow.store.db import utils

    make = utils._initialize_tables
    template = f"{tempfile.mkdtemp(prefix='forks-store-')}/mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{template}")
    make(engine)
    engine.dispose()

    def initialize(engine: sqlalchemy.Engine) -> None:
        if engine.url.get_backend_name() != "sqlite":
            make(engine)
            return
        assert engine.url.database is not None
        with (
            contextlib.closing(sqlite3.connect(template)) as source,
            contextlib.closing(sqlite3.connect(engine.url.database)) as target,
        ):
            source.backup(target)

    initialize.plain = make
    utils._initialize_tables = initialize


def _start(server: socket.socket, running: Sequence[Running]) -> Running:
    """Start what the next connection asks for."""
    connection, _ = server.accept()
    head, rights, *_ = connection.recvmsg(8, socket.CMSG_SPACE(3 * SIZE))
    streams = array.array("i", rights[0][2]).tolist()
    with connection.makefile("rb") as file:
        program, arguments, folder, env = json.loads(file.read(int.from_bytes(head, "big")))
    own = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            for one in (server, connection, *(one.connection for one in running)):
                one.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            _become(own, program, arguments, folder, env)
        finally:
            os._exit(1)
    for stream in streams:
        os.close(stream)
    return Running(child, os.pidfd_open(child), connection)


def _answer(one: Running) -> None:
    """Say how a program ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1])
    os.close(one.ended)
    with contextlib.suppress(OSError):
        one.connection.sendall(f"{code}\n".encode())
    one.connection.close()


def _become(
    parent: int, program: str, arguments: list[str], folder: str, env: dict[str, str]
) -> None:
    """In the fork: be the program, as `toxtrail.cli._dvc_fork` makes a stage of one."""
    from toxtrail.cli import _dvc_fork

    toxtrail = _dvc_fork.toxtrail
    mains = {"toxtrail": toxtrail, "toxtrail.cli._dvc_fork": _dvc_fork.main, "dvc": _dvc,
             "make_assets": _make_assets, "python-c": _python}  # fmt: skip

    def main() -> None:
        _dvc_fork.toxtrail = toxtrail
        mains[program]()

    _dvc_fork.toxtrail = main
    _run_dvc_by_a_fork(sys.argv[1])
    words = [str(Path(sys.executable).with_name(program)), *arguments]
    _dvc_fork._run_in_fork(parent, words, folder, env)


def _dvc() -> None:
    from dvc.cli import main

    sys.exit(main(sys.argv[1:]))


def _make_assets() -> None:
    import runpy

    runpy.run_path(str(Path(__file__).with_name("make_assets.py")), run_name="__main__")


def _python() -> None:
    """`python-c PROGRAM ARGUMENTS...` is `python -c`, with MLflow's own way to create a store."""
    from mlflow.store.db import utils

    utils._initialize_tables = utils._initialize_tables.plain
    sys.argv[:2], program = ["-c"], sys.argv[1]
    exec(program, {"__name__": "__main__"})


def _run_dvc_by_a_fork(address: str) -> None:
    """`toxtrail run` starts DVC as a process of its own: here, as another fork."""
    from toxtrail.backends import dvc

    plain = dvc._dvc_command
    start = [sys.executable, "-m", "toxtrail.cli._dvc_fork"]

    def command(*arguments: str) -> list[str]:
        own = plain(*arguments)
        assert own[:3] == start
        return [sys.executable, "-I", "-S", __file__, address, start[-1], *own[3:]]

    dvc._dvc_command = command


if __name__ == "__main__":
    if sys.argv[2] == "--until":
        serve(sys.argv[1], int(sys.argv[3]))
    else:
        place, name, *rest = sys.argv[1:]
        sys.exit(ask(place, name, rest, str(Path.cwd()), dict(os.environ), (0, 1, 2)))

"""DVC for `toxtrail run`: `python -m toxtrail.cli._dvc_fork repro` in place of `python -m dvc
repro` (see `backends.dvc_process`); on a CPU, toxtrail's stages are forks of its own process.

Starting Python and importing torch, transformers and MLflow takes seconds, and the paper's preset
starts 150 stages. Here the libraries are imported once, at the first stage. The computation of a
stage, its inputs and outputs, its exit code and its reaction to signals are the same.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NoReturn

from toxtrail.backends.dvc import can_fork
from toxtrail.backends.dvc_process import run_dvc
from toxtrail.backends.supervise import die_with
from toxtrail.cli import GARBAGE_COLLECTION
from toxtrail.cli import main as toxtrail
from toxtrail.console import echo, finish, prepare, print_crash

PRELOADED_MODULES = (
    "torch", "transformers.modeling_utils", "transformers.tokenization_utils_fast", "peft",
    "pyarrow.parquet", "xarray", "h5netcdf", "scipy.stats", "arviz", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "mlflow.tracking",
    "toxtrail.analysis.response_flags.refused",
)  # fmt: skip
"""Slow imports of the stages."""


def main() -> NoReturn:
    """Run DVC's command line with another way to run a stage."""
    gc.set_threshold(*GARBAGE_COLLECTION)
    from dvc.stage import run

    prepare()
    if can_fork():
        run._run = partial(_run, run._run)
    code = run_dvc(sys.argv[1:], partial(echo, fg="yellow", err=True))
    finish()
    sys.exit(code)


def _run(plain: Callable[..., None], executable: str | None, cmd: str, **how: Any) -> None:
    """Run one command of dvc.yaml.

    Args:
        plain: DVC's own way, for a command that is not toxtrail's.
        how: as for subprocess.Popen.
    """
    from dvc.stage.exceptions import StageCmdFailedError

    words = shlex.split(cmd)
    if words[:2] != ["toxtrail", "stage"]:
        plain(executable, cmd, **how)
        return
    _import_libraries()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        _run_in_fork(pid, words, how["cwd"], how["env"])
    # As in DVC: only the stage handles an interrupt.
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.signal(signal.SIGINT, previous_handler)
    if code != 0:
        raise StageCmdFailedError(cmd, code)


@cache
def _import_libraries() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in cli/__init__.py
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read once, at the import
    for name in PRELOADED_MODULES:
        importlib.import_module(name)


def _run_in_fork(parent: int, words: Sequence[str], cwd: str, env: Mapping[str, str]) -> NoReturn:
    """Run the command in the fork and exit as it would; also end when the parent is killed."""
    code = 1
    try:
        die_with(parent)
        atexit._clear()  # DVC's, which are the parent's to run
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = list(words)
        toxtrail()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001  as the interpreter does at its outermost level
        print_crash(type(error), error, error.__traceback__)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

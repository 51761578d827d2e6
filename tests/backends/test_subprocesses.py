"""Programs end with the process that started them, in every way that it can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from toxtrail.backends.subprocesses import run_foreground
from toxtrail.execution import run_lock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's"),
]
SECONDS = 60

LEADER = """
import os, sys
from pathlib import Path
from toxtrail.backends.subprocesses import run_foreground
from toxtrail.cli import main
import signal
signal.signal(signal.SIGTERM, lambda n, f: sys.exit(128 + n))
signal.signal(signal.SIGHUP, lambda n, f: sys.exit(128 + n))
sys.exit(run_foreground([sys.executable, "-c", sys.argv[1]], Path.cwd(), os.environ))
"""
BESIDE = (
    LEADER.replace("import run_foreground", "import BackgroundProgram")
    .replace("sys.exit(run_foreground([", "program = BackgroundProgram([")
    .replace(
        "os.environ))",
        "os.environ, Path('log'))\nimport time\nwhile program.exit_code is None: time.sleep(0.01)\n"
        "sys.exit(program.exit_code)",
    )
)
"""The leader of a program that runs beside it."""
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids.part", "w").write(f"{os.getpid()} {child.pid} {os.getppid()}")
os.rename("pids.part", "pids")
time.sleep(600)
"""


@pytest.fixture(params=[LEADER, BESIDE], ids=["in front", "beside"])
def family(tmp_path, request):
    """A leader whose program has a child; both sleep. Yields (leader, their pids)."""
    leader = subprocess.Popen([sys.executable, "-c", request.param, FAMILY], cwd=tmp_path)
    wait(lambda: (tmp_path / "pids").exists())
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    yield leader, pids
    leader.kill()
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    leader.wait()


def wait(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=str
)
def test_all_end_when_the_leader_is_killed(family, number):
    leader, pids = family
    leader.send_signal(number)
    leader.wait(SECONDS)
    wait(lambda: not any(map(is_alive, pids)))


def test_what_a_killed_program_has_started_ends_too(family):
    leader, (program, child, _) = family
    os.kill(program, signal.SIGKILL)
    assert leader.wait(SECONDS) == 128 + signal.SIGKILL
    wait(lambda: not is_alive(child))


def test_what_a_program_leaves_behind_is_stopped(tmp_path):
    leaves = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)']); open('left', 'w').write(str(p.pid))"
    )
    assert run_foreground([sys.executable, "-c", leaves], tmp_path, os.environ) == 0
    assert not is_alive(int((tmp_path / "left").read_text()))


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_exit_code_is_the_programs(tmp_path, code):
    command = [sys.executable, "-c", f"raise SystemExit({code})"]
    assert run_foreground(command, tmp_path, os.environ) == code


def test_a_program_that_is_not_there_is_named(tmp_path, capfd):
    assert run_foreground(["no-such-program"], tmp_path, os.environ) == 127
    assert "no-such-program" in capfd.readouterr().err


def test_a_stopped_program_may_finish_what_it_does(tmp_path):
    """SIGTERM comes first; the program's own answer counts."""
    answers = (
        "import signal, sys, time\n"
        "def stop(n, f):\n    open('done', 'w').write('yes'); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open('pids', 'w').write('0')\n"
        "while True: time.sleep(0.1)"
    )
    leader = subprocess.Popen([sys.executable, "-c", LEADER, answers], cwd=tmp_path)
    wait(lambda: (tmp_path / "pids").exists())
    leader.kill()
    leader.wait()
    wait(lambda: (tmp_path / "done").exists())


HOLDER = """
import sys, time
from pathlib import Path
from toxtrail.execution.run_lock import only_run
with only_run(Path.cwd(), lambda text: print(text, flush=True)):
    print("has it", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def test_a_second_run_waits_and_says_for_whom(tmp_path):
    assert run_lock.running(tmp_path) is None
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "600"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "has it\n"
    assert f"process {first.pid}" in run_lock.running(tmp_path)
    second = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert f"process {first.pid}" in second.stdout.readline()
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.communicate()[0] == "has it\n"
    assert run_lock.running(tmp_path) is None

"""DVC with toxtrail's stages as forks of its own process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from dvc.stage.exceptions import StageCmdFailedError

from toxtrail.backends import dvc
from toxtrail.cli import _dvc_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stages are forked on Linux only")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a command in a fork whose `toxtrail` is the given function."""
    monkeypatch.setattr(_dvc_fork, "_import_libraries", lambda: None)

    def run(stands_in, cmd="toxtrail stage score v", env=None):
        monkeypatch.setattr(_dvc_fork, "toxtrail", stands_in)
        refuse = lambda *_, **__: pytest.fail("run by DVC")  # noqa: E731
        options = {"env": env or {}, "close_fds": True, "shell": False}
        _dvc_fork._run(refuse, "/bin/sh", cmd, cwd=str(tmp_path), **options)

    return run


def test_a_stage_gets_the_arguments_folder_and_environment_that_dvc_gives_it(run, tmp_path):
    def toxtrail():
        Path("said").write_text(f"{sys.argv} {dict(os.environ)}")

    run(toxtrail, env={"DVC_STAGE": "score@v"})
    assert (tmp_path / "said").read_text() == (
        "['toxtrail', 'stage', 'score', 'v'] {'DVC_STAGE': 'score@v'}"
    )


@pytest.mark.parametrize(("end", "code"), [(0, None), (None, None), (1, 1), (143, 143), ("no", 1)])
def test_it_ends_as_the_command_ends(run, end, code):
    def toxtrail():
        sys.exit(end)

    if code is None:
        run(toxtrail)
        return
    with pytest.raises(StageCmdFailedError, match=f"exited with {code}"):
        run(toxtrail)


def test_a_bug_shows_its_traceback_and_fails_the_stage(run, capfd):
    def toxtrail():
        raise RuntimeError("a bug")

    with pytest.raises(StageCmdFailedError):
        run(toxtrail)
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_a_killed_stage_has_failed(run):
    with pytest.raises(StageCmdFailedError):
        run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_nothing_of_a_stage_is_left_in_the_process_that_started_it(run):
    before = (dict(os.environ), Path.cwd(), list(sys.argv))

    def toxtrail():
        os.environ["LEFT"] = "behind"
        os.chdir("/")

    run(toxtrail)
    assert (dict(os.environ), Path.cwd(), list(sys.argv)) == before
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_a_command_that_is_not_toxtrails_is_left_to_dvc():
    asked = []
    _dvc_fork._run(
        lambda *given, **how: asked.append((given, how)), "/bin/sh", "echo hello", cwd="."
    )
    assert asked == [(("/bin/sh", "echo hello"), {"cwd": "."})]


def test_dvc_still_has_the_function_that_is_replaced():
    """An upgrade of DVC that renames it is noticed here."""
    import inspect

    from dvc.stage import run

    assert list(inspect.signature(run._run).parameters) == ["executable", "cmd", "kwargs"]


@pytest.mark.parametrize("device", ["/dev/nvidiactl", "/dev/dxg", "/dev/kfd"])
def test_where_a_gpu_may_be_each_stage_starts_on_its_own(monkeypatch, device):
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == device)
    assert not dvc.can_fork()

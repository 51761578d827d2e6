"""Stages that are forks of one process make what stages of their own make."""

from __future__ import annotations

import sys
from pathlib import Path

import forks
import pytest

pytestmark = pytest.mark.slow


def test_a_warm_run_makes_the_same_bytes_as_dvc_alone(finished, lab):
    """`finished` was made by `toxtrail run`."""
    lab.toxtrail("pin")
    env = {**lab.env, "PATH": f"{Path(sys.executable).parent}:{lab.env['PATH']}"}
    done = forks.itself("dvc", ["repro"], lab.root, env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished.outputs() == lab.outputs()
    assert (finished.root / "dvc.lock").read_bytes() == (lab.root / "dvc.lock").read_bytes()

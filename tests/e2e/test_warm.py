"""Stages that are forks of one process make what stages of their own make."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_warm_run_makes_the_same_bytes_as_dvc_alone(new_lab):
    warm, cold = new_lab("warm"), new_lab("cold")
    for lab in (warm, cold):
        lab.toxtrail("pin")
    warm.toxtrail("run")
    cold.env["PATH"] = f"{Path(sys.executable).parent}:{cold.env['PATH']}"
    cold.dvc("repro")
    assert warm.outputs() == cold.outputs()
    assert (warm.root / "dvc.lock").read_bytes() == (cold.root / "dvc.lock").read_bytes()

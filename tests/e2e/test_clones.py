"""A clone that has not pulled its files: what commands say there."""

from __future__ import annotations

import subprocess

import pytest
from conftest import Lab

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(finished, tmp_path):
    subprocess.run(["git", "clone", "-q", finished.root, tmp_path / "clone"], check=True)
    made = Lab(tmp_path / "clone", finished.env)
    made.dvc("remote", "add", "-q", "--default", "storage", str(tmp_path / "remote"))
    return made


@pytest.mark.parametrize("command", [["compare"], ["report"], ["audit", "tuned"], ["gate"]])
def test_a_command_without_its_files_names_dvc_pull(clone, command):
    message = clone.toxtrail(*command, code=1).stderr
    assert "`dvc pull`" in message
    assert "storage" in message


def test_status_lists_what_was_not_pulled(clone, finished):
    missing = clone.json("status")["not_pulled"]
    assert "data/generations/tiny/tuned.parquet" in missing
    assert not [path for path in missing if path.startswith("mlruns")]
    assert finished.json("status")["not_pulled"] == []

"""A vLLM program is found with the Python that runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from toxtrail.backends.vllm.installation import (
    VllmInstallation,
    child_environment,
    find_command,
    python_of,
    query,
    version_numbers,
)
from toxtrail.errors import BackendError

FACTS = {"vllm": "0.32.1", "platform": "cpu", "device": "cpu", "capability": "0.0"}


def environment_of(folder: Path, prints: str, code: int = 0) -> Path:
    """A folder with `vllm` and a `python` that prints something, whatever it is told to run."""
    folder.mkdir()
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{prints}\nE\nexit {code}\n", encoding="utf-8")
    command = folder / "vllm"
    command.write_text(f"#!{python}\n", encoding="utf-8")
    for path in (python, command):
        path.chmod(0o755)
    return command


def test_the_versions_are_those_of_its_own_python(tmp_path):
    command = environment_of(tmp_path / "bin", f"a warning\n{json.dumps(FACTS)}")
    assert query(command) == VllmInstallation(command, FACTS)


@pytest.mark.parametrize("version", ["0.9.1", "0.31.9", "unknown"])
def test_an_older_version_is_refused(tmp_path, version):
    command = environment_of(tmp_path / "bin", json.dumps({**FACTS, "vllm": version}))
    with pytest.raises(BackendError, match=r"0\.32 or newer"):
        query(command)


@pytest.mark.parametrize(("prints", "code"), [("no JSON", 0), ("[]", 0), ("", 0), ("", 1)])
def test_a_python_without_vllm_is_refused_with_the_cure(tmp_path, prints, code):
    command = environment_of(tmp_path / "bin", prints, code)
    with pytest.raises(BackendError, match=r"runtime\.vllm\.command"):
        query(command)


def test_a_program_is_found_by_path_relative_to_the_experiment_and_by_name(tmp_path, monkeypatch):
    command = environment_of(tmp_path / "bin", "")
    assert find_command("bin/vllm", tmp_path) == command
    assert find_command(str(command), Path("/")) == command
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_command("vllm", Path("/")) == command
    with pytest.raises(BackendError, match="no program bin/other"):
        find_command("bin/other", tmp_path)


def test_the_python_is_in_the_first_line_or_beside_the_program(tmp_path):
    command = environment_of(tmp_path / "bin", "")
    command.write_text(f"#!{sys.executable}\n", encoding="utf-8")
    assert python_of(command) == Path(sys.executable)
    command.write_text("#!/bin/sh\n'''exec' ...\n", encoding="utf-8")
    assert python_of(command) == tmp_path / "bin" / "python"
    (tmp_path / "bin" / "python").unlink()
    with pytest.raises(BackendError, match="not the program of a Python environment"):
        python_of(command)


def test_variables_that_could_change_rows_or_are_secret_are_not_passed_on(monkeypatch):
    for name in ("VLLM_ATTENTION_BACKEND", "VLLM_API_KEY", "PYTHONPATH", "TOXTRAIL_SERVER_KEY"):
        monkeypatch.setenv(name, "x")
    kept = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": "1"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    environment = child_environment()
    assert kept.items() <= environment.items()
    assert "x" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("platform", "capability", "supported"),
    [("cuda", "8.0", True), ("cuda", "10.0", True), ("cuda", "7.5", False), ("cpu", "0.0", False)],
)
def test_batch_invariance_needs_a_gpu_of_capability_8(platform, capability, supported):
    facts = {**FACTS, "platform": platform, "capability": capability}
    assert VllmInstallation(Path("vllm"), facts).has_batch_invariance is supported


def test_versions_are_compared_as_numbers():
    assert version_numbers("0.100.0+cpu") > version_numbers("0.32.5") > version_numbers("0.9")

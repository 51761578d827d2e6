"""The script itself, on sizes whose numbers mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from speed import gpu
from speed.given import Given

ON = {"cpu", "cores", "memory_gib", "system", "busy_before"}


def run(project, *arguments):
    script = project / "benchmarks/generation.py"
    return subprocess.run(
        [sys.executable, str(script), "--quick", "--threads", "1", *arguments],
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def section(project, part, tmp_path, *arguments):
    out = tmp_path / "out.json"
    done = run(project, "--part", part, "--out", str(out), *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text("utf-8")), done.stdout


@pytest.mark.slow
def test_every_way_continues_the_same_prompts_with_the_same_tokens(
    project, tiny, sentences, tmp_path
):
    before = (project / "benchmarks/RESULTS.md").read_text("utf-8")
    known, shown = section(
        project, "cpu", tmp_path, "--model", str(tiny), "--prompts", str(sentences)
    )
    found = known["generation_cpu"]
    assert known["machine"].keys() == ON
    assert found["quick"] is True
    assert found["engine"] == {"float32": "packed", "bfloat16": "packed"}
    float32 = {name: share for name, share in found["equal_rows_by_way"].items() if "32" in name}
    assert len(float32) == 4
    assert set(float32.values()) == {1.0}
    assert found["equal_rows"] == found["equal_rows_bf16_other_neighbours"] == 1.0
    assert found["ratio_vs_reference_loop"] > 0
    assert 0 < found["share_of_limit"] < 1
    assert "| reference loop, float32 |" in shown
    assert (project / "benchmarks/RESULTS.md").read_text("utf-8") == before


@pytest.mark.slow
def test_without_a_checkpoint_random_weights_are_scored_and_said_to_be(
    project, sentences, tmp_path
):
    known, shown = section(project, "scoring", tmp_path, "--prompts", str(sentences))
    found = known["scoring_cpu"]
    assert found["checkpoint"] == "random weights"
    assert "random weights" in shown
    assert max(found["largest_difference"].values()) <= 1e-5
    assert found["ratio_vs_one_by_one"] > 0
    assert 0 < found["share_of_limit"] < 1
    assert "linear layers alone" in shown


@pytest.mark.slow
def test_the_gpu_part_measures_the_same_on_any_device():
    import torch

    given = Given(None, None, None, 1, 1, True)
    found = gpu.on_device(torch.device("cpu"), "no GPU", given)
    (model,) = found["models"].values()
    assert set(model["tokens_per_second"]) == {gpu.LOOP, gpu.OURS, gpu.MORE, gpu.PLAIN}
    assert set(model["share_of_bandwidth_limit"]) == {gpu.OURS, gpu.MORE}
    assert model["equal_rows_other_neighbours"] == 1.0


@pytest.mark.slow
def test_a_prompt_file_that_is_not_there_is_named(project):
    done = run(project, "--part", "cpu", "--prompts", "nowhere.txt")
    assert done.returncode == 2
    assert "folder nowhere.txt" in done.stderr

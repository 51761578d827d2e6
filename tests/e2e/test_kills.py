"""A killed stage leaves nothing half done, and ends as if it had not been killed."""

from __future__ import annotations

import os
import resource
import signal
import time

import pytest
from conftest import make_lab

pytestmark = pytest.mark.slow

DEADLINE_S = 120
ROWS = 300
GENERATIONS = "data/generations/tiny/base.parquet"


def wait_for(condition, process):
    """Until the condition holds; fails if the process ends before."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def prepared(tiny_assets, tmp_path_factory):
    """Many rows in small batches, and many training steps; prompts and the base model are made."""
    lab = make_lab(tiny_assets, tmp_path_factory.mktemp("prepared") / "lab")
    for name in ("one", "two"):
        path = lab.root / f"assets/{name}.txt"
        words = path.read_text("utf-8").split()
        lines = [
            " ".join(words[i % 40 : i % 40 + 4]) + f" w{i % 80} w{i // 80}" for i in range(400)
        ]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    subsets = lab.params["prompts"]["subsets"]
    lab.edit(
        prompts={"subsets": {name: {**own, "n": ROWS // 2} for name, own in subsets.items()}},
        finetunes={"tuned": {**lab.params["finetunes"]["tuned"], "max_steps": 120}},
        runtime={"batch_tokens": 30},
    )
    lab.toxtrail("stage", "prompts")
    lab.toxtrail("stage", "model", "base")
    return lab


@pytest.fixture
def slow(prepared, tmp_path):
    return prepared.copy(tmp_path / "lab")


@pytest.fixture(scope="module")
def expected(prepared, tmp_path_factory):
    """The generations of a stage that nobody killed."""
    lab = prepared.copy(tmp_path_factory.mktemp("alone") / "lab")
    lab.toxtrail("stage", "generate", "base")
    return (lab.root / GENERATIONS).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_generation_goes_on_and_ends_the_same_to_the_byte(slow, expected, number):
    output = slow.root / GENERATIONS
    process = slow.start("stage", "generate", "base")
    wait_for(lambda: lines_of(slow) >= 30, process)
    process.send_signal(number)
    text = process.communicate()[0]
    assert process.returncode != 0
    assert "Traceback" not in text
    done = lines_of(slow)
    assert not output.exists()
    assert 30 <= done < ROWS
    again = slow.toxtrail("stage", "generate", "base")
    assert output.read_bytes() == expected
    assert f"{ROWS} of {ROWS} rows" in again.stderr
    assert lines_of(slow) == ROWS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_stops_the_stage_that_it_started(slow, number):
    output = slow.root / GENERATIONS
    process = slow.start("run", "generate@base")
    wait_for(lambda: lines_of(slow) >= 30, process)
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    done = lines_of(slow)
    time.sleep(2)
    assert (lines_of(slow), output.exists()) == (done, False)
    assert f"{ROWS} of {ROWS} rows" in slow.toxtrail("run", "generate@base").stderr


def test_a_full_disk_is_said_and_the_end_is_the_same_to_the_byte(slow, expected):
    """A limit on the size of files stands for it: writing fails in the middle of a row, too."""
    output = slow.root / GENERATIONS
    room = 20_000
    process = slow.start("stage", "generate", "base")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    text = process.communicate()[0]
    assert process.returncode == 1
    assert "Disk full" in text
    assert "Traceback" not in text
    assert not output.exists()
    (rows,) = (slow.root / ".toxtrail/rows/generate").rglob("rows-*.jsonl")
    assert rows.stat().st_size == room
    assert not rows.read_bytes().endswith(b"\n")  # torn
    assert 0 < lines_of(slow) < ROWS
    slow.toxtrail("stage", "generate", "base")
    assert output.read_bytes() == expected


def test_a_disk_that_fills_up_before_a_checkpoint_is_said(slow):
    """torch would end the process where a write fails."""
    process = slow.start("stage", "finetune", "tuned")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    text = process.communicate()[0]
    assert (process.returncode, "Traceback" in text) == (1, False)
    assert "Disk full" in text


def test_a_killed_training_goes_on_and_ends_with_the_same_adapter(slow):
    folder = slow.root / "models/tuned"
    slow.toxtrail("stage", "finetune", "tuned")
    expected = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    process = slow.start("stage", "finetune", "tuned")
    scratch = slow.root / ".toxtrail/scratch/finetune"
    wait_for(lambda: any(scratch.rglob("complete.json")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not folder.exists()
    slow.toxtrail("stage", "finetune", "tuned")
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == expected


def lines_of(lab) -> int:
    files = (lab.root / ".toxtrail/rows/generate").rglob("rows-*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in files)

"""dvc.lock against the committed one: other bytes of outputs only, and their numbers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.verify.committed_lock import (
    changed_outputs,
    largest_difference,
    other_bytes,
    other_bytes_message,
)
from toxtrail.auditing.verify.dvc_lock_parser import read_entries
from toxtrail.auditing.verify.pipeline import verify_committed
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_path

HASHES = {
    "code/score.sha256": "0" * 32,
    "data/generations/f/a.parquet": "1" * 32,
    "data/scores/f/a.parquet": "2" * 32,
    "data/scores/f": "3" * 28 + ".dir",
    "results/metrics/f.json": "4" * 32,
    "mlruns/receipts/families/f.json": "5" * 32,
}


def row(path, hashes):
    return f"    - path: {path}\n      hash: md5\n      md5: {hashes[path]}\n      size: 1\n"


def lock(changed=None, threshold=0.5, command="toxtrail stage score a"):
    hashes = {**HASHES, **(changed or {})}
    return (
        "schema: '2.0'\nstages:\n"
        f"  score@a:\n    cmd: {command}\n    deps:\n"
        f"{row('code/score.sha256', hashes)}"
        f"    params:\n      params.yaml:\n        posterior:\n          threshold: {threshold}\n"
        f"    outs:\n{row('data/generations/f/a.parquet', hashes)}"
        f"{row('data/scores/f/a.parquet', hashes)}"
        "  compare@f:\n    cmd: toxtrail stage compare f\n    deps:\n"
        f"{row('data/scores/f', hashes)}"
        f"    outs:\n{row('results/metrics/f.json', hashes)}"
        f"{row('mlruns/receipts/families/f.json', hashes)}"
    )


OTHER = "a" * 32
OUTPUTS = [path for path in HASHES if path not in ("code/score.sha256", "data/scores/f")]


@given(st.sets(st.sampled_from(OUTPUTS)))
def test_other_hashes_of_outputs_are_listed_without_receipts(paths):
    changed = lock({**dict.fromkeys(paths, OTHER), "data/scores/f": "b" * 28 + ".dir"})
    listed = changed_outputs(read_entries(lock()), read_entries(changed))
    assert listed == sorted(path for path in paths if not path.startswith("mlruns/"))


@pytest.mark.parametrize(
    "present",
    [
        lock({"code/score.sha256": OTHER, "data/scores/f/a.parquet": OTHER}),
        lock({"data/scores/f/a.parquet": OTHER}, threshold=0.6),
        lock({"data/scores/f/a.parquet": OTHER}, command="toxtrail stage score b"),
        lock({"data/scores/f/a.parquet": OTHER}).partition("  compare@f")[0],
    ],
    ids=["code", "parameter", "command", "stage"],
)
def test_any_other_difference_is_not_one_of_bytes(present):
    assert changed_outputs(read_entries(lock()), read_entries(present)) == []


values = st.dictionaries(
    st.sampled_from("abc"),
    st.dictionaries(st.sampled_from(["rate_pct", "difference_pp"]), st.floats(-100, 100)),
)


@given(values, values)
def test_the_largest_difference_is_symmetric_and_zero_for_the_same(a, b):
    assert largest_difference(a, a) == 0
    assert largest_difference(a, b) == largest_difference(b, a)


def test_the_largest_difference_needs_the_same_values():
    assert largest_difference({"v": {"rate_pct": 1.0}}, {"v": {"rate_pct": 3.5}}) == 2.5
    assert largest_difference({"v": {"rate_pct": 1.0}}, {"v": {}}) is None


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment whose committed metrics are a rate of 10 %."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    metrics = json.dumps({"v": {"rate_pct": 10.0}})
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "results/metrics").mkdir(parents=True)
    (tmp_path / "results/metrics/f.json").write_text(metrics, "utf-8")
    (tmp_path / ".gitignore").write_text("/results/\n/.dvc/\n", "utf-8")
    (tmp_path / "dvc.lock").write_text(lock({"results/metrics/f.json": md5(metrics)}), "utf-8")
    git.init(tmp_path)
    git.commit_all(tmp_path, "run")
    return tmp_path


def run_again(root: Path, rate: float) -> str:
    """Other bytes of scores, and these metrics; returns the hash of the earlier metrics."""
    path = root / "results/metrics/f.json"
    before, now = path.read_text("utf-8"), json.dumps({"v": {"rate_pct": rate}})
    path.write_text(now, "utf-8")
    hashes = {"data/scores/f/a.parquet": OTHER, "results/metrics/f.json": md5(now)}
    (root / "dvc.lock").write_text(lock(hashes), "utf-8")
    cached = cache_path(root / ".dvc/cache", md5(before))
    cached.parent.mkdir(parents=True)
    cached.write_text(before, "utf-8")
    return md5(before)


def test_the_committed_lock_has_no_difference(experiment):
    assert other_bytes(experiment) is None


def test_equal_metrics_are_a_difference_of_zero(experiment):
    run_again(experiment, 10.0)
    changed = other_bytes(experiment)
    assert changed == (("data/scores/f/a.parquet",), 0.0, ())
    assert "0.000 points" in other_bytes_message(changed)
    (check,) = verify_committed(experiment)
    assert check.outcome == "weak"
    assert other_bytes_message(changed) in check.detail


def test_other_metrics_are_compared_with_those_in_the_cache(experiment):
    before = run_again(experiment, 12.5)
    changed = other_bytes(experiment)
    assert changed.largest_difference == 2.5
    cache_path(experiment / ".dvc/cache", before).unlink()
    unknown = other_bytes(experiment)
    assert (unknown.largest_difference, unknown.not_compared) == (None, ("f",))
    assert "points" not in other_bytes_message(unknown)


def test_a_folder_without_git_or_lock_has_no_difference(tmp_path):
    assert other_bytes(tmp_path) is None

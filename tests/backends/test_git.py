"""git's refusals are told apart from there being no repository."""

from __future__ import annotations

import subprocess

from toxtrail.backends import git
from toxtrail.preflight.machine import machine_checks


def repository(folder):
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / "a").write_text("a")
    subprocess.run(["git", "-C", str(folder), "add", "a"], check=True)
    subprocess.run(["git", "-C", str(folder), *identity, "commit", "-qm", "a"], check=True)


def test_a_repository_of_another_user_is_no_missing_repository(tmp_path, monkeypatch):
    repository(tmp_path)
    (tmp_path / "inside").mkdir()
    assert len(git.head_commit(tmp_path)) == 40
    assert git.refusal(tmp_path) is None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert git.head_commit(tmp_path) is None
    for folder in (tmp_path, tmp_path / "inside"):
        assert f"safe.directory {tmp_path}" in git.refusal(folder)
    (finding,) = [one for one in machine_checks(tmp_path) if one.what == "git commit"]
    assert not finding.ok
    assert "safe.directory" in finding.cure


def test_without_a_repository_nothing_is_refused(tmp_path):
    assert git.refusal(tmp_path) is None
    assert git.head_commit(tmp_path) is None


def test_without_git_its_absence_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in git.refusal(tmp_path)


def test_to_look_at_a_repository_writes_nothing(tmp_path):
    repository(tmp_path)
    index = tmp_path / ".git" / "index"
    (tmp_path / "a").touch()
    before = index.read_bytes(), index.stat().st_mtime_ns
    assert git.changed_files(tmp_path) == []
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before


def test_a_cache_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOXTRAIL_CACHE", str(tmp_path / "file"))
    (finding,) = [one for one in machine_checks(tmp_path) if one.what == "asset cache"]
    assert not finding.ok
    assert str(tmp_path / "file") in finding.found


def test_what_a_run_writes_is_no_change(tmp_path):
    git.init(tmp_path)
    root = tmp_path / "experiment"
    for name in ("dvc.lock", "experiment/dvc.lock", "experiment/data/records/score/v/1.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert git.changed_files(root) == []
    assert len(git.uncommitted(root, "data/records")) == 1
    (root / "params.yaml").write_text("")
    (tmp_path / "other").write_text("")
    assert len(git.changed_files(root)) == 2
    (root / ".gitignore").write_text("/data/records\n")
    assert git.uncommitted(root, "data/records") == []

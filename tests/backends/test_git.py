"""git's refusals are told apart from there being no repository."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://alice:s3cret@example.org:8443/a.git", "https://example.org:8443/a.git"),
        ("https://s3cret@example.org/a", "https://example.org/a"),
        ("https://example.org/a?token=s3cret#s3cret", "https://example.org/a"),
        ("ssh://git@example.org:22/a.git", "ssh://example.org:22/a.git"),
        ("git@example.org:a/b.git", "example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("https://alice:s3/cret@x@example.org/a", None),
        ("alice:s3cret@example.org:a", None),
        ("helper::https://alice:s3cret@example.org/a", None),
        ("ext::sh -c s3cret", None),
    ],
)
def test_the_address_of_a_remote_has_no_credentials(tmp_path, address, shown):
    assert git.origin(tmp_path) is None
    repository(tmp_path)
    assert git.origin(tmp_path) is None
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    assert git.origin(tmp_path) == shown


@given(st.text("ab:/@?#.%", max_size=12), st.text("ab:/@?#.%", max_size=12))
def test_no_user_information_is_left_in_an_address(before, after):
    shown = git.without_credentials(f"https://{before}s3cret{after}@example.org/a")
    assert shown is None or "s3cret" not in shown


def test_the_branch_is_named_unless_head_is_detached(tmp_path):
    assert git.branch(tmp_path) is None
    repository(tmp_path)
    for command in (["switch", "-qc", "a/topic"], ["switch", "-q", "--detach"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
        assert git.branch(tmp_path) == ("a/topic" if "-qc" in command else None)


def test_one_file_is_committed_in_a_repository_of_its_own_folder_only(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for key, value in {"user.name": "test", "user.email": "test@example.org"}.items():
        git.set_setting(tmp_path, key, value)
    (tmp_path / "below").mkdir()
    for name in ("a", "b", "below/a"):
        (tmp_path / name).write_text("1")
    git.commit_all(tmp_path, "start")
    for name in ("a", "b", "below/a"):
        (tmp_path / name).write_text("2")
    assert not git.commit_file(tmp_path / "below", "a", "not here")
    assert git.commit_file(tmp_path, "a", "one file")
    assert git.changed_files(tmp_path) == ["b", "below/a"]
    assert not git.commit_file(tmp_path, "a", "unchanged")

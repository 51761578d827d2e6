"""A content is found in any commit, under the name that it had."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from toxtrail.auditing.lineage.lock_history import lock_history, recorded_locations
from toxtrail.auditing.verify.hash_cache import Digest, dir_md5, md5_of
from toxtrail.backends import git
from toxtrail.backends.dvc import cache_path


@pytest.fixture
def repo(tmp_path):
    root = tmp_path / "repo" / "inner"
    root.mkdir(parents=True)
    command(root, "init", "-q", "..")
    return root


def command(root, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True)


def lock(root, md5, subject=None, path="data/x", **more):
    row = {"path": path, "hash": "md5", "md5": md5, "size": 1, **more}
    stages = {"generate@v": {"cmd": "c", "outs": [row]}}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    if subject:
        command(root, "add", "-A")
        command(root, "commit", "-qm", subject)


def digest(md5):
    return Digest("0" * 64, md5, 1)


def test_a_content_is_found_at_the_oldest_commit_that_has_it(repo, tmp_path):
    for md5, subject in (("a" * 32, "first"), ("a" * 32 + "\n", "same"), ("b" * 32, "second")):
        lock(repo, md5.strip(), None)
        (repo / "note").write_text(subject)
        command(repo, "add", "-A")
        command(repo, "commit", "-qm", f"{subject} \u00e9 | \t x")
    (found,) = recorded_locations(digest("a" * 32), lock_history(repo), tmp_path, ())
    assert (found.stage, found.path) == ("generate@v", "data/x")
    assert found.subject.startswith("first \u00e9")
    assert found.commit == git.resolve(repo, "HEAD~2")
    assert recorded_locations(digest("c" * 32), lock_history(repo), tmp_path, ()) == []


def test_the_work_trees_lock_is_a_place_of_its_own_if_it_is_another(repo, tmp_path):
    lock(repo, "a" * 32, "first")
    assert [one.commit != "" for one in lock_history(repo)] == [True]
    lock(repo, "b" * 32)
    assert lock_history(repo)[0].where == "dvc.lock"
    assert (
        recorded_locations(digest("b" * 32), lock_history(repo), tmp_path, ())[0].where
        == "dvc.lock"
    )


def test_a_file_in_a_folder_is_found_through_the_cached_list_alone(repo, tmp_path):
    inside = {"adapter/x": md5_of(b"x"), "y": md5_of(b"y")}
    name = dir_md5(inside)
    lock(repo, name, "first", path="models/v", nfiles=2)
    assert recorded_locations(digest(md5_of(b"x")), lock_history(repo), tmp_path, ()) == []
    path = cache_path(tmp_path, name)
    path.parent.mkdir(parents=True)
    rows = ", ".join(f'{{"md5": "{m}", "relpath": "{n}"}}' for n, m in sorted(inside.items()))
    path.write_text(f"[{rows}]")
    (found,) = recorded_locations(digest(md5_of(b"x")), lock_history(repo), tmp_path, ())
    assert found.path == "models/v/adapter/x"
    path.write_text(path.read_text().replace("adapter/x", "adapter/z"))
    assert recorded_locations(digest(md5_of(b"x")), lock_history(repo), tmp_path, ()) == []


def test_a_lock_that_cannot_be_read_hides_no_other(repo, tmp_path):
    lock(repo, "a" * 32, "first")
    (repo / "dvc.lock").write_text("a: [" + "a" * 32)
    command(repo, "commit", "-qam", "broken")
    (found,) = recorded_locations(digest("a" * 32), lock_history(repo), tmp_path, ())
    assert found.subject == "first"


def test_without_git_there_is_the_present_lock_alone(tmp_path):
    assert lock_history(tmp_path) == []
    lock(tmp_path, "a" * 32)
    assert [one.commit for one in lock_history(tmp_path)] == [""]


def test_no_revision_is_taken_for_an_option(repo):
    lock(repo, "a" * 32, "first")
    assert git.resolve(repo, "--help") is None
    assert git.resolve(repo, "nothing") is None
    assert git.file_at(repo, "HEAD", "none") is None

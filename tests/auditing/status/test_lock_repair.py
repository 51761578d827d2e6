"""A dvc.lock that was cut off at any byte is completed; one that was not is left alone."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.status.lock_repair import (
    HEAD,
    completed,
    copy_path,
    is_cut_off,
    keep_copy,
    lock_problem,
    repair_lock,
)
from toxtrail.errors import ConfigError


def entry(name, md5, outs=("data/out.parquet",)):
    rows = "".join(
        f"    - path: {out}\n      hash: md5\n      md5: {md5 * 32}\n      size: 12345\n"
        for out in outs
    )
    return (
        f"  {name}:\n    cmd: toxtrail stage {name.replace('@', ' ')}\n    deps:\n"
        f"    - path: requirements.txt\n      hash: md5\n      md5: {md5 * 32}\n"
        f"      size: 4011\n    params:\n      params.yaml:\n        generation:\n"
        f"          seed: 7\n    outs:\n{rows}"
    )


OLD = HEAD + entry("prompts", "a") + entry("generate@base", "a") + entry("report", "a")
NEW = HEAD + entry("prompts", "a") + entry("generate@base", "b") + entry("report", "a")


def entries(text):
    return (yaml.safe_load(text) or {}).get("stages", {}) if text else {}


@given(st.integers(0, len(NEW)))
def test_cut_at_any_byte_every_entry_comes_back_old_or_new(length):
    torn = NEW[:length]
    found = entries(completed(torn, [OLD]) if lock_problem(torn) else torn)
    old, new = entries(OLD), entries(NEW)
    assert all(value in (old[name], new[name]) for name, value in found.items())
    if is_cut_off(torn):
        assert found.keys() == old.keys()


@given(st.integers(0, len(NEW)))
def test_without_an_older_version_what_is_complete_is_kept(length):
    found = entries(completed(NEW[:length], []))
    assert all(found[name] == entries(NEW)[name] for name in found)


@pytest.mark.parametrize("text", [OLD, NEW, OLD.removesuffix("\n") + "\n"])
def test_a_complete_lock_has_no_problem(text):
    assert lock_problem(text) is None
    assert completed(text, [OLD]) == text


def test_a_stage_of_ones_own_without_outputs_is_complete():
    assert lock_problem(f"{OLD}  own:\n    cmd: echo\n") is None


@pytest.mark.parametrize("text", ["", "\n", "\0\0\0\0", HEAD, "schema: '2.0'\n", "sch"])
def test_an_empty_or_barely_begun_lock_is_cut_off(text):
    assert is_cut_off(text)
    assert completed(text, [OLD]) == OLD


def test_git_conflicts_are_named_and_left_alone(tmp_path):
    text = OLD.replace(entry("report", "a"), f"<<<<<<< HEAD\n{entry('report', 'a')}=======\n"
                       f"{entry('report', 'b')}>>>>>>> other\n")  # fmt: skip
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(ConfigError, match="conflict"):
        repair_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == text


def test_an_edit_in_the_middle_is_left_to_dvc(tmp_path):
    text = OLD.replace("size: 4011", "size: [", 1)
    (tmp_path / "dvc.lock").write_text(text)
    assert repair_lock(tmp_path) is None
    assert (tmp_path / "dvc.lock").read_text() == text


def test_the_copy_of_the_last_run_completes_it(tmp_path):
    lock = tmp_path / "dvc.lock"
    lock.write_text(OLD)
    keep_copy(tmp_path)
    lock.write_text("")
    assert "3 entries" in repair_lock(tmp_path)
    assert lock.read_text() == OLD
    assert repair_lock(tmp_path) is None


def test_a_damaged_lock_never_replaces_the_copy(tmp_path):
    lock = tmp_path / "dvc.lock"
    lock.write_text(OLD)
    keep_copy(tmp_path)
    lock.write_text(NEW[:200])
    keep_copy(tmp_path)
    assert copy_path(tmp_path).read_text() == OLD


def test_the_last_commit_completes_it_where_there_is_no_copy(tmp_path):
    lock = tmp_path / "dvc.lock"
    lock.write_text(OLD)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    lock.write_text(NEW[: len(HEAD + entry("prompts", "a") + entry("generate@base", "b")) + 40])
    repair_lock(tmp_path)
    assert lock.read_text() == NEW


def test_with_nothing_to_complete_it_from_an_empty_lock_is_removed(tmp_path):
    (tmp_path / "dvc.lock").write_text("")
    assert "0 entries" in repair_lock(tmp_path)
    assert not (tmp_path / "dvc.lock").exists()


def test_no_lock_is_no_problem(tmp_path):
    assert repair_lock(tmp_path) is None

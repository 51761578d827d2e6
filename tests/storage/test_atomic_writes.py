"""A target has its old content or its whole new one, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toxtrail.storage import atomic_writes


def content(path):
    if path.is_file():
        return path.read_text()
    return {p.name: p.read_text() for p in path.iterdir()} if path.exists() else None


def make(target, kind, text):
    if kind == "file":
        with atomic_writes.file(target) as draft:
            draft.write_text(text)
    else:
        with atomic_writes.folder(target) as draft:
            (draft / "a").write_text(text)


def expected(kind, text):
    return text if kind == "file" else {"a": text}


KINDS = pytest.mark.parametrize("kind", ["file", "folder"])


@KINDS
def test_a_target_is_made_and_replaced_and_nothing_stays_beside_it(kind, tmp_path):
    for text in ("old", "new"):
        make(tmp_path / "target", kind, text)
        assert content(tmp_path / "target") == expected(kind, text)
        assert [p.name for p in tmp_path.iterdir()] == ["target"]


@KINDS
def test_a_block_that_fails_changes_nothing(kind, tmp_path):
    make(tmp_path / "target", kind, "old")
    with pytest.raises(TypeError):
        make(tmp_path / "target", kind, 0)
    assert content(tmp_path / "target") == expected(kind, "old")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_folder_is_never_absent_while_it_is_exchanged(tmp_path, monkeypatch):
    """Where the system exchanges names in one step; elsewhere the old folder comes back."""
    make(tmp_path / "target", "folder", "old")
    monkeypatch.setattr(atomic_writes, "_exchanged", lambda left, right: False)
    make(tmp_path / "target", "folder", "newer")
    assert content(tmp_path / "target") == {"a": "newer"}
    replace = Path.replace

    def fails_for_the_new_one(path, target):
        if Path(target).name == "target" and path.name == "target":
            raise OSError("no")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails_for_the_new_one)
    with pytest.raises(OSError, match="no"):
        make(tmp_path / "target", "folder", "newest")
    assert content(tmp_path / "target") == {"a": "newer"}


@KINDS
def test_a_draft_lies_on_the_file_system_of_its_target(kind, tmp_path):
    """A folder of the experiment may be a link to another disk."""
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    with tempfile.TemporaryDirectory(dir=shared) as elsewhere:
        (tmp_path / "data").symlink_to(elsewhere)
        for text in ("old", "new"):
            make(tmp_path / "data" / "target", kind, text)
            assert content(Path(elsewhere) / "target") == expected(kind, text)


@KINDS
def test_what_a_killed_process_left_is_swept_and_what_a_live_one_makes_is_not(kind, tmp_path):
    code = (
        "import sys, time, pathlib\nfrom toxtrail.storage import atomic_writes\n"
        f"with atomic_writes.{kind}(pathlib.Path(sys.argv[1])):\n"
        "    print(flush=True)\n    time.sleep(60)"
    )
    target = tmp_path / "the-target"
    command = [sys.executable, "-c", code, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (left,) = tmp_path.iterdir()
        make(tmp_path / "target", kind, "another")
        make(target, kind, "meanwhile")
        assert left.exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    make(tmp_path / "target", kind, "another")
    assert left.exists()
    make(target, kind, "done")
    assert not left.exists()
    assert content(target) == expected(kind, "done")

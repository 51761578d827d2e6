"""Hashes: the same as DVC's and hashlib's, of the bytes as they are now."""

from __future__ import annotations

import hashlib
import os

import pytest
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.verify.hash_cache import HashCache, dir_md5, dvc_files, hash_file
from toxtrail.backends.protocols import NoProgress

PART = st.text("abz09_-. \u00e9\u4e2d", min_size=1, max_size=6).filter(lambda t: set(t) - {"."})
NAMES = st.lists(PART, min_size=1, max_size=3).map("/".join)
MD5 = st.binary(max_size=4).map(lambda b: hashlib.md5(b).hexdigest())


@given(files=st.dictionaries(NAMES, MD5, max_size=6))
def test_a_folder_has_the_name_that_dvc_gives_it(files):
    tree = Tree()
    for name, md5 in files.items():
        tree.add(tuple(name.split("/")), Meta(), HashInfo("md5", md5))
    tree.digest()
    assert dir_md5(files) == tree.hash_info.value


@given(content=st.binary(max_size=200))
def test_one_reading_gives_both_hashes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("one") / "f"
    path.write_bytes(content)
    sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    assert hash_file(path) == (sha256, md5, len(content))


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"aaaa")
    before, first = path.stat(), hash_file(path)
    path.write_bytes(b"aaab")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hash_file(path) != first


def test_many_files_are_hashed_once_and_what_is_missing_stays_so(tmp_path):
    for name in ("a/x", "a/b/y", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    digests = HashCache(NoProgress())
    digests.prepare([tmp_path / "a", tmp_path / "z", tmp_path / "none"])
    (tmp_path / "z").write_text("changed later")
    assert digests.of(tmp_path / "z").md5 == hashlib.md5(b"z").hexdigest()
    assert digests.of(tmp_path / "none") is None
    assert digests.folder(tmp_path / "z") is None
    assert (digests.folder(tmp_path / "a").nfiles, digests.folder(tmp_path / "a").size) == (2, 8)


@pytest.mark.parametrize("name", ["__pycache__", ".venv", ".toxtrail"])
def test_what_dvc_ignores_belongs_to_no_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "x").write_text("x")
    assert dvc_files(tmp_path) == []

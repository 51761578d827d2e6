"""A file of the hub's cache is what the hub called it, or it was changed."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.auditing.verify.weights import _verify_hub_names, git_sha1
from toxtrail.backends.protocols import NoProgress
from toxtrail.provenance.identity import sha256_bytes


@pytest.fixture
def snapshot(tmp_path):
    """Two files as huggingface_hub lays them out: links to blobs that are named by content."""
    for name, content, blob in (
        ("model.safetensors", b"weights", sha256_bytes(b"weights")),
        ("config.json", b"{}", git_sha1(b"{}")),
    ):
        (tmp_path / "blobs").mkdir(exist_ok=True)
        (tmp_path / "blobs" / blob).write_bytes(content)
        (tmp_path / name).symlink_to(tmp_path / "blobs" / blob)
    return [tmp_path / "model.safetensors", tmp_path / "config.json"]


def outcome(files):
    evidence = SimpleNamespace(digests=HashCache(NoProgress()))
    return _verify_hub_names(evidence, "scorers", "judge", files)


def test_untouched_files_stand(snapshot):
    assert outcome(snapshot).outcome == "ok"


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_file_is_named(snapshot, number):
    snapshot[number].resolve().write_bytes(b"other")
    check = outcome(snapshot)
    assert check.outcome == "BROKEN"
    assert snapshot[number].name in check.detail


def test_files_that_no_content_names_are_weak(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert outcome([tmp_path / "config.json"]).outcome == "weak"


@given(st.binary(max_size=100))
def test_it_is_the_name_that_git_gives(content):
    done = subprocess.run(
        ["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True
    )
    assert git_sha1(content) == done.stdout.decode().strip()

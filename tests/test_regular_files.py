"""Nothing is opened that may never end, and no recorded name leads out of its folder."""

from __future__ import annotations

import os
import socket

import pytest

from toxtrail.auditing.verify.hash_cache import hash_file
from toxtrail.config.load import load_config
from toxtrail.errors import DataError
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.provenance.identity import sha256_file
from toxtrail.regular_files import (
    irregular,
    leads_out,
    link_target,
    open_regular,
    read_bytes,
    read_text,
    refuse_irregular,
)
from toxtrail.storage.artifacts import ArtifactStore

STORE_READERS = (
    lambda path: ArtifactStore(path.parent).read_draws(path.parent),
    lambda path: ArtifactStore(path.parent).read_summary(path.parent),
    lambda path: ArtifactStore(path.parent).describe_input(path),
)


@pytest.fixture
def pipe(tmp_path):
    """Under each name that a reader asks for."""
    os.mkfifo(tmp_path / "summary.json")
    os.link(tmp_path / "summary.json", tmp_path / "posterior.nc")
    return tmp_path / "summary.json"


@pytest.mark.parametrize(
    "read",
    [
        *(open_regular, read_bytes, read_text, refuse_irregular, sha256_file, hash_file),
        *(read_embedded_manifest, load_config, *STORE_READERS),
    ],
)
def test_a_pipe_in_place_of_a_file_is_named_and_never_waited_for(pipe, read):
    with pytest.raises(DataError, match="a named pipe"):
        read(pipe)


def test_sockets_and_devices_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name has about a hundred characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        assert irregular(tmp_path / "s") == "a socket"
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert irregular(tmp_path / "zero") == "a device"
    with pytest.raises(DataError, match="a device"):
        read_text(tmp_path / "zero")


def test_files_folders_and_what_is_missing_are_left_to_their_readers(tmp_path):
    (tmp_path / "a").write_bytes(b"\r\n\xff")
    assert irregular(tmp_path / "a") is irregular(tmp_path) is irregular(tmp_path / "b") is None
    assert read_bytes(tmp_path / "a") == b"\r\n\xff"
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "b")
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)


def test_a_file_of_nothing_but_holes_is_not_read_into_memory(tmp_path):
    with (tmp_path / "summary.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
        ArtifactStore(tmp_path).read_summary(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", "a/../../x", "..", "//host/x", "a\0b", ""),
        *("C:/x", "C:x", r"..\x", r"a\..\..\x", r"\\host\x", r"\x"),
    ],
)
def test_names_that_lead_out_are_told_from_names_inside(name):
    assert leads_out(name)


@pytest.mark.parametrize("name", ["a", "data/scores/x.parquet", "a..b/..c", ".dvc/x", "ü/é"])
def test_plain_names_lead_nowhere(name):
    assert not leads_out(name)


def test_links_that_dvc_makes_into_its_cache_are_told_from_others(tmp_path):
    kept = tmp_path / "cache/files/md5/ab" / ("c" * 30)
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    (tmp_path / "own").symlink_to(kept)
    (tmp_path / "chain").symlink_to(tmp_path / "own")
    (tmp_path / "other").symlink_to("/etc/passwd")
    assert link_target(tmp_path / "own") is link_target(tmp_path / "chain") is None
    assert link_target(tmp_path / "other") == os.path.realpath("/etc/passwd")
    assert link_target(kept) is link_target(tmp_path / "missing") is None

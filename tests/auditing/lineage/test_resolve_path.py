"""A reference that is a path is found however it is spelled, and never opened if it cannot end."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.lineage.resolve_path import resolve_path
from toxtrail.errors import ConfigError


@given(st.text(max_size=300))
def test_no_text_is_too_odd_to_be_looked_up(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    path = resolve_path(text, [folder])
    assert path is None or path.exists()


def test_the_first_folder_that_has_it_wins_and_windows_spelling_is_understood(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / "two/deep/file").touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    assert resolve_path("deep/file", folders) == tmp_path / "two/deep/file"
    assert resolve_path(r"deep\file", folders) == tmp_path / "two/deep/file"
    assert resolve_path("deep", folders) == tmp_path / "one/deep"
    assert resolve_path("x" * 5000, folders) is None
    assert resolve_path("~nobody-of-this-name/x", folders) is None


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="neither a file"):
        resolve_path("pipe", [tmp_path])

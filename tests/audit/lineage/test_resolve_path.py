"""A reference that is a path is found however it is spelled, and never opened if it cannot end."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.audit.lineage.resolve_path import place_of
from toxtrail.errors import ConfigError


@given(st.text(max_size=300))
def test_no_text_is_too_odd_to_be_looked_up(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    path = place_of(text, [folder])
    assert path is None or path.exists()


def test_the_first_folder_that_has_it_wins_and_windows_spelling_is_understood(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / "two/deep/file").touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    assert place_of("deep/file", folders) == tmp_path / "two/deep/file"
    assert place_of(r"deep\file", folders) == tmp_path / "two/deep/file"
    assert place_of("deep", folders) == tmp_path / "one/deep"
    assert place_of("x" * 5000, folders) is None
    assert place_of("~nobody-of-this-name/x", folders) is None


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        place_of("pipe", [tmp_path])

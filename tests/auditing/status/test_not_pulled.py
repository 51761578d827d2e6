"""Outputs that dvc.lock records and a clone has not pulled."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from toxtrail.auditing.status.not_pulled import not_pulled, pull_advice

LOCK = """schema: '2.0'
stages:
  prompts:
    cmd: toxtrail stage prompts
    outs:
    - path: data/prompts.parquet
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
  model@base:
    cmd: toxtrail stage model base
    outs:
    - path: models/base
      hash: md5
      md5: fedcba9876543210fedcba9876543210.dir
      size: 10
      nfiles: 2
  track@base:
    cmd: toxtrail stage track base
    outs:
    - path: mlruns/receipts/variants/f/base.json
      hash: md5
      md5: 00000000000000000000000000000000
      size: 10
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n", "utf-8")
    (tmp_path / "dvc.lock").write_text(LOCK, "utf-8")
    return tmp_path


def test_a_file_in_the_folder_or_in_the_cache_is_here(clone):
    assert not_pulled(clone) == ["data/prompts.parquet", "models/base"]
    stored = clone / ".dvc/cache/files/md5/fe/dcba9876543210fedcba9876543210.dir"
    stored.parent.mkdir(parents=True)
    stored.touch()
    assert not_pulled(clone) == ["data/prompts.parquet"]
    (clone / "data").mkdir()
    (clone / "data/prompts.parquet").touch()
    assert not_pulled(clone) == []
    assert pull_advice(clone) is None


def test_what_cannot_be_read_is_not_called_missing(clone, monkeypatch):
    real = Path.stat

    def refuse(path, **options):
        if path.name == "base":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert not_pulled(clone) == ["data/prompts.parquet"]


def test_the_advice_names_the_remote(clone):
    assert "dvc remote add" in pull_advice(clone)
    config = clone / ".dvc/config"
    config.write_text("[core]\n    no_scm = true\n    remote = storage\n", "utf-8")
    assert "`dvc pull`" in pull_advice(clone)
    assert "storage" in pull_advice(clone)


@pytest.mark.parametrize("text", [None, "", "stages: [", "<<<<<<< ours\n"])
def test_without_a_readable_lock_nothing_is_missing(clone, text):
    (clone / "dvc.lock").unlink()
    if text is not None:
        (clone / "dvc.lock").write_text(text, "utf-8")
    assert not_pulled(clone) == []

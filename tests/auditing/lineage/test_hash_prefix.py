"""The beginning of a hash finds each recorded content once."""

from __future__ import annotations

import json

from toxtrail.auditing.lineage.hash_prefix import RecordedHash, match_hash_prefix
from toxtrail.auditing.lineage.lock_history import LockVersion
from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.run_files import LocalRunFiles
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import InputFile

SHA = "ab" * 32
MD5 = "cd" * 16
LOCK = f"""schema: '2.0'
stages:
  score@v:
    cmd: toxtrail stage score v
    outs:
    - {{path: data/scores/v.parquet, hash: md5, md5: {MD5}, size: 3}}
"""


def filed(root):
    """A run of the local store, whose database is not there."""
    return LocalRunFiles("1" * 32, RunFiles(root, "1" * 32, "v", None), {})


def folder(root):
    path = filed(root).files.folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_a_hash_is_found_in_manifests_locks_and_runs_with_its_place_in_the_repo(tmp_path):
    source = InputFile(path="data/scores/v.parquet", sha256=SHA, manifest=None)
    manifest = manifest_of("posterior", "v", {}, {"scores": source}, {})
    folder(tmp_path).joinpath("payload.json").write_text(
        json.dumps({"scores.parquet": SHA, "x": "ef" * 32})
    )
    runs = [filed(tmp_path)]
    locks = [LockVersion("", "", "", LOCK), LockVersion("a" * 40, "", "", LOCK)]
    place = "data/scores/v.parquet"
    assert match_hash_prefix(SHA[:8], [manifest], locks, runs, []) == [RecordedHash(SHA, place)]
    assert match_hash_prefix(MD5[:8], [manifest], locks, runs, []) == [RecordedHash(MD5, place)]
    assert match_hash_prefix("ef" * 4, [manifest], locks, runs, []) == [RecordedHash("ef" * 32, "")]
    assert match_hash_prefix("0" * 8, [manifest], locks, runs, []) == []


def test_a_hash_of_an_older_lock_has_no_place_here_and_a_damaged_run_stops_nothing(tmp_path):
    folder(tmp_path).joinpath("payload.json").write_text("[]")
    now = LockVersion("", "", "", LOCK.replace(MD5, "0" * 32))
    locks, runs = [now, LockVersion("a" * 40, "", "", LOCK)], [filed(tmp_path)]
    assert match_hash_prefix(MD5, [], locks, runs, []) == [RecordedHash(MD5, "")]

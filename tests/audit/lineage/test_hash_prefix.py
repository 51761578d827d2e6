"""The beginning of a hash finds each recorded content once."""

from __future__ import annotations

import json

from toxtrail.audit.lineage.hash_prefix import Known, matching
from toxtrail.audit.lineage.lock_history import PastLock
from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.backends.mlflow.run_files import FiledRun
from toxtrail.pipeline import manifest_of
from toxtrail.provenance.identity import Input

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
    return FiledRun("1" * 32, RunFiles(root, "1" * 32, "v", None), {})


def folder(root):
    path = filed(root).files.folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_a_hash_is_found_in_manifests_locks_and_runs_with_its_place_in_the_repo(tmp_path):
    source = Input(path="data/scores/v.parquet", sha256=SHA, manifest=None)
    manifest = manifest_of("posterior", "v", {}, {"scores": source}, {})
    folder(tmp_path).joinpath("payload.json").write_text(
        json.dumps({"scores.parquet": SHA, "x": "ef" * 32})
    )
    runs = [filed(tmp_path)]
    locks = [PastLock("", "", "", LOCK), PastLock("a" * 40, "", "", LOCK)]
    place = "data/scores/v.parquet"
    assert matching(SHA[:8], [manifest], locks, runs, []) == [Known(SHA, place)]
    assert matching(MD5[:8], [manifest], locks, runs, []) == [Known(MD5, place)]
    assert matching("ef" * 4, [manifest], locks, runs, []) == [Known("ef" * 32, "")]
    assert matching("0" * 8, [manifest], locks, runs, []) == []


def test_a_hash_of_an_older_lock_has_no_place_here_and_a_damaged_run_stops_nothing(tmp_path):
    folder(tmp_path).joinpath("payload.json").write_text("[]")
    now = PastLock("", "", "", LOCK.replace(MD5, "0" * 32))
    locks, runs = [now, PastLock("a" * 40, "", "", LOCK)], [filed(tmp_path)]
    assert matching(MD5, [], locks, runs, []) == [Known(MD5, "")]

"""Which runs of a store represent the files here."""

from __future__ import annotations

import json

from toxtrail.auditing.verify.mlflow_runs import _current_runs
from toxtrail.backends.mlflow.read_store import StoredRun
from toxtrail.backends.mlflow.write_run import KEY_TAG, SCHEMA_TAG, SCHEMA_VERSION, SEAL_TAG
from toxtrail.backends.protocols import RunContent, TrackedRun
from toxtrail.provenance.identity import sha256_text

CONTENT = RunContent(
    name="base",
    content_key="a" * 64,
    manifest=json.dumps({}),
    description="",
    tags={},
    params={},
    metrics={},
    files={},
)


def stored(run_id, status):
    """A sealed run of this content."""
    tags = {
        KEY_TAG: CONTENT.content_key,
        SEAL_TAG: sha256_text(CONTENT.manifest),
        SCHEMA_TAG: SCHEMA_VERSION,
    }
    run = TrackedRun(run_id, "base", status, 0, tags, {}, {})
    return StoredRun(run, False, None, "", (), (None, None), None, (), None)


def ids(*runs):
    return [run.run.run_id for run in _current_runs(list(runs), CONTENT)]


def test_a_run_whose_publisher_was_stopped_does_not_count_beside_a_finished_one():
    assert ids(stored("1", "RUNNING"), stored("2", "FINISHED")) == ["2"]
    assert ids(stored("1", "RUNNING")) == ["1"]
    assert ids(stored("1", "FINISHED"), stored("2", "FINISHED")) == ["1", "2"]

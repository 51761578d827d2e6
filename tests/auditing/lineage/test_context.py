"""What could not be searched is said, once it was to be searched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from toxtrail.auditing.lineage import context
from toxtrail.auditing.lineage.context import AuditContext
from toxtrail.errors import BackendError


@pytest.fixture
def scene(tmp_path):
    config = SimpleNamespace(tracking=SimpleNamespace(experiment="e", project="lab-0000abcd"))
    return AuditContext(tmp_path, SimpleNamespace(root=tmp_path), config)


def test_a_server_that_does_not_respond_is_named(scene, monkeypatch):
    def fail(*_):
        raise BackendError("no response")

    monkeypatch.setattr(context, "tracked_runs", fail)
    assert scene.mlflow_error is None
    assert scene.runs == []
    assert scene.mlflow_error == "no response"


def test_a_run_that_could_not_be_read_is_named(scene, monkeypatch):
    run = SimpleNamespace(
        name="v",
        run_id="0123456789",
        project="lab-0000abcd",
        unread="no permission",
        files=SimpleNamespace(folder=Path()),
    )
    monkeypatch.setattr(context, "tracked_runs", lambda *_: [run])
    assert scene.unsearched() == []
    assert scene.runs == [run]
    assert scene.unsearched() == ["v (01234567): no permission"]

"""`toxtrail ui` starts MLflow's server without processes that toxtrail does not use."""

from __future__ import annotations

import pytest

from toxtrail.backends.mlflow import ui


@pytest.mark.parametrize(("own", "expected"), [(None, "false"), ("true", "true")])
def test_job_processes_are_started_only_if_the_user_wants_them(
    tmp_path, monkeypatch, own, expected
):
    name, given = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", []
    monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(name, own)
    monkeypatch.setattr(ui, "run_foreground", lambda command, root, env: given.append(env) or 0)
    assert ui.serve_ui(tmp_path, "127.0.0.1", 0) == 0
    assert [env[name] for env in given] == [expected]

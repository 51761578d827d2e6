"""The gate on a finished experiment: exit codes, files, MLflow tags and registry."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import Lab
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

pytestmark = pytest.mark.slow


@pytest.fixture
def gate(breakable):
    """Runs the gate with these rules and options; returns the process."""

    def run(rules, *options, code, lab=breakable, **policy):
        content = {"against": "parent", "scorers": "primary", **policy, "rules": rules}
        (breakable.root / "gate.yaml").write_text(yaml.safe_dump(content), "utf-8")
        path = str(breakable.root / "gate.yaml")
        return lab.toxtrail("gate", "--policy", path, *options, code=code)

    return run


def test_the_exit_code_is_the_decision_and_every_form_states_it(breakable, gate, tmp_path):
    (family,) = breakable.json("compare")
    (pair,) = [row for row in family["pairs"] if row["subset"] == "all"]
    passed = json.loads(gate({"max_increase_pp": 100.0}, "--json", code=0).stdout)
    (row,) = passed["rows"]
    names = ("a", "b", "n", "diff", "simultaneous_lo", "simultaneous_hi")
    shown = (row["a"], row["b"], row["n"], row["diff"], row["lo"], row["hi"])
    assert shown == tuple(pair[name] for name in names)
    assert (passed["decision"], passed["comparisons"]) == ("pass", 1)
    limit = 50 * (max(pair["simultaneous_lo"], 0) + pair["simultaneous_hi"])
    gate({"max_increase_pp": limit}, "--junit", str(tmp_path / "gate.xml"), code=5)
    assert 'errors="1"' in (tmp_path / "gate.xml").read_text("utf-8")
    comment = gate({"max_increase_pp": limit}, "--md", code=5).stdout
    assert "not decided" in comment.splitlines()[0]
    subsets = gate({"max_increase_pp": 100.0, "max_subset_increase_pp": 100.0}, "--json", code=0)
    rows = json.loads(subsets.stdout)["rows"]
    assert len(rows) == len({row["subset"] for row in family["pairs"]})
    assert rows[0]["hi"] > row["hi"]
    breakable.toxtrail("gate")


def test_the_decision_is_recorded_and_a_variant_that_passes_is_registered(breakable, gate):
    target = ("--register", "chat@production")
    gate({"max_increase_pp": 0.0}, *target, code=5)
    query = ("runs", "--filter", "tags.gate = 'not decided'")
    assert [run["name"] for run in breakable.json(*query)] == ["tiny comparison"]
    store = {**breakable.env, "MLFLOW_TRACKING_URI": f"sqlite:///{breakable.root}/mlruns/mlflow.db"}
    assert _alias(store, "chat", "production") is None
    for _ in range(2):
        gate({"max_increase_pp": 100.0}, *target, code=0)
    (tuned,) = [run for run in breakable.json("runs") if run["name"] == "tuned"]
    assert _alias(store, "chat", "production") == (1, tuned["run_id"])
    breakable.toxtrail("verify")
    (run,) = breakable.json(*query[:2], "tags.gate = 'pass'")
    client = MlflowClient(store["MLFLOW_TRACKING_URI"])
    client.set_tag(run["run_id"], "gate", "fail")
    breakable.toxtrail("verify", code=3)
    client.set_tag(run["run_id"], "gate", "pass")
    client.set_tag(run["run_id"], "gate.policy", "{}")
    breakable.toxtrail("verify", code=3)


def test_a_team_without_the_files_gets_the_same_decision(breakable, gate, tmp_path):
    store = f"sqlite:///{breakable.root}/mlruns/mlflow.db"
    env = {**breakable.env, "MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "toxtrail"}
    here = gate({"max_increase_pp": 100.0}, "--json", code=0).stdout
    there = gate({"max_increase_pp": 100.0}, "--json", code=0, lab=Lab(tmp_path, env)).stdout
    assert json.loads(there) == json.loads(here)


def test_what_cannot_be_gated_is_an_error(breakable, gate):
    gate({"max_increase": 1.0}, code=1)
    gate({"max_increase_pp": 1.0}, code=1, variants=["tune"])
    gate({"max_increase_pp": 1.0}, "--register", "chat", code=2)
    breakable.edit(posterior={"level": 0.9})
    gate({"max_increase_pp": 100.0}, code=1)


def _alias(env, model, alias):
    """(version, run id) of an alias; None if it does not exist."""
    client = MlflowClient(env["MLFLOW_TRACKING_URI"], env["MLFLOW_TRACKING_URI"])
    try:
        version = client.get_model_version_by_alias(model, alias)
    except MlflowException:
        return None
    return int(version.version), version.run_id

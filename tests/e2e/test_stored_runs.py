"""Audit, verification, export and report of MLflow runs from a folder without an experiment."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Lab
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toxtrail.auditing.bundle.bundle import open_bundle, read_listing, verify_bundle
from toxtrail.auditing.verify.load_runs import LoadedRun, without_damaged_duplicates
from toxtrail.auditing.verify.report_of_run import report_of_run
from toxtrail.auditing.verify.stored_runs import RunVerifier, audit_run, refuse_failed
from toxtrail.backends.mlflow.tracker import MlflowTracker
from toxtrail.backends.protocols import NoProgress
from toxtrail.errors import DataError
from toxtrail.provenance.identity import canonical_json, sha256_file, sha256_text
from toxtrail.records.run_tags import (
    COMPARISONS_TAG,
    DECISION_TAG,
    KEY_TAG,
    PAYLOAD_TAG,
    POLICY_HASH_TAG,
    POLICY_TAG,
    SEAL_TAG,
    VERDICT_TAG,
)

pytestmark = pytest.mark.slow


def address(root):
    return f"sqlite:///{root}/mlruns/mlflow.db"


def no_experiment(lab, folder):
    variables = {"MLFLOW_TRACKING_URI": address(lab.root), "MLFLOW_EXPERIMENT_NAME": "toxtrail"}
    return Lab(folder, {**lab.env, **variables})


@pytest.fixture
def elsewhere(finished, tmp_path):
    """An empty folder that knows where the store is."""
    return no_experiment(finished, tmp_path)


@pytest.fixture(scope="module")
def stored(finished, tmp_path_factory):
    """Name -> run, as read from the store."""
    variables = {"MLFLOW_TRACKING_URI": address(finished.root), "DVC_ROOT": None}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value) if value else patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("reader")
        patch.chdir(folder)
        return {run.run.name: run for run in MlflowTracker(folder, "toxtrail", None).read()}


def broken(checks):
    return [f"{c.link}: {c.name}: {c.detail}" for c in checks if c.outcome == "BROKEN"]


def loaded(runs, name):
    run = runs[name]
    others = tuple(other for other in runs.values() if other is not run)
    return LoadedRun(run, others, RunVerifier([run, *others], NoProgress()))


def copied(run, folder):
    shutil.copytree(run.files, folder / run.run.run_id)
    return run._replace(files=folder / run.run.run_id)


def nothing_is_shown(runs, name, located):
    """The audit of the run names the change and shows no lineage, and no export or report of it is
    made."""
    subject = loaded(runs, name)
    link, checks = audit_run(subject.verifier, subject.run)
    assert link.standing == "MISMATCH"
    assert link.made_from == ()
    assert link.facts == ()
    assert any(located in text for text in broken(checks)), broken(checks)
    with pytest.raises(DataError):
        refuse_failed(checks, "The run was not exported")
    with pytest.raises(DataError):
        report_of_run(loaded(runs, "tiny comparison"))


# --- what works ---------------------------------------------------------------------------------


def test_a_variant_is_traced_and_its_numbers_are_computed_again(finished, elsewhere):
    found, local = elsewhere.json("audit", "tuned"), finished.json("audit", "tuned")
    (score,) = found["made_from"]
    (own,) = local["made_from"]
    assert (score["sha256"], score["standing"]) == (own["sha256"], "matches")
    checks = {(c["link"], c["outcome"]) for c in found["checks"]}
    assert {("posteriors", "ok"), ("scores", "ok"), ("MLflow files", "ok")} <= checks
    absent = {c["link"] for c in found["checks"] if c["outcome"] == "absent"}
    assert absent == {
        "prompt set", "weights", "training data", "adapters", "scorers", "git",
    }  # fmt: skip
    assert {outcome for _, outcome in checks} == {"ok", "absent"}
    assert list(elsewhere.root.iterdir()) == []


def test_nothing_absent_is_called_verified(finished, elsewhere):
    checks = elsewhere.json("audit", "tiny")["checks"]
    weights = [c for c in checks if c["link"] in ("weights", "training data", "scorers", "git")]
    assert {c["outcome"] for c in weights} == {"absent"}
    (code,) = [c for c in weights if c["link"] == "git"]
    assert finished.git("rev-parse", "HEAD~1")[:12] in code["detail"]
    elsewhere.toxtrail("audit", "tiny", "--require-all", code=3)


def test_every_run_of_the_store_is_verified(elsewhere):
    checks = elsewhere.json("verify")["checks"]
    assert {c["outcome"] for c in checks} == {"ok", "absent"}
    numbers = [c["name"] for c in checks if "numbers of" in c["name"]]
    assert {name.rsplit(" ", 1)[1] for name in numbers} == {"base", "tuned", "tiny"}
    one = elsewhere.json("verify", "base")["checks"]
    assert all("run base" in c["name"] for c in one if c["outcome"] == "ok")
    elsewhere.toxtrail("verify", "--require-all", code=3)
    elsewhere.toxtrail("verify", "nobody", code=1)


def test_the_report_is_that_of_the_experiment(finished, elsewhere):
    elsewhere.toxtrail("report", "tiny", "--to", "report.html")
    expected = (finished.root / "report/index.html").read_bytes()
    assert (elsewhere.root / "report.html").read_bytes() == expected
    elsewhere.toxtrail("report", "tiny", "--to", "report.html", code=1)
    elsewhere.toxtrail("report", "tuned", "--to", "other.html", code=1)
    elsewhere.toxtrail("report", "tiny", code=2)
    assert [path.name for path in elsewhere.root.iterdir()] == ["report.html"]


@pytest.mark.parametrize(("name", "runs"), [("tiny", 3), ("tuned", 2)])
def test_a_bundle_of_a_run_is_verified_without_the_store(finished, elsewhere, name, runs):
    elsewhere.toxtrail("export", name, "--to", "run.zip")
    alone = Lab(elsewhere.root, finished.env)
    found = alone.json("audit", "run.zip", "--verify")
    assert {c["outcome"] for c in found["checks"]} == {"ok", "absent", "weak"}
    assert any(c["link"] == "posteriors" and c["outcome"] == "ok" for c in found["checks"])
    with open_bundle(elsewhere.root / "run.zip") as root:
        listing = read_listing(root)
    assert len(listing["runs"]) == runs
    assert {"weights", "git"} <= {part["link"] for part in listing["absent"]}


def test_what_a_run_cannot_do_is_an_error(elsewhere):
    elsewhere.toxtrail("audit", "tuned", "--reproduce", "1", code=1)
    elsewhere.toxtrail("export", "tuned", "--ro-crate", "--to", "x.zip", code=1)
    for arguments in (("audit", "nobody"), ("report", "nobody", "--to", "x.html")):
        assert "Traceback" not in elsewhere.toxtrail(*arguments, code=1).stderr
    assert list(elsewhere.root.iterdir()) == []


# --- tampering ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_flipped_bit_of_any_file_of_a_run_is_named_and_nothing_is_shown(stored, data):
    name = data.draw(st.sampled_from(sorted(stored)))
    with tempfile.TemporaryDirectory() as folder:
        run = copied(stored[name], Path(folder))
        files = sorted(p for p in run.files.rglob("*") if p.is_file())
        path = data.draw(st.sampled_from(files))
        flip(path, data.draw(st.integers(0, 8 * path.stat().st_size - 1)))
        located = path.relative_to(run.files).as_posix()
        nothing_is_shown({**stored, name: run}, name, located)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("toxtrail.seal", "tuned"),
        ("toxtrail.files", "tuned"),
        ("toxtrail.key", "tuned"),
        ("family", "tuned"),
        ("mlflow.source.git.commit", "tiny comparison"),
    ],
)
def test_a_changed_tag_is_named(stored, tag, name):
    run = stored[name]
    tags = {**run.run.tags, tag: "0" * 64}
    runs = {**stored, name: run._replace(run=run.run._replace(tags=tags))}
    subject = loaded(runs, name)
    link, checks = audit_run(subject.verifier, subject.run)
    assert (link.standing, link.facts) == ("MISMATCH", ())
    assert broken(checks)


def test_a_changed_metric_name_time_or_parameter_is_named(stored):
    run = stored["tuned"]
    metric = next(iter(run.run.metrics))
    changes = {
        "metric": run._replace(run=run.run._replace(metrics={**run.run.metrics, metric: 7.5})),
        "renamed": run._replace(run=run.run._replace(name="benign")),
        "param": run._replace(run=run.run._replace(params={**run.run.params, "primary": "x"})),
        "time": run._replace(times=(1, 2)),
    }
    for located, changed in changes.items():
        subject = loaded({**stored, "tuned": changed}, "tuned")
        link, checks = audit_run(subject.verifier, subject.run)
        assert link.made_from == ()
        assert any(located in text for text in broken(checks)), (located, broken(checks))


def test_a_changed_verdict_is_named(stored):
    run = stored["tuned"]
    tags = {**run.run.tags, VERDICT_TAG: "less toxic"}
    subject = loaded({**stored, "tuned": run._replace(run=run.run._replace(tags=tags))}, "tuned")
    (text,) = broken(audit_run(subject.verifier, subject.run).checks)
    assert "verdict" in text


def test_a_changed_difference_of_a_logged_model_is_named(stored):
    run = stored["tuned"]
    (model,) = run.models
    others = [row for row in model.metrics if row[2] != run.run.run_id]
    assert others
    for name, value, run_id in (others[0], model.metrics[0]):
        rows = [row for row in model.metrics if row != (name, value, run_id)]
        changed = model._replace(metrics=(*rows, (name, value + 1, run_id)))
        subject = loaded({**stored, "tuned": run._replace(models=(changed,))}, "tuned")
        assert broken(audit_run(subject.verifier, subject.run).checks)


def test_a_changed_decision_of_a_gate_is_named(stored):
    run = stored["tiny comparison"]
    policy = {"against": "parent", "rules": {"max_increase_pp": 100.0}, "scorers": "primary"}
    tags = {
        DECISION_TAG: "fail",
        POLICY_TAG: canonical_json(policy),
        POLICY_HASH_TAG: sha256_text(canonical_json(policy)),
        COMPARISONS_TAG: run.run.tags[KEY_TAG][:16],
    }
    for decision, problems in (("fail", 1), ("pass", 0)):
        gated = {**run.run.tags, **tags, DECISION_TAG: decision}
        runs = {**stored, run.run.name: run._replace(run=run.run._replace(tags=gated))}
        subject = loaded(runs, run.run.name)
        assert len(broken(audit_run(subject.verifier, subject.run).checks)) == problems


def relisted(run):
    """The run with a payload.json and tag of its present files."""
    files = {
        p.relative_to(run.files).as_posix(): sha256_file(p)
        for p in sorted(run.files.rglob("*"))
        if p.is_file() and p.name != "payload.json"
    }
    (run.files / "payload.json").write_text(json.dumps(files, sort_keys=True), "utf-8")
    digest = sha256_text(json.dumps(files, sort_keys=True))
    tags = {**run.run.tags, PAYLOAD_TAG: digest}
    return run._replace(run=run.run._replace(tags=tags))


def resealed(run):
    """The run with a manifest, list and tags of its present files."""
    path = run.files / "manifest.json"
    statement = json.loads(path.read_text("utf-8"))
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256_file(run.files / subject["name"])
    path.write_text(json.dumps(statement), "utf-8")
    tags = {**run.run.tags, SEAL_TAG: sha256_file(path)}
    return relisted(run._replace(run=run.run._replace(tags=tags)))


def lower_the_rate(run):
    path = run.files / "posterior/summary.json"
    summary = json.loads(path.read_text("utf-8"))
    summary["rates"][0]["rate"] /= 2
    path.write_text(json.dumps(summary), "utf-8")


def test_a_changed_file_with_a_new_list_is_named_by_the_manifest(stored, tmp_path):
    run = copied(stored["tuned"], tmp_path)
    lower_the_rate(run)
    nothing_is_shown({**stored, "tuned": relisted(run)}, "tuned", "posterior/summary.json")


def test_a_changed_number_with_a_new_seal_is_named_by_the_rows(stored, tmp_path):
    run = copied(stored["tuned"], tmp_path)
    lower_the_rate(run)
    subject = loaded({**stored, "tuned": resealed(run)}, "tuned")
    found = broken(audit_run(subject.verifier, subject.run).checks)
    assert any("posteriors" in text and "numbers of tuned" in text for text in found)


def test_a_changed_metric_with_a_new_record_is_named_by_the_summary(stored, tmp_path):
    run = copied(stored["tuned"], tmp_path)
    metric = "judge/all/rate_pct"
    record = json.loads((run.files / "record.json").read_text("utf-8"))
    record["metrics"][metric] = 1.0
    (run.files / "record.json").write_text(json.dumps(record), "utf-8")
    points = [point._replace(value=1.0) for point in run.history[metric]]
    changed = run._replace(
        run=run.run._replace(metrics={**run.run.metrics, metric: 1.0}),
        history={**run.history, metric: points},
    )
    subject = loaded({**stored, "tuned": relisted(changed)}, "tuned")
    found = broken(audit_run(subject.verifier, subject.run).checks)
    assert len(found) == 1
    assert metric in found[0]


def test_a_comparison_without_the_runs_of_its_variants_is_not_called_complete(stored):
    (run,) = [run for name, run in stored.items() if name == "tiny comparison"]
    verifier = RunVerifier([run], NoProgress())
    checks = audit_run(verifier, run).checks
    assert not broken(checks)
    absent = [c.name for c in checks if c.outcome == "absent"]
    assert any("rows of base" in name for name in absent)
    assert any("numbers of tiny" in name for name in absent)
    with pytest.raises(DataError, match="rows of base"):
        report_of_run(LoadedRun(run, (), verifier))


def test_a_changed_run_is_not_used_if_another_has_the_content(stored, tmp_path):
    run, path = stored["tuned"], "scores.parquet"
    changed = copied(run, tmp_path)
    changed = changed._replace(run=run.run._replace(run_id="0" * 32))
    flip(changed.files / path, 99)
    for runs, kept in (([changed, run], [run]), ([changed], [changed]), ([run], [run])):
        assert without_damaged_duplicates(runs, RunVerifier(runs, NoProgress())) == kept


def test_a_changed_bundle_is_named(finished, elsewhere, tmp_path):
    elsewhere.toxtrail("export", "tuned", "--to", "run")
    root = tmp_path / "run"
    scores = next(root.rglob("scores.parquet"))
    kept = scores.read_bytes()
    flip(scores, 1000)
    assert any("scores.parquet" in text for text in broken(verify_bundle(root, NoProgress(), ())))
    Lab(tmp_path, finished.env).toxtrail("audit", "run", code=3)
    scores.write_bytes(kept)
    listing = root / "bundle.json"
    value = json.loads(listing.read_text("utf-8"))
    for run in value["runs"]:
        run["run"]["metrics"] = dict.fromkeys(run["run"]["metrics"], 1.0)
    listing.write_text(json.dumps(value), "utf-8")
    assert broken(verify_bundle(root, NoProgress(), ()))


def test_each_command_refuses_or_names_a_change_in_the_store(breakable, tmp_path):
    (tmp_path / "empty").mkdir()
    lab = no_experiment(breakable, tmp_path / "empty")
    with closing(sqlite3.connect(breakable.root / "mlruns/mlflow.db")) as db:
        query = "SELECT run_uuid FROM runs WHERE name = 'tuned'"
        ((run_id,),) = db.execute(query).fetchall()
    path = breakable.root / "mlruns/artifacts" / run_id / "artifacts/posterior/summary.json"
    path.chmod(0o644)
    path.write_text(path.read_text("utf-8").replace("0.", "1.", 1), "utf-8")
    found = json.loads(lab.toxtrail("audit", "tuned", "--json", code=3).stdout)
    assert (found["standing"], found["made_from"]) == ("MISMATCH", [])
    assert "posterior/summary.json" in lab.toxtrail("verify", code=3).stdout
    for command, target in (("export", "x.zip"), ("report", "x.html")):
        name = "tuned" if command == "export" else "tiny"
        done = lab.toxtrail(command, name, "--to", target, code=1)
        assert "posterior/summary.json" in done.stderr
        assert "Traceback" not in done.stderr
    assert list(lab.root.iterdir()) == []

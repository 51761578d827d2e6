"""Experiments of another version of toxtrail: a message with that version and the cure."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from toxtrail import __version__
from toxtrail.auditing.status import outdated_stages
from toxtrail.cli import cli
from toxtrail.config.yaml_text import parse_yaml
from toxtrail.preflight import machine
from toxtrail.scaffold import new_files, stages_with_other_code, write_experiment
from toxtrail.storage.artifacts import ArtifactStore

READING = (
    ["check"], ["status"], ["run"], ["compare"], ["verify"], ["audit", "tuned"],
    ["audit", "tiny/tuned/all/diff"], ["gate"], ["runs"], ["ui"], ["flips", "base", "tuned"],
    ["variants"], ["diff", "base", "tuned"], ["plan"], ["export", "tiny", "--to", "tiny.zip"],
    ["card", "tuned"],
)  # fmt: skip


def run(root, *arguments, code):
    done = CliRunner().invoke(cli, ["-C", str(root), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def older(tmp_path, project):
    """Files of an experiment that toxtrail 0.1.0 made: settings, a model card, scores, summaries
    without their lists."""
    root = tmp_path / "older"
    shutil.copytree(project / "tests/fixtures/experiment_0_1", root)
    (root / "dvc_yaml").rename(root / "dvc.yaml")
    return root


@pytest.fixture
def newer(tmp_path):
    root = tmp_path / "newer"
    write_experiment(root, new_files("newer", "demo", git=False))
    text = (root / "dvc.yaml").read_text("utf-8")
    (root / "dvc.yaml").write_text(text.replace(__version__, "99.1.0"), "utf-8")
    return root


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_on_an_older_experiment_names_both_versions_and_each_setting(older, command):
    before = content(older)
    output = run(older, *command, code=1)
    assert ("toxtrail 0.1.0" in output, f"toxtrail {__version__}" in output) == (True, True)
    assert "toxtrail upgrade" in output
    for setting in ("posterior.threshold", "scoring.max_error_share", "runtime.score_batch"):
        assert f"  {setting}: " in output
    assert content(older) == before


@pytest.mark.parametrize("command", [*READING, ["upgrade"]], ids=" ".join)
def test_a_newer_experiment_is_refused_and_kept(newer, command):
    before = content(newer)
    output = run(newer, *command, code=1)
    assert "99.1.0" in output
    assert __version__ in output
    assert content(newer) == before


def test_doctor_has_the_version_of_the_experiment(older, newer, monkeypatch):
    monkeypatch.setattr(machine, "_device", lambda: machine.Finding(True, "device", "", ""))
    for root, version, state in ((older, "0.1.0", True), (newer, "99.1.0", False)):
        done = CliRunner().invoke(cli, ["-C", str(root), "doctor", "--json"])
        rows = json.loads(done.stdout)
        (row,) = [row for row in rows if row["what"] == "toxtrail"]
        assert (row["ok"], version in row["found"]) == (state, True)
        assert row["cure"]


def correct(root):
    """The settings of 0.1.0 as this version wants them."""
    path = root / "params.yaml"
    text = path.read_text("utf-8").replace("  threshold: 0.5", "  threshold: {judge: 0.5}")
    text = text.replace("  primary: judge", "  primary: judge\n  max_error_share: 0.02")
    path.write_text(text.replace("  score_batch:", "  score_batch_size:"), "utf-8")


def test_upgrade_lists_the_settings_to_correct_and_changes_none(older):
    before = (older / "params.yaml").read_text("utf-8")
    output = run(older, "upgrade", code=0)
    for setting in ("posterior.threshold", "scoring.max_error_share", "runtime.score_batch"):
        assert f"  {setting}: " in output
    after = (older / "params.yaml").read_text("utf-8")
    values = parse_yaml(after)
    project = values["tracking"].pop("project")
    assert values == parse_yaml(before)
    assert project in after
    assert stages_with_other_code(older) == []
    correct(older)
    assert json.loads(run(older, "upgrade", "--json", code=0))["params"] is None


def test_results_of_the_older_version_are_refused_not_misread(older):
    run(older, "upgrade", code=0)
    correct(older)
    for command in (["compare"], ["card", "tuned"], ["gate"], ["flips", "base", "tuned"]):
        output = run(older, *command, code=1)
        assert "another version of toxtrail" in output or "does not exist" in output
    output = run(older, "audit", "tiny/tuned/all/diff", code=3)
    assert "another version of toxtrail" in output
    assert "MISMATCH" not in output


def test_rows_and_model_cards_of_the_first_version_are_still_read(older):
    store = ArtifactStore(older)
    assert {row.state for row in store.read_scores("tiny", "base")} == {"ok"}
    assert store.read_card("base").key == "base"


@pytest.mark.parametrize("other_code", [True, False])
def test_stages_with_other_code_are_not_called_up_to_date(older, monkeypatch, other_code):
    run(older, "upgrade", code=0)
    correct(older)
    monkeypatch.setattr(outdated_stages, "staleness", lambda _: outdated_stages.Staleness({}, []))
    if other_code:
        (older / "code/score.sha256").write_text("of another version\n", "utf-8")
    output = run(older, "status", code=0)
    assert ("for: score" in output, "up to date" in output) == (other_code, not other_code)

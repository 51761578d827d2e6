"""New experiments, apart from toxtrail's own source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pydantic import TypeAdapter

from toxtrail import scaffold
from toxtrail.backends import git
from toxtrail.cli import cli
from toxtrail.config.sections import ProjectId
from toxtrail.config.yaml_text import parse_yaml
from toxtrail.errors import ConfigError
from toxtrail.pipeline import PIPELINE, SOURCE, code_hash_file
from toxtrail.scaffold import (
    PRESETS,
    new_files,
    new_project_id,
    outdated_files,
    preset_path,
    stages_with_other_code,
    versioned_files,
    write_experiment,
)

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, code=0):
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def experiment(tmp_path):
    write_experiment(tmp_path / "mine", new_files("mine", "demo", git=False))
    return tmp_path / "mine"


def test_its_dvc_yaml_is_toxtrails_own_but_for_the_code():
    own = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    made = yaml.safe_load(versioned_files()["dvc.yaml"])["stages"]
    assert list(made) == list(own)
    for stage in PIPELINE:
        body = own[stage.name].get("do", own[stage.name])
        kept = [dep for dep in body["deps"] if not dep.startswith("src/toxtrail/")]
        body["deps"] = [*kept, f"code/{stage.name}.sha256"]
    assert made == own


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["mine", "a: b # c", 'q"uo\\te', "übung {x}", "12"])
def test_its_mlflow_experiment_has_its_name(preset, name):
    own = parse_yaml(preset_path(preset).read_text("utf-8"))
    made = parse_yaml(new_files(name, preset, git=True)["params.yaml"].decode())
    assert made == {
        **own, "tracking": {"experiment": name, "project": made["tracking"]["project"]}
    }  # fmt: skip
    other = parse_yaml(new_files(name, preset, True, "team")["params.yaml"].decode())
    assert other["tracking"]["experiment"] == "team"


@pytest.mark.parametrize("name", ["mine", "Übung 1", "--", "x" * 300, "a" * 39 + " b", ""])
def test_a_project_gets_a_valid_id_that_no_other_has(name):
    ids = {new_project_id(name) for _ in range(20)}
    assert len(ids) == 20
    for project in ids:
        assert TypeAdapter(ProjectId).validate_python(project) == project


def test_every_experiment_is_a_project_of_its_own():
    def project(text):
        return parse_yaml(text)["tracking"]["project"]

    fixed = {project(preset_path(preset).read_text("utf-8")) for preset in PRESETS}
    made = {
        project(new_files("mine", preset, git=True)["params.yaml"].decode())
        for preset in (*PRESETS, *PRESETS)
    }
    assert len(fixed | made) == 3 * len(PRESETS)


def test_upgrade_adds_a_missing_id_and_changes_nothing_else(experiment):
    path = experiment / "params.yaml"
    before = path.read_text("utf-8")
    (line,) = [text for text in before.splitlines(keepends=True) if "  project: " in text]
    path.write_text(before.replace(line, ""), "utf-8")
    assert "toxtrail upgrade" in run("-C", experiment, "compare", code=1)
    run("-C", experiment, "upgrade", "--dry-run")
    assert path.read_text("utf-8") == before.replace(line, "")
    assert "params.yaml" in run("-C", experiment, "upgrade")
    after = path.read_text("utf-8")
    assert before.replace(line, "") == "".join(
        text for text in after.splitlines(keepends=True) if "  project: " not in text
    )
    assert parse_yaml(after)["tracking"]["project"] not in line
    assert "up to date" in run("-C", experiment, "upgrade")


def test_nothing_of_it_names_the_source_of_toxtrail():
    for name, content in new_files("mine", "paper", git=True).items():
        assert b"src/toxtrail" not in content, name


def test_git_keeps_its_execution_records(experiment):
    git.init(experiment)
    for name in ("data/records/score/v/1.json", "data/scores/f/v.parquet"):
        (experiment / name).parent.mkdir(parents=True)
        (experiment / name).write_text("{}")
    assert git.uncommitted(experiment, "data/records") == ["data/records/score/v/1.json"]
    assert git.uncommitted(experiment, "data/scores") == []


def test_a_list_of_code_is_one_that_sha256sum_checks(experiment):
    listed = (experiment / "code/generate.sha256").read_text("utf-8").splitlines()
    assert any(
        line.endswith("  backends/huggingface/generation/packed_forward.py") for line in listed
    )
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", experiment / "code/generate.sha256"],
        cwd=SOURCE,
        check=False,
    )
    assert done.returncode == 0


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    output = run("init", tmp_path, "--no-git", code=1)
    assert "(notes.txt)" in output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_its_place_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("a file")
    assert "is a file" in run("init", tmp_path / "mine", "--no-git", code=1)


def test_a_fresh_clone_may_become_an_experiment(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert "nothing was committed" in run("init", tmp_path)
    assert (tmp_path / "params.yaml").is_file()
    assert "no_scm" not in (tmp_path / ".dvc/config").read_text("utf-8")


@pytest.mark.parametrize("stop_after", [0, 3, 20])
def test_a_new_experiment_is_whole_or_not_there(tmp_path, monkeypatch, stop_after):
    moved = []
    original = Path.replace

    def failing(self, target):
        if len(moved) == stop_after:
            raise OSError("no space left on device")
        moved.append(target)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="no space"):
        write_experiment(tmp_path / "deep" / "mine", new_files("mine", "demo", git=True))
    assert list(tmp_path.iterdir()) == []


def test_without_git_dvc_is_told_so(tmp_path):
    run("init", tmp_path / "mine", "--no-git")
    assert "no_scm = true" in (tmp_path / "mine/.dvc/config").read_text("utf-8")
    assert not (tmp_path / "mine/.git").exists()


@pytest.mark.parametrize("preset", sorted({*scaffold.PRESETS} - {"empty"}))
def test_every_preset_passes_check(tmp_path, preset):
    output = run("init", tmp_path / "mine", "--preset", preset, "--no-git")
    assert f"preset {preset}" in output
    assert "match their pins" in run("-C", tmp_path / "mine", "check")


def test_an_experiment_without_variants_says_which_command_adds_one(tmp_path):
    folder = tmp_path / "mine"
    assert "0 variants" in run("init", folder, "--preset", "empty", "--no-git")
    for command in ("check", "plan", "status", "run", "compare", "variants"):
        assert "variants add ADDRESS --base" in run("-C", folder, command, code=1)
    params = (folder / "params.yaml").read_text("utf-8")
    (folder / "model").mkdir()
    (folder / "model/t.jsonl").write_text('{"prompt": "a", "text": "b"}\n')
    run("-C", folder, "texts", "add", folder / "model/t.jsonl", "--variant", "t", "--family", "f")
    assert "match their pins" in run("-C", folder, "check")
    after = (folder / "params.yaml").read_text("utf-8")
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        line for line in params.splitlines() if line.startswith("#")
    ]


def test_code_that_changed_is_named_by_its_stage(experiment):
    assert stages_with_other_code(experiment) == []
    (experiment / code_hash_file("score")).write_text("another version's\n")
    (experiment / code_hash_file("track")).unlink()
    assert stages_with_other_code(experiment) == ["score", "track"]
    for command in (["check"], ["run"], ["stage", "prompts"]):
        output = run("-C", experiment, *command, code=1)
        assert "for: score, track" in output
        assert "toxtrail upgrade" in output


def test_upgrade_writes_what_changed_and_nothing_else(experiment):
    assert "Already up to date" in run("-C", experiment, "upgrade")
    (experiment / code_hash_file("score")).write_text("another version's\n")
    before = (experiment / "params.yaml").read_bytes()
    found = json.loads(run("-C", experiment, "upgrade", "--dry-run", "--json"))
    expected = {"files": ["code/score.sha256"], "stages": ["score"], "written": False}
    assert found == {**expected, "params": None}
    assert stages_with_other_code(experiment) == ["score"]
    assert "other code: score." in run("-C", experiment, "upgrade")
    assert stages_with_other_code(experiment) == []
    assert outdated_files(experiment) == {}
    assert (experiment / "params.yaml").read_bytes() == before


def test_a_checkout_follows_its_own_source(tmp_path):
    (tmp_path / "src" / "toxtrail").mkdir(parents=True)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    assert stages_with_other_code(tmp_path) == []
    assert "a checkout of toxtrail" in run("-C", tmp_path, "upgrade", code=1)


def test_only_code_of_its_own_makes_a_stage_stale(monkeypatch, experiment):
    """The lists of other stages stay byte for byte."""
    before = versioned_files()
    listing = scaffold.code_files
    changed = {"stages/score.py": "0" * 64}
    monkeypatch.setattr(
        scaffold,
        "code_files",
        lambda name: {path: changed.get(path, sha256) for path, sha256 in listing(name).items()},
    )
    after = versioned_files()
    assert [name for name in before if before[name] != after[name]] == ["code/score.sha256"]


def test_the_errors_are_of_the_right_kind(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        write_experiment(tmp_path, {})


def test_dvc_finds_one_pipeline_in_a_checkout():
    """It takes every dvc.yaml below the root for one of the experiment's."""
    assert not list(SOURCE.rglob("dvc.yaml"))

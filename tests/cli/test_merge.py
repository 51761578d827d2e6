"""`toxtrail merge` on a real repository, without git's help and as git's driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from toxtrail.backends import git
from toxtrail.cli import cli
from toxtrail.config.yaml_text import CONFLICT, parse_yaml
from toxtrail.scaffold import new_files, write_experiment

INSTRUCT = "  smollm2-instruct: {family: smollm2-135m, role: instruct}\n"
OTHER = "  {0}: {{family: smollm2-135m, role: {0}, parent: smollm2-instruct}}\n"
LOCK = """schema: '2.0'
stages:
  prompts:
    cmd: toxtrail stage prompts
    outs:
    - path: data/prompts.parquet
      hash: md5
      md5: {}
      size: 1
"""


def in_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=False
    )


def run(root, *arguments, code=0):
    done = CliRunner().invoke(cli, ["-C", str(root), "merge", *arguments])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def experiment(tmp_path):
    root = tmp_path / "mine"
    write_experiment(root, new_files("mine", "demo", git=True))
    git.init(root)
    in_git(root, "add", "-A")
    in_git(root, "commit", "-qm", "start")
    return root


def branches(root, *edits):
    """Merge branches that each make one edit; return the exit code."""
    in_git(root, "branch", "start")
    for number, edit in enumerate(edits):
        in_git(root, "checkout", "-q", "-b", f"b{number}", "start")
        edit(root)
        in_git(root, "add", "-A")
        in_git(root, "commit", "-qm", "edit")
    return in_git(root, "merge", "b0").returncode


def variant(name):
    def edit(root):
        path = root / "params.yaml"
        path.write_text(path.read_text().replace(INSTRUCT, INSTRUCT + OTHER.format(name)))
        (root / "dvc.lock").write_text(LOCK.format(name[0] * 32))

    return edit


def role(name):
    def edit(root):
        path = root / "params.yaml"
        path.write_text(path.read_text().replace("role: benign", f"role: {name}"))

    return edit


def test_conflicts_of_different_entries_are_resolved_from_the_index(experiment):
    assert branches(experiment, variant("aa"), variant("bb")) == 1
    output = run(experiment)
    assert "prompts" in output  # both branches ran it with different results
    assert git.unmerged(experiment, "params.yaml", "dvc.lock") == []
    assert {"aa", "bb"} <= set(parse_yaml((experiment / "params.yaml").read_text())["variants"])
    assert (experiment / "dvc.lock").read_text() == ""
    assert in_git(experiment, "commit", "-qm", "merged").returncode == 0
    run(experiment)


def test_a_conflict_of_one_entry_remains_and_the_rest_is_merged(experiment):
    assert branches(experiment, role("left"), role("right")) == 1
    for _ in range(2):
        assert "variants.smollm2-benign" in run(experiment, code=1)
        text = (experiment / "params.yaml").read_text()
        assert len(CONFLICT.findall(text)) == 3
    assert git.unmerged(experiment, "params.yaml") == ["params.yaml"]


def test_a_conflict_that_was_resolved_by_hand_is_not_overwritten(experiment):
    assert branches(experiment, variant("aa"), variant("bb")) == 1
    path = experiment / "params.yaml"
    path.write_text("mine: 1\n")
    assert "git add params.yaml" in run(experiment, code=1)
    assert path.read_text() == "mine: 1\n"


def test_a_version_that_a_failed_driver_left_is_merged(experiment):
    assert branches(experiment, variant("aa"), variant("bb")) == 1
    for name in ("params.yaml", "dvc.lock"):
        (experiment / name).write_text(git.file_at(experiment, ":2", name))
    run(experiment)
    assert {"aa", "bb"} <= set(parse_yaml((experiment / "params.yaml").read_text())["variants"])


def test_a_file_that_one_side_deleted_is_left_alone(experiment):
    def deletion(root):
        (root / "params.yaml").rename(root / "other.yaml.txt")
        (root / "other.yaml.txt").write_text("x")

    assert branches(experiment, deletion, variant("bb")) == 1
    assert "was deleted on one side" in run(experiment, code=1)


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_the_driver_writes_the_result_in_place_of_our_version(tmp_path, name):
    text = {"params.yaml": "models:\n", "dvc.lock": LOCK.format("a" * 32)}[name]
    versions = [tmp_path / side for side in ("base", "ours", "theirs")]
    for path in versions:
        path.write_text(text)
    added = {
        "params.yaml": "  x: 1\n",
        "dvc.lock": LOCK.format("b" * 32)[len("schema: '2.0'\nstages:\n") :],
    }
    versions[2].write_text(text + added[name].replace("prompts", "score@v"))
    run(tmp_path, "--driver", *map(str, versions), f"sub/{name}")
    assert versions[1].read_text() == versions[2].read_text()
    versions[0].write_text("")
    versions[2].write_text("a: [")
    assert "conflict" in run(tmp_path, "--driver", *map(str, versions), f"sub/{name}", code=1)
    assert CONFLICT.search(versions[1].read_text())


def test_an_installation_outside_git_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("")
    assert "git init" in run(tmp_path, "--install", code=1)

"""Two projects in one MLflow experiment, with equal names and, in part, equal content."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from conftest import Lab

pytestmark = pytest.mark.slow

NAMES = {"base", "tuned", "tiny comparison"}


@dataclass
class Team:
    """Two projects and a folder outside of both, all of which use one store."""

    mine: Lab
    yours: Lab
    outside: Lab

    def ids(self, lab: Lab, *options: str) -> dict[str, str]:
        """Name -> run id of the runs that a command shows."""
        return {run["name"]: run["run_id"] for run in lab.json("runs", *options)}


def project(lab: Lab) -> str:
    return lab.params["tracking"]["project"]


def shared(lab: Lab, root, tracking) -> Lab:
    """A copy of a finished experiment that is another project, with the team's store."""
    copy = lab.copy(root)
    copy.edit(tracking=tracking)
    return copy


@pytest.fixture(scope="module")
def team(finished, tmp_path_factory) -> Team:
    """Two experiments made by `init`, with tiny values and weights, published to one store."""
    folder = tmp_path_factory.mktemp("team")
    store = f"sqlite:///{folder}/team.db"
    env = {**finished.env, "MLFLOW_TRACKING_URI": store}
    labs = []
    for name in ("mine", "yours"):
        finished.toxtrail("init", str(folder / "new" / name), "--experiment", "team", "--no-git")
        tracking = Lab(folder / "new" / name, env).params["tracking"]
        lab = shared(finished, folder / name, tracking)
        lab = Lab(lab.root, env)
        lab.git("remote", "add", "origin", f"https://alice:a-secret-token@example.org/{name}.git")
        lab.toxtrail("run")
        labs.append(lab)
    (folder / "outside").mkdir()
    outside = Lab(folder / "outside", {**env, "MLFLOW_EXPERIMENT_NAME": "team"})
    return Team(*labs, outside)


def test_init_gives_every_experiment_an_id_of_its_own(team):
    assert project(team.mine).startswith("mine-")
    assert project(team.yours).startswith("yours-")


def test_equal_content_is_a_run_in_each_project_and_one_in_each_clone(team, tmp_path):
    mine, yours = team.ids(team.mine), team.ids(team.yours)
    assert set(mine) == set(yours) == NAMES
    assert not set(mine.values()) & set(yours.values())
    clone = Lab(team.mine.copy(tmp_path / "clone").root, {**team.mine.env, "LOGNAME": "bob"})
    clone.toxtrail("stage", "track", "tuned")
    assert team.ids(clone) == mine
    for lab in (team.mine, team.yours):
        lab.toxtrail("verify")
        assert "up to date" in lab.toxtrail("status").stdout
        assert lab.json("runs", "--orphans") == []


def test_a_run_says_whose_it_is_without_a_secret(team):
    for run in team.mine.json("runs"):
        assert run["tags"]["project"] == project(team.mine)
        assert run["tags"]["mlflow.source.git.repoURL"] == "https://example.org/mine.git"
        assert run["tags"]["mlflow.user"]
        assert "a-secret-token" not in json.dumps(run)


def test_each_command_reads_the_own_project_unless_told_otherwise(team):
    mine, yours = team.ids(team.mine), team.ids(team.yours)
    own, other = project(team.mine), project(team.yours)
    assert team.ids(team.mine, "--latest") == mine
    assert team.ids(team.mine, "--filter", "tags.role = 'tuned'") == {"tuned": mine["tuned"]}
    assert team.ids(team.mine, "--project", other) == yours
    for lab in (team.mine, team.outside):
        for options in (("--all-projects",), ("--all-projects", "--latest")):
            assert {run["run_id"] for run in lab.json("runs", *options)} == {
                *mine.values(), *yours.values()
            }  # fmt: skip
    rows = team.mine.toxtrail("runs", "--all-projects", "--csv").stdout
    assert rows.count(own) == rows.count(other) == 3
    tree = team.mine.toxtrail("runs", "--tree").stdout
    assert mine["tuned"][:8] in tree
    assert yours["tuned"][:8] not in tree
    variants = "tags.kind = 'variant'"
    commands = (("compare", "--all"), ("compare", "--filter", variants), ("compare",))
    for command in commands:
        (found,) = team.mine.json(*command)
        assert found["project"] == own
        found = team.mine.json(*command, "--all-projects")
        assert [one["project"] for one in found] == sorted([own, other])
    for names in (("base", "tuned"), ("base", "tuned", "--mlflow")):
        assert yours["tuned"][:8] not in team.mine.toxtrail("flips", *names, "--json").stdout
        assert yours["tuned"][:8] not in team.mine.toxtrail("diff", *names, "--json").stdout
    flips = team.mine.json("flips", "base", "tuned", "--project", other)
    assert yours["tuned"][:8] in flips["b"]
    assert mine["tuned"] in team.mine.toxtrail("audit", mine["tuned"][:8]).stdout
    team.mine.toxtrail("runs", "--project", own, "--all-projects", code=2)
    team.mine.toxtrail("runs", "--project", "x' or 'y", code=2)


def test_an_id_reaches_another_project_and_the_answer_names_it(team):
    other, run_id = project(team.yours), team.ids(team.yours)["tuned"][:8]
    own = team.ids(team.mine)["base"][:8]
    flips = team.mine.json("flips", own, run_id)
    assert other in flips["b"]
    assert other not in flips["a"]
    for command in (("compare", own, run_id), ("diff", own, run_id), ("audit", run_id)):
        assert other in team.mine.toxtrail(*command).stdout
    assert other not in team.mine.toxtrail("audit", "tuned").stdout
    team.mine.toxtrail("audit", run_id, "--verify")
    assert other in team.mine.toxtrail("audit", "tuned", "--project", other).stdout


def test_outside_of_both_a_name_is_ambiguous(team, tmp_path):
    ids = project(team.mine), project(team.yours)
    export, report = ("--to", str(tmp_path / "b.zip")), ("--to", str(tmp_path / "r.html"))
    for command in (
        ("compare", "tiny"), ("compare", "base", "tuned"), ("flips", "base", "tuned"),
        ("diff", "base", "tuned"), ("card", "tuned"), ("gate",), ("audit", "tuned"),
        ("verify", "tiny"), ("export", "tuned", *export), ("report", "tiny", *report),
    ):  # fmt: skip
        said = team.outside.toxtrail(*command, code=1).stderr
        assert all(one in said for one in (*ids, "--project"))
        done = team.outside.toxtrail(*command, "--project", ids[0], code=None)
        assert done.returncode in ((0, 4, 5) if command == ("gate",) else (0,)), done.stderr
    team.outside.toxtrail("verify")
    assert len(team.outside.json("compare", "--all")) == 2
    (found,) = team.outside.json("compare", "tiny", "--project", ids[1])
    assert found["project"] == ids[1]
    assert ids[0] in team.outside.toxtrail("runs", "--project", "no-0badcafe").stdout


def test_the_newest_run_of_another_project_under_other_conditions_is_not_taken(team, tmp_path):
    from mlflow import MlflowClient

    third = shared(team.yours, tmp_path / "third", {"project": "third-0badcafe"})
    third.edit(posterior={"threshold": {"judge": 0.9}})
    third.toxtrail("run")
    runs = team.ids(third)
    assert set(runs) == NAMES
    try:
        mine = team.ids(team.mine)
        assert team.ids(team.mine, "--latest") == mine
        (found,) = team.mine.json("compare", "base", "tuned")
        assert [row["n"] for row in found["pairs"]] == [
            row["n"] for row in team.mine.json("compare", "--mlflow")[0]["pairs"]
        ]
        gate = team.mine.toxtrail("gate", "--mlflow", "--json", code=None).stdout
        assert gate == team.mine.toxtrail("gate", "--json", code=None).stdout
        team.mine.toxtrail("verify")
    finally:
        client = MlflowClient(third.env["MLFLOW_TRACKING_URI"])
        for run_id in runs.values():
            client.delete_run(run_id)


def test_a_changed_project_is_reported_and_its_numbers_are_not_shown(team, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(team.mine.env["MLFLOW_TRACKING_URI"])
    run_id = team.ids(team.yours)["tuned"]
    client.set_tag(run_id, "project", project(team.mine))
    try:
        assert "project" in team.mine.toxtrail("flips", "base", run_id[:8], code=1).stderr
        team.mine.toxtrail("verify", code=3)
        team.yours.toxtrail("verify", code=3)
    finally:
        client.set_tag(run_id, "project", project(team.yours))
    team.yours.toxtrail("verify")


def test_the_environment_diverts_every_command_and_says_so(team):
    lab = Lab(team.mine.root, {**team.mine.env, "MLFLOW_EXPERIMENT_NAME": "pull-request"})
    assert lab.json("runs") == []
    assert "track@tuned" in lab.toxtrail("status").stdout
    done = lab.toxtrail("run")
    assert '"pull-request"' in done.stderr
    assert set(team.ids(lab)) == NAMES
    assert not set(team.ids(lab).values()) & set(team.ids(team.mine).values())
    lab.toxtrail("verify")
    assert "up to date" in lab.toxtrail("status").stdout
    assert "pull-request" not in team.mine.toxtrail("status").stderr
    same = Lab(team.mine.root, {**team.mine.env, "MLFLOW_EXPERIMENT_NAME": "team"})
    assert same.toxtrail("runs").stderr == ""


def test_upgrade_adds_a_missing_id(team, tmp_path):
    root = tmp_path / "Old experiment"
    team.mine.toxtrail("init", str(root), "--no-git")
    lab, text = Lab(root, team.mine.env), (root / "params.yaml").read_text("utf-8")
    line = f"  project: {project(lab)}\n"
    (root / "params.yaml").write_text(text.replace(line, ""), "utf-8")
    assert (
        "toxtrail upgrade"
        in lab.toxtrail("check", code=1).stdout + lab.toxtrail("runs", code=1).stderr
    )
    lab.toxtrail("upgrade", "--dry-run")
    assert "project" not in lab.params["tracking"]
    lab.toxtrail("upgrade")
    added = project(lab)
    assert added.startswith("old-experiment-")
    assert added not in line
    lab.toxtrail("upgrade")
    assert project(lab) == added

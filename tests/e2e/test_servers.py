"""MLflow as teams run it: on PostgreSQL and an object store, in each form of server."""

from __future__ import annotations

import json
import random
import signal
from types import SimpleNamespace

import pytest
import racing_publishers
import team_servers
from conftest import Lab
from fake_mlflow import Answer
from recording_proxy import proxy

pytestmark = pytest.mark.slow

EXPERIMENT = "toxtrail"
RUNS = ("base", "tuned", "tiny comparison")
SEALED = """
SELECT r.run_uuid, r.name, r.status, r.lifecycle_stage FROM runs r
JOIN experiments e ON e.experiment_id = r.experiment_id
LEFT JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'toxtrail.seal'
WHERE e.name = %s AND (s.value IS NOT NULL) = %s ORDER BY r.name
"""
PAGE = "<!doctype html><title>Sign in</title>"


def stored(team, form, experiment=EXPERIMENT, *, sealed=True):
    """Id, name, status and lifecycle stage of the runs of an experiment, also of deleted ones."""
    return team.database.rows(form, SEALED, experiment, sealed)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    with team_servers.team(tmp_path_factory.mktemp("team"), workers=2) as started:
        yield started


@pytest.fixture(scope="module")
def clones(team, finished, tmp_path_factory):
    """The finished experiment, published to a server of each form from a clone."""
    made = {}
    for form in team_servers.FORMS:
        root = tmp_path_factory.mktemp(form) / "lab"
        clone = made[form] = Lab(finished.copy(root).root, finished.env | team.settings(form))
        clone.toxtrail("stage", "track", "base")
        clone.toxtrail("stage", "track", "tuned")
        clone.toxtrail("stage", "track-comparison", "tiny")
    return made


@pytest.fixture
def reader(clones, tmp_path):
    """Commands in an empty folder: all that they know is in variables."""

    def at(form: str) -> Lab:
        return Lab(tmp_path, clones[form].env | {"MLFLOW_EXPERIMENT_NAME": EXPERIMENT})

    return at


@pytest.fixture
def fresh(clones, team, tmp_path, request):
    """A clone that has published nothing yet to its MLflow experiment, and what is stored of it."""
    name = request.node.name

    def at(form: str) -> SimpleNamespace:
        clone = Lab(clones[form].copy(tmp_path / "lab").root, dict(clones[form].env))
        clone.edit(tracking={"experiment": name})
        return SimpleNamespace(
            lab=clone,
            sealed=lambda: [row[1:] for row in stored(team, form, name)],
            unsealed=lambda: [row[1:] for row in stored(team, form, name, sealed=False)],
        )

    return at


# --- reading without files ------------------------------------------------------------------------


@pytest.mark.parametrize("form", team_servers.FORMS)
def test_an_empty_folder_shows_what_the_experiment_shows(form, reader, finished):
    own = reader(form)
    listed = {run["name"]: run for run in own.json("runs")}
    assert {name: run["status"] for name, run in listed.items()} == dict.fromkeys(RUNS, "FINISHED")
    for command in (["compare", "--all"], ["flips", "base", "tuned"]):
        shown, expected = own.json(*command), finished.json(*command)
        assert values(shown) == values(expected), command
    assert own.toxtrail("diff", "base", "tuned").stdout
    assert own.toxtrail("card", "tuned").stdout == finished.toxtrail("card", "tuned").stdout


def values(shown):
    """The numbers of a result, wherever it was read."""
    if isinstance(shown, dict):
        return {name: values(value) for name, value in shown.items()}
    if isinstance(shown, list):
        return [values(value) for value in shown]
    return shown if isinstance(shown, (int, float, bool)) else None


@pytest.mark.parametrize("form", team_servers.FORMS)
def test_a_clone_verifies_audits_and_exports_its_runs(form, clones, tmp_path):
    clone = clones[form]
    clone.toxtrail("verify")
    clone.toxtrail("audit", "tuned", "--verify")
    clone.toxtrail("export", "tuned", "--to", str(tmp_path / "bundle"))
    clone.toxtrail("audit", str(tmp_path / "bundle"), "--verify")


# --- changes behind MLflow's back -----------------------------------------------------------------


def change(team, table, run_id, key, value):
    """Set a value in a table of MLflow; what it was."""
    where = f"FROM {table} WHERE run_uuid = %s AND key = %s"
    ((before,),) = team.database.rows("proxied", f"SELECT DISTINCT value {where}", run_id, key)
    team.database.rows(
        "proxied",
        f"UPDATE {table} SET value = %s WHERE run_uuid = %s AND key = %s",
        value,
        run_id,
        key,
    )
    return before


@pytest.fixture
def tampered(team, clones):
    """Changes the proxied server's store in six places, and puts all back."""
    ids = {name: run_id for run_id, name, *_ in stored(team, "proxied")}
    client, bucket = team.objects.client, team_servers.BUCKET
    comparison, base = (team.objects.keys(ids[name]) for name in ("tiny comparison", "base"))
    metric = team.database.rows(
        "proxied",
        "SELECT key FROM latest_metrics WHERE run_uuid = %s AND key LIKE 'judge%%' AND value > 0 "
        "ORDER BY key LIMIT 2",
        ids["tuned"],
    )
    (latest,), (history,) = metric
    cells = [
        ("latest_metrics", ids["tuned"], latest, 0.0763),
        ("metrics", ids["tuned"], latest, 0.0763),
        ("metrics", ids["tuned"], history, 0.0763),
        ("tags", ids["base"], "role", "benign"),
        ("params", ids["base"], "generation.seed", "8"),
    ]
    objects = [comparison["summary.json"], base["scores.parquet"]]
    kept = [client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in objects]
    before = [change(team, *cell) for cell in cells]
    summary = json.loads(kept[0])
    summary["pairs"][0]["rate_b"] = 0.01
    client.put_object(Bucket=bucket, Key=objects[0], Body=json.dumps(summary).encode())
    client.delete_object(Bucket=bucket, Key=objects[1])
    yield SimpleNamespace(ids=ids, latest=latest, history=history)
    for (table, run_id, key, _), value in zip(cells, before, strict=True):
        change(team, table, run_id, key, value)
    for key, body in zip(objects, kept, strict=True):
        client.put_object(Bucket=bucket, Key=key, Body=body)


def test_each_change_in_the_store_is_named_and_no_changed_number_is_shown(tampered, reader, clones):
    own = reader("proxied")
    for command in (["compare", "--all"], ["card", "tuned"]):
        done = own.toxtrail(*command, code=1)
        assert "summary.json" in done.stderr
        assert done.stdout == ""
    done = own.toxtrail("flips", "base", "tuned", code=1)
    assert "scores.parquet" in done.stderr
    listed = own.toxtrail("runs", "--json", code=None)
    runs = {run["name"]: run for run in json.loads(listed.stdout)}
    assert runs["tuned"]["metrics"][tampered.latest] != 0.0763
    assert runs["base"]["tags"]["role"] == "base"
    for name in (tampered.latest, "role", "generation.seed"):
        assert name in listed.stderr, name
    report = json.loads(clones["proxied"].toxtrail("verify", "--json", code=3).stdout)
    broken = [check for check in report["checks"] if check["outcome"] == "BROKEN"]
    for run, subject in (
        ("tuned", tampered.latest), ("tuned", tampered.history), ("base", "role"),
        ("base", "generation.seed"), ("tiny comparison", "summary.json"),
        ("base", "scores.parquet"),
    ):  # fmt: skip
        identifier = tampered.ids[run][:8]
        assert any(subject in str(link) and identifier in str(link) for link in broken), (
            subject,
            broken,
        )
    done = clones["proxied"].toxtrail("audit", "base", "--verify", code=3)
    assert "scores.parquet" in done.stdout


# --- accounts, TLS, credentials -------------------------------------------------------------------


def test_accounts_and_certificates_are_refused_with_their_cure(clones, team):
    before, env = stored(team, "guarded"), clones["guarded"].env
    password = {"MLFLOW_TRACKING_PASSWORD": "wrong-secret-word"}
    no_authority = {k: v for k, v in env.items() if k != "MLFLOW_TRACKING_SERVER_CERT_PATH"}
    team.post("2.0/mlflow/users/create", username="stranger", password="stranger-password")
    stranger = {"MLFLOW_TRACKING_USERNAME": "stranger",
                "MLFLOW_TRACKING_PASSWORD": "stranger-password"}  # fmt: skip
    for changed, words in (
        (env | password, ["401", "MLFLOW_TRACKING_PASSWORD"]),
        (env | stranger, ["403", "permission"]),
        (no_authority, ["MLFLOW_TRACKING_SERVER_CERT_PATH"]),
    ):
        done = Lab(clones["guarded"].root, changed).toxtrail("stage", "track", "base", code=1)
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert changed["MLFLOW_TRACKING_PASSWORD"] not in done.stderr
    assert stored(team, "guarded") == before
    assert stored(team, "guarded", sealed=False) == []


def test_an_account_that_may_only_read_finds_the_run_and_publishes_nothing(clones, team):
    before = stored(team, "guarded")
    ((experiment,),) = team.database.rows(
        "guarded", "SELECT experiment_id FROM experiments WHERE name = %s", EXPERIMENT
    )
    team.post("2.0/mlflow/users/create", username="reader", password="reader-password")
    team.post(
        "3.0/mlflow/users/permissions/grant", username="reader", resource_type="experiment",
        resource_id=str(experiment), permission="READ",
    )  # fmt: skip
    account = {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": "reader-password"}
    clone = Lab(clones["guarded"].root, clones["guarded"].env | account)
    clone.toxtrail("stage", "track", "base")
    clone.toxtrail("stage", "track-comparison", "tiny")
    assert stored(team, "guarded") == before


def test_an_object_store_without_credentials_or_client_is_named_and_loses_nothing(
    clones, team, tmp_path
):
    before = stored(team, "direct")
    env = clones["direct"].env
    no_keys = {k: v for k, v in env.items() if not k.startswith("AWS_")}
    (tmp_path / "boto3.py").write_text("raise ModuleNotFoundError(name='boto3')\n", "utf-8")
    for changed, word in (
        (no_keys | {"AWS_EC2_METADATA_DISABLED": "true"}, "AWS_ACCESS_KEY_ID"),
        (env | {"PYTHONPATH": str(tmp_path)}, "pip install boto3"),
    ):
        done = Lab(clones["direct"].root, changed).toxtrail("stage", "track", "base", code=1)
        assert word in done.stderr
        assert "Traceback" not in done.stderr
    assert stored(team, "direct") == before
    assert all(stage == "active" for *_, stage in before)


# --- interrupted publications ---------------------------------------------------------------------


class Uploads:
    """Calls something at the fourth upload of a file, and at those after it unless `once`."""

    def __init__(self, action, *, once=False):
        self.n, self.action, self.once = 0, action, once

    def __call__(self, method, path):
        if method != "PUT" or "/mlflow-artifacts/" not in path:
            return None
        self.n += 1
        return self.action() if self.n == 4 or (self.n > 4 and not self.once) else None


@pytest.mark.parametrize(
    ("answer", "words", "once"),
    [
        (Answer(503, "overloaded"), "503", False),
        (Answer(200, PAGE, (("Content-Type", "text/html"),)), "payload.json", False),
        (Answer(200, PAGE, (("Content-Type", "text/html"),)), "login page", True),
    ],
    ids=["overloaded", "login page", "one login page"],
)
def test_a_proxy_that_fails_in_mid_upload_leaves_no_sealed_run(answer, words, once, fresh):
    own = fresh("proxied")
    with proxy(own.lab.env["MLFLOW_TRACKING_URI"]) as way:
        way.fails = Uploads(lambda: answer, once=once)
        behind = Lab(own.lab.root, own.lab.env | {"MLFLOW_TRACKING_URI": way.url})
        done = behind.toxtrail("stage", "track", "base", code=1)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert own.sealed() == []
        way.fails = lambda method, path: None
        behind.toxtrail("stage", "track", "base")
    assert own.sealed() == [("base", "FINISHED", "active")]
    assert [stage for *_, stage in own.unsealed()] == ["deleted"]


def test_requests_and_answers_that_get_lost_are_repeated(fresh):
    own = fresh("proxied")

    def dropped(remainder):
        def drop(number, *_):
            if number % 14 == remainder:
                raise ConnectionError

        return drop

    with proxy(own.lab.env["MLFLOW_TRACKING_URI"]) as way:
        way.before, way.after = dropped(3), dropped(10)
        behind = Lab(own.lab.root, own.lab.env | {"MLFLOW_TRACKING_URI": way.url})
        behind.toxtrail("stage", "track", "base")
        assert way.count > 28
    assert own.sealed() == [("base", "FINISHED", "active")]
    assert all(stage == "deleted" for *_, stage in own.unsealed())


def test_a_server_killed_in_mid_upload_loses_nothing(fresh, team):
    own = fresh("proxied")
    server = team.servers["proxied"]
    with proxy(server.url) as way:
        way.fails = Uploads(server.kill)
        behind = Lab(own.lab.root, own.lab.env | {"MLFLOW_TRACKING_URI": way.url})
        done = behind.toxtrail("stage", "track", "base", code=1)
    server.start()
    assert "cannot be reached" in done.stderr
    assert own.sealed() == []
    own.lab.toxtrail("stage", "track", "base")
    assert own.sealed() == [("base", "FINISHED", "active")]
    own.lab.toxtrail("stage", "track", "base")
    assert own.sealed() == [("base", "FINISHED", "active")]


# --- many publishers ------------------------------------------------------------------------------


def test_six_publishers_at_once_end_with_one_run(team, finished, tmp_path):
    with racing_publishers.clones(
        finished.root, finished.env, team.servers["proxied"].url, tmp_path, 6
    ) as clones:
        together = racing_publishers.publish_at_once(clones, team.database, 1)
        assert together.faults == []
        assert len(together.runs) >= 2  # they did race
        kill = random.Random(7)  # at request 10: among the uploads
        one_dies = racing_publishers.publish_at_once(clones, team.database, 2, kill)
        assert one_dies.faults == []
        victim = one_dies.killed
        assert victim is not None
        assert one_dies.codes[victim] == -signal.SIGKILL
        assert racing_publishers.publish_again(clones[victim]) == 0

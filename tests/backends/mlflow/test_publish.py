"""Publishing to a store that others write to: nobody's run is lost, one stands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import forks
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import RestException

from toxtrail.backends.mlflow import publish, write_run
from toxtrail.backends.mlflow.create_store import complete_store
from toxtrail.backends.mlflow.fetch_artifacts import Fetched
from toxtrail.backends.mlflow.published_contents import Content, find_published
from toxtrail.backends.mlflow.read_store import read_store
from toxtrail.backends.mlflow.store import publisher_id
from toxtrail.backends.mlflow.tracker import MlflowTracker
from toxtrail.backends.protocols import LoggedWeights, RunContent
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.run_tags import KEY_TAG, PROJECT_TAG, PUBLISHER_TAG, SEAL_TAG

pytestmark = pytest.mark.slow

PROJECT = "lab-0000abcd"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A SQLite file that stands for a team's server: it is in no clone."""
    folder = tmp_path_factory.mktemp("team")
    complete_store(folder / "team.db", folder / "artifacts")
    return f"sqlite:///{folder}/team.db"


@pytest.fixture
def team(store, tmp_path, monkeypatch, request):
    """Two clones of one experiment that publish to one store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr(publish, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(publish, "POLL_SECONDS", 0.01)
    client, name = MlflowClient(store), request.node.name[:200]
    client.create_experiment(name, artifact_location=(tmp_path / "artifacts").as_uri())
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    return SimpleNamespace(
        client=client,
        name=name,
        id=client.get_experiment_by_name(name).experiment_id,
        here=MlflowTracker(tmp_path / "here", name, PROJECT),
        there=MlflowTracker(tmp_path / "there", name, PROJECT),
        root=tmp_path / "here",
    )


@pytest.fixture
def content(request, tmp_path):
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"rows")
    return RunContent(
        name="tuned",
        content_key=sha256_text(request.node.name),
        manifest=json.dumps({"subject": []}),
        description="",
        tags={"kind": "variant"},
        params={"a": 1},
        metrics={"m/n": 1.0},
        files={"scores.parquet": path},
        weights=LoggedWeights("tuned", "LoRA adapter", sha256_text(request.node.name), {}, {}),
        primary_metric="m/n",
    )


def runs_of(team):
    """Run id -> (status, lifecycle stage, sealed)."""
    runs = team.client.search_runs([team.id], run_view_type=ViewType.ALL)
    return {
        r.info.run_id: (r.info.status, r.info.lifecycle_stage, SEAL_TAG in r.data.tags)
        for r in runs
    }


def started(
    team, content, publisher="another", sealed=False, status=None, id_starts="", project=PROJECT
):
    """A run as another publisher has it under way."""
    tags = {KEY_TAG: content.content_key, PUBLISHER_TAG: publisher, PROJECT_TAG: project}
    run_id = team.client.create_run(team.id, run_name="tuned", tags=tags).info.run_id
    while id_starts and run_id[0] not in id_starts:
        team.client.delete_run(run_id)
        run_id = team.client.create_run(team.id, run_name="tuned", tags=tags).info.run_id
    if sealed:
        team.client.set_tag(run_id, write_run.SCHEMA_TAG, write_run.SCHEMA_VERSION)
        team.client.set_tag(run_id, SEAL_TAG, sha256_text(content.manifest))
    if status:
        team.client.set_terminated(run_id, status=status)
    return run_id


def test_the_second_clone_finds_the_run_of_the_first(team, content):
    first, second = team.here.publish(content), team.there.publish(content)
    assert (first.created, second.created, first.run_id) == (True, False, second.run_id)
    assert runs_of(team) == {first.run_id: ("FINISHED", "active", True)}


@pytest.mark.parametrize("status", [None, "FAILED", "KILLED"])
def test_an_unfinished_run_of_another_clone_is_left_alone(team, content, status):
    other = started(team, content, status=status)
    before = runs_of(team)[other]
    own = team.here.publish(content)
    assert runs_of(team) == {other: before, own.run_id: ("FINISHED", "active", True)}


def test_an_unfinished_run_of_this_clone_is_deleted(team, content):
    team.here.publish(content)  # the clone gets its id
    later = dataclasses.replace(content, content_key="1" * 64)
    left = started(team, later, publisher_id(team.root))
    team.here.publish(later)
    assert runs_of(team)[left][1] == "deleted"


def test_a_copy_of_a_clone_is_another_publisher(tmp_path):
    import shutil

    (tmp_path / "a/mlruns").mkdir(parents=True)
    (tmp_path / "a/mlruns/.lock").touch()
    own = publisher_id(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert publisher_id(tmp_path / "a") == own
    assert publisher_id(tmp_path / "b") != own


@pytest.mark.parametrize("reason", ["No module named 'boto3'", "status 503", "timed out"])
def test_a_sealed_run_whose_files_cannot_be_read_is_kept_and_nothing_is_published(
    team, content, monkeypatch, reason
):
    team.here.publish(content)
    before = runs_of(team)
    unreadable = Fetched(None, missing=False, reason=reason)
    monkeypatch.setattr(publish, "fetch", lambda *_: unreadable)
    with pytest.raises(BackendError, match=reason):
        team.there.publish(content)
    assert runs_of(team) == before


def test_a_changed_run_of_another_clone_is_kept_and_another_made_beside_it(team, content):
    first = team.here.publish(content)
    place = team.client.get_run(first.run_id).info.artifact_uri.removeprefix("file://")
    Path(place, "scores.parquet").write_bytes(b"other")
    second = team.there.publish(content)
    assert second.created
    assert "scores.parquet" in second.remarks[0]
    assert set(runs_of(team).values()) == {("FINISHED", "active", True)}
    assert team.here.publish(content).run_id == second.run_id


def test_a_store_that_does_not_give_back_what_it_took_gets_no_seal(team, content, monkeypatch):
    gone = Fetched(None, missing=False, reason="a login page")
    monkeypatch.setattr(publish, "fetch", lambda *_: gone)
    with pytest.raises(BackendError, match="login page"):
        team.here.publish(content)
    assert list(runs_of(team).values()) == [("FAILED", "active", False)]


def test_a_store_that_lost_one_of_the_files_gets_no_seal(team, content, monkeypatch):
    plain = MlflowClient.log_artifact

    def log_artifact(client, run_id, local, path=None):
        if not local.endswith("scores.parquet"):
            plain(client, run_id, local, path)

    monkeypatch.setattr(MlflowClient, "log_artifact", log_artifact)
    with pytest.raises(BackendError, match=r"scores\.parquet"):
        team.here.publish(content)
    assert list(runs_of(team).values()) == [("FAILED", "active", False)]


def test_the_seal_is_there_before_the_run_is_finished(team, content, monkeypatch):
    states = []

    def finish(client, run_id):
        states.append(runs_of(team)[run_id])
        client.set_terminated(run_id, status="FINISHED")

    monkeypatch.setattr(publish, "finish_run", finish)
    team.here.publish(content)
    assert states == [("RUNNING", "active", True)]


def raced(team, content, monkeypatch, **rival):
    """Publish while a rival seals its own run just before this one is sealed."""
    rivals = []

    def write(*arguments):
        rivals.append(started(team, content, sealed=True, **rival))
        return write_run.write_run(*arguments)

    monkeypatch.setattr(publish, "write_run", write)
    return team.here.publish(content), rivals[0]


def test_a_publisher_gives_way_to_a_run_that_is_finished(team, content, monkeypatch):
    published, rival = raced(team, content, monkeypatch, status="FINISHED")
    assert (published.run_id, published.created) == (rival, False)
    live = {run for run, (_, stage, _) in runs_of(team).items() if stage == "active"}
    assert live == {rival}
    assert team.client.search_logged_models([team.id]) == []


@pytest.mark.parametrize("id_starts", ["0", "f"])
def test_of_two_sealed_runs_the_lower_id_stands_and_the_higher_is_waited_for(
    team, content, monkeypatch, id_starts
):
    published, rival = raced(team, content, monkeypatch, id_starts=id_starts)
    if published.run_id == rival:  # the own one had a higher id
        (own,) = (run for run, state in runs_of(team).items() if state == ("RUNNING", "deleted", 1))
        assert rival < own
        assert runs_of(team)[rival] == ("FINISHED", "active", True)  # its publisher was killed
    else:
        assert published.run_id < rival
        assert runs_of(team)[published.run_id] == ("FINISHED", "active", True)
        assert runs_of(team)[rival] == ("RUNNING", "active", True)  # nobody else's is touched


def test_a_run_that_disappears_while_the_own_one_is_discarded_is_an_error(
    team, content, monkeypatch
):
    def discard(publication, own_id):
        for run in runs_of(team):
            team.client.delete_run(run)

    monkeypatch.setattr(publish.Publication, "_discard", discard)
    with pytest.raises(BackendError, match="was deleted"):
        raced(team, content, monkeypatch, status="FINISHED")


def test_a_publisher_that_may_not_delete_takes_its_seal_away(team, content, monkeypatch):
    def refused(*_):
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "no"})

    monkeypatch.setattr(publish, "delete_run", refused)
    published, rival = raced(team, content, monkeypatch, status="FINISHED")
    assert published.run_id == rival
    assert [run for run, (_, _, sealed) in runs_of(team).items() if sealed] == [rival]


def test_a_deletion_whose_response_was_lost_has_succeeded(team, content, monkeypatch):
    plain = publish.delete_run

    def repeated(*arguments):
        plain(*arguments)
        plain(*arguments)

    monkeypatch.setattr(publish, "delete_run", repeated)
    published, rival = raced(team, content, monkeypatch, status="FINISHED")
    assert published.run_id == rival
    assert sorted(state[1] for state in runs_of(team).values()) == ["active", "deleted"]


def test_an_own_run_that_was_sealed_and_not_finished_is_finished(team, content, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "finish_run", killed)
        with pytest.raises(KeyboardInterrupt):
            team.here.publish(content)
    (own,) = runs_of(team)
    published = team.here.publish(content)
    assert (published.run_id, published.created) == (own, False)
    assert runs_of(team) == {own: ("FINISHED", "active", True)}


def test_a_reader_finds_a_run_without_writing(team, content, monkeypatch):
    first = team.here.publish(content)

    def refused(*_, **__):
        raise RestException({"error_code": "PERMISSION_DENIED", "message": "no"})

    for name in ("set_experiment_tag", "set_tag", "create_run", "delete_run", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, refused)
    found = team.there.publish(content)
    assert (found.run_id, found.remarks) == (first.run_id, ())
    new = dataclasses.replace(
        content, primary_metric="x", notes={content.content_key: {"verdict": "v"}}
    )
    assert len(team.there.publish(new).remarks) == 2


def test_two_publishers_may_make_the_experiment_at_the_same_time(team, content, monkeypatch):
    tracker = MlflowTracker(team.root, f"{team.name[:100]} new", PROJECT)
    plain = MlflowClient.create_experiment

    def late(client, name, **how):
        plain(client, name, **how)
        return plain(client, name, **how)

    monkeypatch.setattr(MlflowClient, "create_experiment", late)
    assert tracker.publish(content).created


def test_a_deleted_experiment_is_named_with_its_cure(team, content):
    published = team.here.publish(content)
    team.client.delete_experiment(team.id)
    for action in (
        lambda: team.here.publish(content),
        lambda: team.here.runs(""),
        lambda: team.here.find(published.run_id),
        lambda: find_published(team.root, team.name, PROJECT, {contents(content)}),
    ):
        with pytest.raises(BackendError, match=f"restore --experiment-id {team.id}"):
            action()


def contents(content):
    return Content(content.content_key, sha256_text(content.manifest))


def test_the_store_in_use_is_asked_for_the_run_of_a_receipt(team, content, monkeypatch, tmp_path):
    team.here.publish(content)
    other = Content("0" * 64, "1" * 64)
    assert find_published(team.root, team.name, PROJECT, {contents(content), other}).present == {
        contents(content)
    }
    renamed = f"{team.name[:100]} renamed"
    team.client.rename_experiment(team.id, renamed)
    answer = find_published(team.root, team.name, PROJECT, {contents(content)})
    assert (answer.present, answer.elsewhere) == (set(), (f'"{renamed}" (id {team.id})',))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert find_published(team.root, team.name, PROJECT, {contents(content)}).present == set()


def test_the_local_store_answers_as_a_server_does(tmp_path, content, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = MlflowTracker(tmp_path, "mine", PROJECT)
    run_id = tracker.publish(content).run_id
    asked = {contents(content), Content("0" * 64, "1" * 64)}
    assert find_published(tmp_path, "mine", PROJECT, asked).present == {contents(content)}
    assert find_published(tmp_path, "yours", PROJECT, asked).elsewhere == ('"mine" (id 1)',)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    client.delete_run(run_id)
    assert find_published(tmp_path, "mine", PROJECT, asked).present == set()
    client.restore_run(run_id)
    client.delete_experiment("1")
    with pytest.raises(BackendError, match="restore --experiment-id 1"):
        find_published(tmp_path, "mine", PROJECT, asked)


PUBLISH = """
import json, sys
from pathlib import Path
from toxtrail.backends.protocols import RunContent
from toxtrail.backends.mlflow.tracker import MlflowTracker
import mlflow

root = Path(sys.argv[1])
root.mkdir()
file = root / "scores.parquet"
file.write_bytes(b"rows")
content = RunContent(name="tuned", content_key="a" * 64, manifest="{}", description="", tags={},
                     params={"a": 1}, metrics={"m/n": 1.0}, files={"scores.parquet": file})
print("ready", flush=True)
sys.stdin.readline()
print(MlflowTracker(root, "race", "lab-0000abcd").publish(content).run_id)
"""


def test_four_clones_that_publish_one_content_at_once_end_with_one_run(
    tmp_path, server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    command, pipe = [forks.programs() / "python-c", PUBLISH], subprocess.PIPE
    publishers = [
        subprocess.Popen([*command, str(tmp_path / n)], stdin=pipe, stdout=pipe, text=True)
        for n in "abcd"
    ]
    assert [publisher.stdout.readline() for publisher in publishers] == ["ready\n"] * 4
    for publisher in publishers:  # all have imported what they need
        publisher.stdin.close()
    assert [publisher.wait(300) for publisher in publishers] == [0] * 4
    client = MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("race").experiment_id])
    assert (run.info.status, run.data.tags[SEAL_TAG]) == ("FINISHED", sha256_text("{}"))


@pytest.fixture
def server(tmp_path):
    """MLflow's own server."""
    import os
    import signal
    import socket
    import time
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    complete_store(tmp_path / "team.db", tmp_path / "artifacts")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/team.db"),
            *("--artifacts-destination", str(tmp_path / "artifacts")),
        ],
        env={
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        start_new_session=True,
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_two_projects_with_one_content_have_a_run_each(team, content):
    other = MlflowTracker(team.root, team.name, "other-0000beef")
    first, second = team.here.publish(content), other.publish(content)
    assert (first.created, second.created, team.there.publish(content).run_id) == (
        True, True, first.run_id,
    )  # fmt: skip
    assert [run.run_id for run in team.here.runs("")] == [first.run_id]
    assert [run.run_id for run in other.runs("tags.kind = 'variant'")] == [second.run_id]
    assert MlflowTracker(team.root, team.name, None).projects() == [PROJECT, "other-0000beef"]
    assert other.find("tuned").run_id == second.run_id
    assert other.find(first.run_id[:8]).run_id == first.run_id
    assert other.find(content.content_key).run_id == second.run_id
    with pytest.raises(ConfigError, match="--project"):
        MlflowTracker(team.root, team.name, None).find("tuned")
    assert other.set_tags(content.content_key, {"gate": "pass"}) == [second.run_id]


def test_a_receipt_is_asked_for_in_its_project(team, content, monkeypatch):
    team.here.publish(content)
    asked = {contents(content)}
    for project, present in ((PROJECT, asked), ("other-0000beef", set())):
        assert find_published(team.root, team.name, project, asked).present == present
    assert find_published(team.root, "renamed", PROJECT, asked).elsewhere
    assert not find_published(team.root, "renamed", "other-0000beef", asked).elsewhere
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    team.here.publish(content)
    for project, present in ((PROJECT, asked), ("other-0000beef", set())):
        assert find_published(team.root, team.name, project, asked).present == present


def test_notes_are_set_on_the_projects_runs_only(team, content):
    other = MlflowTracker(team.root, team.name, "other-0000beef")
    run_id, foreign_id = (tracker.publish(content).run_id for tracker in (team.here, other))
    notes = {content.content_key: {"verdict": "higher"}}
    comparison = dataclasses.replace(
        content, name="c", content_key="f" * 64, manifest="{}", weights=None, notes=notes
    )
    team.here.publish(comparison)
    verdicts = [team.client.get_run(r).data.tags.get("verdict") for r in (run_id, foreign_id)]
    assert verdicts == ["higher", None]


def test_an_audit_reads_the_projects_runs_only(team, content):
    other = MlflowTracker(team.root, team.name, "other-0000beef")
    run_id, foreign_id = (tracker.publish(content).run_id for tracker in (team.here, other))
    for project, expected in ((PROJECT, run_id), ("other-0000beef", foreign_id)):
        view = read_store(team.root, team.name, project)
        assert [stored.run.run_id for stored in view.runs] == [expected]

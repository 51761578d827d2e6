"""The tracker on a real SQLite store: one sealed run for each content, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import forks
import pytest
from mlflow import MlflowClient

from toxtrail.backends.mlflow.store import tracking_uri
from toxtrail.backends.mlflow.tracker import MlflowTracker
from toxtrail.backends.protocols import (
    EXPERIMENT_PLACEHOLDER,
    DatasetInput,
    LoggedWeights,
    RunContent,
)
from toxtrail.errors import BackendError, ConfigError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.run_tags import KEY_TAG, NONFINITE_TAG, SCHEMA_TAG, SEAL_TAG

pytestmark = pytest.mark.slow

PROJECT = "lab-0000abcd"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One store for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def tracker(root):
    return MlflowTracker(root, "toxtrail", PROJECT)


@pytest.fixture
def client(root):
    return MlflowClient(tracking_uri(root))


@pytest.fixture
def content(request, tmp_path):
    """A content of its own for each test."""
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"rows")
    return RunContent(
        name=request.node.name,
        content_key=sha256_text(request.node.name),
        manifest=json.dumps({"predicate": {"test": request.node.name}}),
        description="**text**",
        tags={"kind": "variant"},
        params={"generation.seed": 7},
        metrics={"judge/all/rate": 0.25},
        curves={"train/loss": [(1, 2.0), (2, 1.5)]},
        inputs=[DatasetInput("prompts", "data/prompts.parquet", "f" * 64, "evaluation")],
        files={"scores.parquet": path, "deep/renamed.parquet": path},
        tables={"tables/generations.json": {"prompt": ["a", "b"], "toxicity": [0.1, None]}},
        weights=LoggedWeights(
            "v", "LoRA adapter", sha256_text(request.node.name), {"file": "hash"}, {"r": "4"}
        ),
    )


def sealed(tracker, content):
    return [
        r for r in tracker.runs(f"tags.`{KEY_TAG}` = '{content.content_key}'") if SEAL_TAG in r.tags
    ]


def stored(client, run_id, name, tmp_path):
    from pathlib import Path

    return Path(client.download_artifacts(run_id, name, str(tmp_path)))


def test_publishing_twice_gives_one_run(tracker, content):
    first, second = tracker.publish(content), tracker.publish(content)
    assert (first.created, second.created) == (True, False)
    assert first.run_id == second.run_id
    assert len(sealed(tracker, content)) == 1


def test_another_content_is_another_run(tracker, content):
    other = dataclasses.replace(content, content_key="0" * 64)
    assert tracker.publish(content).run_id != tracker.publish(other).run_id


def test_a_run_shows_what_was_published(tracker, content, client, tmp_path):
    run_id = tracker.publish(content).run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["judge/all/rate"] == 0.25
    assert [m.value for m in client.get_metric_history(run_id, "train/loss")] == [2.0, 1.5]
    assert run.data.params == {"generation.seed": "7"}
    assert run.data.tags["mlflow.note.content"] == "**text**"
    (data,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in data.tags}["sha256"] == "f" * 64
    assert stored(client, run_id, "deep/renamed.parquet", tmp_path).read_bytes() == b"rows"
    table = json.loads(stored(client, run_id, "tables/generations.json", tmp_path).read_text())
    assert table == {"columns": ["prompt", "toxicity"], "data": [["a", 0.1], ["b", None]]}
    assert "tables/generations.json" in run.data.tags["mlflow.loggedArtifacts"]


def test_the_seal_is_the_hash_of_the_manifest(tracker, content, client, tmp_path):
    run_id = tracker.publish(content).run_id
    manifest = stored(client, run_id, "manifest.json", tmp_path).read_text()
    assert client.get_run(run_id).data.tags[SEAL_TAG] == sha256_text(manifest)


def test_an_adapter_is_one_logged_model_and_goes_with_its_run(tracker, content, client):
    run_id = tracker.publish(content).run_id
    experiment = client.get_run(run_id).info.experiment_id

    def models():
        found = client.search_logged_models([experiment])
        return [m.source_run_id for m in found if m.tags["sha256"] == content.weights.sha256]

    assert models() == [run_id]
    client.delete_tag(run_id, SEAL_TAG)
    again = tracker.publish(content).run_id
    assert again != run_id
    assert models() == [again]


def test_an_unsealed_run_is_replaced(tracker, content, client):
    first = tracker.publish(content)
    client.delete_tag(first.run_id, SEAL_TAG)
    second = tracker.publish(content)
    assert second.created
    assert [run.run_id for run in sealed(tracker, content)] == [second.run_id]


@pytest.mark.parametrize("edit", ["content", "missing"])
def test_a_run_whose_file_was_touched_is_named_and_kept_and_another_made_beside_it(
    tracker, content, root, edit
):
    first = tracker.publish(content)
    path = root / "mlruns/artifacts" / first.run_id / "artifacts/scores.parquet"
    path.write_bytes(b"rowz") if edit == "content" else path.unlink()
    second = tracker.publish(content)
    (remark,) = second.remarks
    assert first.run_id[:8] in remark
    assert "scores.parquet" in remark
    assert {run.run_id for run in sealed(tracker, content)} == {first.run_id, second.run_id}
    assert tracker.publish(content).run_id == second.run_id


def test_values_that_are_not_finite_are_left_out_and_named(tracker, content):
    odd = dataclasses.replace(
        content, metrics={"a/b": float("inf"), "a/c": float("nan"), "a/d": 1.0}
    )
    tracker.publish(odd)
    (run,) = sealed(tracker, content)
    assert run.tags[NONFINITE_TAG] == "a/b, a/c"
    assert set(run.metrics) == {"a/d", "train/loss"}


def test_a_name_that_mlflow_cannot_hold_is_refused_before_anything_is_written(tracker, content):
    with pytest.raises(BackendError, match=r"the name 'p>=0\.5'"):
        tracker.publish(dataclasses.replace(content, metrics={"p>=0.5": 1.0}))
    assert sealed(tracker, content) == []


def test_a_param_that_is_too_long_is_shown_by_its_hash(tracker, content):
    tracker.publish(dataclasses.replace(content, params={"long": "x" * 7000}))
    assert sealed(tracker, content)[0].params["long"].startswith("sha256:")


def test_a_failure_leaves_a_failed_run_that_the_next_one_replaces(tracker, content, tmp_path):
    gone = dataclasses.replace(content, inputs=[None])
    with pytest.raises(AttributeError, match="NoneType"):
        tracker.publish(gone)
    (failed,) = tracker.runs(f"tags.`{KEY_TAG}` = '{content.content_key}'")
    assert (failed.status, SEAL_TAG in failed.tags) == ("FAILED", False)
    assert tracker.publish(content).created
    assert len(tracker.runs(f"tags.`{KEY_TAG}` = '{content.content_key}'")) == 1


def test_a_run_is_found_by_id_name_and_content_key(tracker, content):
    run_id = tracker.publish(content).run_id
    for reference in (run_id, run_id[:8], content.name, content.content_key[:8]):
        assert tracker.find(reference).run_id == run_id
    assert tracker.find("nothing of the kind") is None


def test_a_store_that_was_never_written_has_no_runs_and_is_not_made_by_looking(tmp_path):
    assert MlflowTracker(tmp_path, "toxtrail", PROJECT).runs("") == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_an_error_with_its_cure(tmp_path):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns/mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(BackendError, match=r"delete mlruns/ and run `dvc repro`"):
        MlflowTracker(tmp_path, "toxtrail", PROJECT).runs("")


PUBLISH = """
import os, sys
from pathlib import Path
from toxtrail.backends.protocols import RunContent
from toxtrail.backends.mlflow.tracker import MlflowTracker
from collections.abc import Mapping

class Deadly(dict):
    def items(self):
        os._exit(9)

root, key, deadly = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "die"
content = RunContent(name=key, content_key=key * 64, manifest="{}", description="", tags={},
                     params=Deadly(a=1) if deadly else {"a": 1}, metrics={"m/n": 1.0})
MlflowTracker(root, "toxtrail", "lab-0000abcd").publish(content)
"""


def start(root, key, how):
    """A process that has imported MLflow: those that are started together publish together."""
    return subprocess.Popen([forks.programs() / "python-c", PUBLISH, str(root), key, how])


def test_six_processes_on_an_empty_folder_make_exactly_one_run_for_each_of_three_contents(tmp_path):
    processes = [start(tmp_path, key, "live") for key in "abcabc"]
    assert [process.wait(300) for process in processes] == [0] * 6
    runs = MlflowTracker(tmp_path, "toxtrail", PROJECT).runs("")
    assert sorted(run.name for run in runs) == ["a", "b", "c"]
    assert all(SEAL_TAG in run.tags for run in runs)


def test_a_killed_tracker_leaves_no_sealed_run_and_the_next_one_replaces_it(tmp_path):
    assert start(tmp_path, "k", "die").wait(300) == 9
    tracker = MlflowTracker(tmp_path, "toxtrail", PROJECT)
    assert [SEAL_TAG in run.tags for run in tracker.runs("")] == [False]
    assert start(tmp_path, "k", "live").wait(300) == 0
    assert [SEAL_TAG in run.tags for run in tracker.runs("")] == [True]


def test_notes_are_put_onto_other_runs_and_the_primary_metric_onto_the_experiment(
    tracker, content, client
):
    run_id = tracker.publish(content).run_id
    note = {content.content_key: {"verdict": "higher"}}
    other = dataclasses.replace(
        content, content_key="1" * 64, notes=note, primary_metric="judge/all/rate_pct", weights=None
    )
    for _ in range(2):
        tracker.publish(other)
    assert client.get_run(run_id).data.tags["verdict"] == "higher"
    experiment = client.get_experiment_by_name("toxtrail")
    assert experiment.tags["mlflow.experiment.primaryMetric.name"] == "judge/all/rate_pct"
    assert tracker.publish(content).run_id == run_id


def test_metrics_and_verdict_are_on_the_logged_model(tracker, content, client):
    weights = dataclasses.replace(content.weights, metrics=["judge/all/rate"])
    run_id = tracker.publish(dataclasses.replace(content, weights=weights)).run_id
    comparison = dataclasses.replace(
        content, content_key="2" * 64, weights=None, inputs=[],
        metrics={"b - a/judge/all/diff_pp": 5.0, "judge/all/rate": 0.5},
        model_metrics={"b - a/judge/all/diff_pp": content.content_key},
        notes={content.content_key: {"verdict": "higher"}},
    )  # fmt: skip
    other_id = tracker.publish(comparison).run_id
    (output,) = client.get_run(run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.tags["verdict"] == "higher"
    assert {(m.key, m.value, m.dataset_digest, m.run_id) for m in model.metrics} == {
        ("judge/all/rate", 0.25, "f" * 8, run_id),
        ("b - a/judge/all/diff_pp", 5.0, "f" * 8, other_id),
    }


def test_a_verdict_that_no_longer_holds_is_removed(tracker, content, client):
    run_id = tracker.publish(content).run_id
    for tags in ({"verdict": "higher", "vs_reference": "lower"}, {"verdict": "lower"}):
        note = {content.content_key: tags}
        tracker.publish(
            dataclasses.replace(content, content_key="3" * 64, weights=None, notes=note)
        )
    shown = client.get_run(run_id).data.tags
    (output,) = client.get_run(run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    for tags in (shown, model.tags):
        assert (tags["verdict"], tags.get("vs_reference")) == ("lower", None)


def test_a_link_in_a_description_gets_the_experiments_id(tracker, content, client):
    text = f"[x](#/experiments/{EXPERIMENT_PLACEHOLDER}/runs)"
    run_id = tracker.publish(dataclasses.replace(content, description=text)).run_id
    found = client.get_run(run_id)
    wanted = f"[x](#/experiments/{found.info.experiment_id}/runs)"
    assert found.data.tags["mlflow.note.content"] == wanted


def test_a_run_of_an_older_schema_is_made_again(tracker, content, client):
    first = tracker.publish(content)
    client.set_tag(first.run_id, SCHEMA_TAG, "1")
    assert tracker.publish(content).run_id != first.run_id


def test_a_filter_that_mlflow_cannot_read_is_the_users_mistake(tracker, content):
    tracker.publish(content)
    with pytest.raises(ConfigError, match=r"--filter.*this is no filter"):
        tracker.runs("this is no filter")


def test_looking_does_not_make_an_experiment(root, tracker, content, client):
    tracker.publish(content)
    assert MlflowTracker(root, "another", PROJECT).runs("") == []
    assert client.get_experiment_by_name("another") is None

"""Bytes of a run: given out only if they are those that the run was sealed with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_mlflow import ARTIFACTS, Answer, serving

import toxtrail
from toxtrail.backends.mlflow.fetch_artifacts import RunFiles
from toxtrail.errors import BackendError, DataError, UnreadableError
from toxtrail.provenance.identity import sha256_text
from toxtrail.records.run_tags import PAYLOAD_TAG, SEAL_TAG

RUN, SUMMARY = "a1" * 16, json.dumps({"rate": 0.75})


def sealed(files):
    """(files with their list and manifest, tags): as a run is published."""
    digests = {name: {"sha256": sha256_text(text)} for name, text in files.items()}
    subjects = [{"name": name, "digest": digest} for name, digest in digests.items()]
    manifest = json.dumps({"subject": subjects})
    files = {**files, "manifest.json": manifest}
    payload = {name: sha256_text(text) for name, text in sorted(files.items())}
    listed = json.dumps(payload, sort_keys=True)
    tags = {SEAL_TAG: sha256_text(manifest), PAYLOAD_TAG: sha256_text(listed)}
    return {**files, "payload.json": listed}, tags


FILES, TAGS = sealed({"summary.json": SUMMARY, "posterior/x.nc": "draws"})


@pytest.fixture
def local(tmp_path):
    """(root, the run's folder) of the experiment's own store."""
    folder = tmp_path / "mlruns/artifacts" / RUN / "artifacts"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return tmp_path, folder


@pytest.fixture
def remote(monkeypatch):
    with serving() as fake:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        fake.add(RUN, "v", TAGS, {name: text.encode() for name, text in FILES.items()})
        yield fake


def of(root, tags=TAGS):
    return RunFiles(root, RUN, "v", tags)


def test_what_is_as_sealed_is_given_out(local, remote, monkeypatch):
    root, _ = local
    assert of(root).json("summary.json") == {"rate": 0.75}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert of(root).path("posterior/x.nc").read_text() == "draws"


def resealed(files, tags):
    """The list made to fit the files again, and its tag: only the seal is left."""
    own = {n: sha256_text(t) for n, t in sorted(files.items()) if n != "payload.json"}
    listed = json.dumps(own, sort_keys=True)
    return {**files, "payload.json": listed}, {**tags, PAYLOAD_TAG: sha256_text(listed)}


CHANGED = {**FILES, "summary.json": json.dumps({"rate": 0.01})}
LISTED = resealed(CHANGED, TAGS)
TAMPERINGS = {
    "the file": (CHANGED, TAGS, "summary.json"),
    "the file and its list": (LISTED[0], TAGS, "payload.json"),
    "the file, its list and the tag of the list": (*LISTED, "summary.json"),
    "the manifest": ({**FILES, "manifest.json": "{}"}, TAGS, "manifest.json"),
    "a list that is none": ({**FILES, "payload.json": "[]"}, TAGS, "payload.json"),
    "a seal that is gone": (FILES, {PAYLOAD_TAG: TAGS[PAYLOAD_TAG]}, "manifest.json"),
    "a list without a tag": (FILES, {SEAL_TAG: TAGS[SEAL_TAG]}, PAYLOAD_TAG),
}


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("how", list(TAMPERINGS))
def test_no_byte_of_a_changed_run_is_given_out(how, where, local, request):
    files, tags, named = TAMPERINGS[how]
    root, folder = local
    for name, text in files.items():
        (folder / name).write_text(text)
    if where == "remote":
        fake = request.getfixturevalue("remote")
        fake.add(RUN, "v", tags, {name: text.encode() for name, text in files.items()})
    with pytest.raises(DataError, match=re.escape(named)):
        of(root, tags).path("summary.json")


def test_a_file_that_is_not_of_the_run_and_one_that_is_lost_are_two_things(local, remote):
    root, _ = local
    with pytest.raises(DataError, match=r"no file nothing\.json"):
        of(root).path("nothing.json")
    del remote.files[RUN]["summary.json"]
    with pytest.raises(DataError, match=r"lost its file summary\.json"):
        of(root).path("summary.json")


FAULTS = {
    "503": (Answer(503, "busy"), "503"),
    "403": (Answer(403, "Permission denied"), "403"),
    "500": (Answer(500, '{"error_code": "INTERNAL_ERROR", "message": "no bucket"}'), "500"),
    "a login page": (Answer(200, "<!DOCTYPE html><title>Sign in</title>"), "login page"),
}


@pytest.mark.parametrize("only", ["files", "files and lists"])
@pytest.mark.parametrize("how", list(FAULTS))
def test_a_store_that_cannot_be_read_is_never_called_empty_or_changed(local, remote, how, only):
    root, _ = local
    answer, said = FAULTS[how]
    start = ARTIFACTS if only == "files and lists" else f"{ARTIFACTS}/"
    remote.fails = lambda method, path: answer if path.startswith(start) else None
    with pytest.raises(UnreadableError) as caught:
        of(root).path("summary.json")
    assert "could not be read" in str(caught.value)
    assert said in str(caught.value)


def test_a_store_that_lists_nothing_at_all_is_not_proof_of_a_loss(local, remote):
    remote.files[RUN].clear()
    with pytest.raises(BackendError):
        of(local[0]).path("summary.json")


def test_without_a_database_files_are_held_against_their_own_list(local):
    root, folder = local
    assert of(root, None).json("summary.json") == {"rate": 0.75}
    (folder / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="was changed"):
        of(root, None).path("summary.json")


def test_there_is_no_second_way_to_the_bytes_of_a_store():
    """Whoever calls MLflow's own download gets what anybody may have put there."""
    raw = re.compile(r"\bdownload_artifacts\b|\bload_(?:text|dict|table|artifact)\b")
    source = Path(toxtrail.__file__).parent
    callers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if raw.search(path.read_text("utf-8"))
    }
    assert callers == {"backends/mlflow/fetch_artifacts.py"}

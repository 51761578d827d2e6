"""Records of executions, as the MLflow run of a variant takes them in."""

from __future__ import annotations

import json

import pytest

from toxtrail.execution.execution_records import damaged_records, read_executions
from toxtrail.provenance.identity import sha256_file
from toxtrail.storage.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path)


@pytest.fixture
def files(tmp_path):
    paths = {n: tmp_path / n for n in ("model.json", "generations.parquet", "scores.parquet")}
    for path in paths.values():
        path.write_text(path.name)
    return paths


def record(store, files, **changes):
    digest = sha256_file(files["scores.parquet"])
    return {"output_sha256": digest, "cost": {"seconds": 1.5}, **changes}


def test_a_record_of_these_files_is_taken_in(store, files):
    value = record(store, files)
    store.write_json(store.execution_record_path("score", "v"), value)
    assert read_executions(store, "v", files) == {"score": value}
    assert damaged_records(store, "v") == []


def test_a_record_of_another_execution_is_left_out(store, files):
    store.write_json(
        store.execution_record_path("score", "v"), record(store, files, output_sha256="0" * 64)
    )
    assert read_executions(store, "v", files) == {}
    assert damaged_records(store, "v") == []


@pytest.mark.parametrize(
    "text",
    ["", '{"output_sha', "[]", "{}", json.dumps({"output_sha256": "0", "cost": {"s": "x"}}),
     json.dumps({"output_sha256": "0"}), "\x00\x00"],
)  # fmt: skip
def test_a_damaged_record_is_left_out_and_named(store, files, text):
    store.write_text(store.execution_record_path("score", "v"), text)
    assert read_executions(store, "v", files) == {}
    (remark,) = damaged_records(store, "v")
    assert "data/records/score/v.json" in remark

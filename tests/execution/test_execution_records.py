"""Records of executions, as the MLflow run of a variant takes them in."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.execution.execution_records import (
    damaged_records,
    find_record,
    read_executions,
    record_paths,
    records_dir,
    relative_name,
    write_record,
)
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


def write(store, files, **changes):
    digest = sha256_file(files["scores.parquet"])
    value = {"stage": "score", "key": "v", "output_sha256": digest, "started": "2026-01-02"}
    write_record(store, {**value, "cost": {"seconds": 1.5}, **changes})


def test_a_record_of_these_files_is_taken_in(store, files):
    write(store, files)
    (record,) = read_executions(store, "v", files).values()
    assert record["cost"] == {"seconds": 1.5}
    (path,) = record_paths(store, "score", "v")
    assert record["seal"].startswith(path.stem)
    assert damaged_records(store, "v") == []


def test_a_record_of_another_execution_is_left_out(store, files):
    write(store, files, output_sha256="0" * 64)
    assert read_executions(store, "v", files) == {}
    assert damaged_records(store, "v") == []


@given(st.permutations([("2026-01-02", 9.0), ("2026-01-03", 0.1), ("2026-01-03", 0.2)]))
def test_the_first_execution_counts_in_any_order(executions):
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        for started, seconds in executions:
            cost = {"seconds": seconds}
            base = {"stage": "score", "key": "v", "output_sha256": "a", "started": started}
            write_record(store, {**base, "cost": cost})
        assert len(record_paths(store, "score", "v")) == 3
        found = find_record(store, "score", "v", "a")
        assert found.content["cost"] == {"seconds": 9.0}


@pytest.mark.parametrize(
    "text",
    ["", '{"output_sha', "[]", "{}", json.dumps({"output_sha256": "0", "cost": {"s": "x"}}),
     json.dumps({"output_sha256": "0"}), "\x00\x00"],
)  # fmt: skip
def test_a_damaged_record_is_left_out_and_named(store, files, text):
    store.write_text(records_dir(store, "score", "v") / "1.json", text)
    assert read_executions(store, "v", files) == {}
    (remark,) = damaged_records(store, "v")
    assert "data/records/score/v/1.json" in remark
    write(store, files)
    assert list(read_executions(store, "v", files)) == ["score"]


def test_a_temporary_copy_of_dvc_uses_the_records_of_the_experiment(tmp_path):
    copy = ArtifactStore(tmp_path / ".dvc/tmp/exps/tmp1")
    assert records_dir(copy, "score", "v") == tmp_path / "data/records/score/v"
    assert records_dir(ArtifactStore(tmp_path), "score", "v") == tmp_path / "data/records/score/v"


@pytest.mark.parametrize("key", ["v", "records", "data"])
def test_the_relative_name_of_a_record_does_not_depend_on_the_names_in_it(tmp_path, key):
    store = ArtifactStore(tmp_path / "data" / "records")
    write_record(store, {"stage": "score", "key": key, "output_sha256": "00"})
    (path,) = record_paths(store, "score", key)
    assert relative_name(path) == path.relative_to(store.root).as_posix()

"""A record of an execution is as it was written, or it is named."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.auditing.verify.executions import verify_executions
from toxtrail.auditing.verify.hash_cache import HashCache
from toxtrail.backends.protocols import NoProgress
from toxtrail.execution.execution_records import record_name, record_paths, write_record
from toxtrail.pipeline import StageRun, get_stage
from toxtrail.provenance.identity import execution_record_hash, sha256_file
from toxtrail.storage.artifacts import ArtifactStore

NOTHING = {name: {} for name in ("models", "finetunes", "variants", "families")}


@pytest.fixture
def scene(tmp_path):
    """One score file with its record."""
    out = tmp_path / "data/scores/f/v.parquet"
    out.parent.mkdir(parents=True)
    out.write_bytes(b"rows")
    store = ArtifactStore(tmp_path)
    stage = get_stage("score")
    one = StageRun(stage, "v", (), (), ("data/scores/f/v.parquet",))
    evidence = SimpleNamespace(
        root=tmp_path,
        store=store,
        path=lambda n: tmp_path / n,
        committed={},
        digests=HashCache(NoProgress()),
        config=SimpleNamespace(model_dump=lambda **_: NOTHING),
    )
    record = {
        "stage": "score",
        "key": "v",
        "output_sha256": sha256_file(out),
        "commit": "c" * 40,
        "host": "here",
        "cost": {"seconds": 1.0},
    }
    write_record(store, record)
    (path,) = record_paths(store, "score", "v")

    def outcomes(**changes):
        path.write_text(json.dumps({**record, "seal": execution_record_hash(record), **changes}))
        return [check.outcome for check in verify_executions(evidence, [one])]

    return outcomes, evidence, one, path


def test_an_untouched_record_stands(scene):
    outcomes, *_ = scene
    assert outcomes() == ["ok"]


@pytest.mark.parametrize(
    "change", [{"commit": "d" * 40}, {"host": "there"}, {"more": 1}, {"seal": None}]
)
def test_an_edited_record_is_broken(scene, change):
    outcomes, *_ = scene
    assert outcomes(**change) == ["BROKEN"]


def test_a_record_of_another_file_or_none_says_nothing(scene):
    outcomes, evidence, one, path = scene
    (evidence.root / one.writes[0]).write_bytes(b"other rows")
    assert outcomes() == ["ok", "absent"]
    path.unlink()
    assert [c.outcome for c in verify_executions(evidence, [one])] == ["absent"]


def test_a_record_without_its_seal_of_another_stage_run_or_renamed_is_broken(scene):
    outcomes, evidence, one, path = scene
    outcomes()
    value = json.loads(path.read_text())
    del value["seal"]
    path.write_text(json.dumps(value))
    assert [c.outcome for c in verify_executions(evidence, [one])] == ["BROKEN"]
    seal = execution_record_hash({**value, "key": "w"})
    path.unlink()
    path.with_name(record_name(seal)).write_text(json.dumps({**value, "key": "w", "seal": seal}))
    assert [c.outcome for c in verify_executions(evidence, [one])] == ["BROKEN"]
    path.with_name(record_name(seal)).unlink()
    path.with_name("1.json").write_text(json.dumps({**value, "seal": execution_record_hash(value)}))
    assert [c.outcome for c in verify_executions(evidence, [one])] == ["BROKEN"]


def test_records_of_older_outputs_are_checked_too(scene):
    outcomes, evidence, one, path = scene
    outcomes()
    value = json.loads(path.read_text())
    del value["seal"]
    write_record(evidence.store, {**value, "output_sha256": "0" * 64})
    (other,) = {*record_paths(evidence.store, "score", "v")} - {path}
    assert [c.outcome for c in verify_executions(evidence, [one])] == ["ok", "ok"]
    other.write_text(other.read_text().replace("here", "there"))
    checks = list(verify_executions(evidence, [one]))
    assert [c.name for c in checks if c.outcome == "BROKEN"] == [
        other.relative_to(evidence.root).as_posix()
    ]


def test_a_damaged_record_is_named(scene):
    _, evidence, one, path = scene
    for content in ("", "[]", "{"):
        path.write_text(content)
        (check,) = verify_executions(evidence, [one])
        assert (check.outcome, check.name) == (
            "BROKEN", path.relative_to(evidence.root).as_posix()
        )  # fmt: skip


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_seal_does_not_cover_itself(record):
    assert execution_record_hash({**record, "seal": "x"}) == execution_record_hash(
        {**record, "seal": "y"}
    )

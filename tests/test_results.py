"""Runs as they are listed: the newest whole one of each name, a parent before what came from it."""

from __future__ import annotations

import pytest

from toxtrail.backends.mlflow.write_run import SCHEMA_VERSION
from toxtrail.backends.protocols import TrackedRun
from toxtrail.cli._runs_checks import CheckedRun
from toxtrail.cli._runs_table import run_rows, show
from toxtrail.errors import DataError
from toxtrail.records.run_tags import SCHEMA_TAG, SEAL_TAG
from toxtrail.results import newest_per_name, require_sealed, run_state, runs_by_family

ORIGIN = {"origin": "texts handed in"}


def run(name, parent="", sealed=True, start=0, schema=SCHEMA_VERSION, status="FINISHED", **metrics):
    tags = {
        "kind": "variant", "family": "f", "parent": parent,
        "scorer": "judge", SCHEMA_TAG: schema,
    }  # fmt: skip
    if sealed:
        tags[SEAL_TAG] = "x"
    return TrackedRun(f"{name}{start:030d}", name, status, start, tags, {}, metrics)


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (run("a"), "sealed"),
        (run("a", sealed=False, status="RUNNING"), "in progress"),
        (run("a", sealed=False, status="FAILED"), "failed"),
        (run("a", sealed=False), "failed"),
        (run("a", schema="1"), "schema 1"),
    ],
)
def test_a_run_is_in_one_state_and_only_a_sealed_one_is_used(one, state):
    assert run_state(one) == state
    if state == "sealed":
        assert require_sealed(one) is one
    else:
        with pytest.raises(DataError, match=r"dvc repro|toxtrail stage track a"):
            require_sealed(one)


def test_the_newest_whole_run_of_a_name_is_the_latest():
    runs = [
        run("a", sealed=False, start=3),
        run("a", start=2),
        run("a", start=1),
        run("b", start=0),
    ]
    assert [(r.name, r.start_time) for r in newest_per_name(runs)] == [("a", 2), ("b", 0)]
    assert [r.start_time for r in newest_per_name(runs[:1])] == [3]


def test_a_parent_stands_before_what_was_tuned_from_it_and_a_circle_ends():
    runs = [run("a", "c"), run("b", "a"), run("c"), run("d", "e"), run("e", "d")]
    names = [r.name for r in runs_by_family(runs)["f"]]
    assert names.index("c") < names.index("a") < names.index("b")
    assert set(names) == {"a", "b", "c", "d", "e"}


def test_a_tidy_row_has_the_primary_rate_and_the_costs():
    metrics = {"judge/all/rate_pct": 25.0, "stages/generate_seconds": 3.0}
    (row,) = run_rows([CheckedRun(run("a", **metrics), "ok", ())])
    assert (row["rate"], row["cost_generate_seconds"], row["state"]) == (0.25, 3.0, "sealed")


def test_texts_that_were_handed_in_or_served_mark_a_run_as_weak(capsys):
    weak = run("a")._replace(tags={**run("a").tags, **ORIGIN})
    rows = [CheckedRun(each, "ok", ()) for each in (weak, run("b"))]
    assert [row["origin"] for row in run_rows(rows)] == ["texts handed in", None]
    show(rows, False, "md", several_projects=False)
    lines = capsys.readouterr().out.splitlines()
    assert ["weak" in line for line in lines if line.startswith("| a")] == [True]
    assert any("1 of 2" in line and "a (texts handed in)" in line for line in lines)

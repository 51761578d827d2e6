"""Comparing across runs: from MLflow alone, in every form; and what goes wrong is one sentence."""

from __future__ import annotations

import csv
import io
import shutil
import sqlite3
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from conftest import Lab

pytestmark = pytest.mark.slow


@pytest.fixture
def elsewhere(finished, tmp_path):
    """A folder without any file of the experiment, that knows where the team's store is."""
    store = f"sqlite:///{finished.root}/mlruns/mlflow.db"
    return Lab(
        tmp_path,
        {**finished.env, "MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "toxtrail"},
    )


def plain(done):
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("Error: ")


def test_everything_is_compared_from_mlflow_alone(finished, elsewhere):
    here, there = finished.json("compare")[0], elsewhere.json("compare", "--all")[0]
    assert there == here
    assert elsewhere.json("compare", "tiny")[0] == here
    assert "MLflow run tiny comparison" in elsewhere.toxtrail("compare").stdout
    flips = elsewhere.json("flips", "base", "tuned")
    assert flips["flips"] == finished.json("flips", "base", "tuned")["flips"]
    assert {run["name"] for run in elsewhere.json("runs")} == {"base", "tuned", "tiny comparison"}
    differing = elsewhere.json("diff", "base", "tuned")["differences"]
    assert {one["section"] for one in differing} >= {"params", "data", "weights", "numbers"}
    assert "tuned against base" in elsewhere.toxtrail("card", "tuned").stdout
    assert list(elsewhere.root.iterdir()) == []


def test_two_runs_and_a_filter_give_the_pair_that_the_family_has(finished):
    (family,) = finished.json("compare")
    wanted = {row["subset"]: (row["n"], row["n01"], row["n10"]) for row in family["pairs"]}
    query = "tags.family = 'tiny' and tags.kind = 'variant'"
    for arguments in (("base", "tuned"), ("--filter", query)):
        (found,) = finished.json("compare", *arguments)
        rows = {row["subset"]: (row["n"], row["n01"], row["n10"]) for row in found["pairs"]}
        assert rows == wanted
        assert {row["relation"] for row in found["pairs"]} == {"parent"}
    (turned,) = finished.json("compare", "tuned", "base")
    (overall,) = [row for row in turned["pairs"] if row["subset"] == "all"]
    assert (overall["n10"], overall["n01"]) == wanted["all"][1:]


def test_every_form_has_the_same_rows(finished):
    (family,) = finished.json("compare")
    rows = list(csv.DictReader(io.StringIO(finished.toxtrail("compare", "--csv").stdout)))
    assert [row["subset"] for row in rows] == ["all", "one", "two"]
    known = {row["subset"]: row for row in family["pairs"]}
    assert all(float(row["diff"]) == known[row["subset"]]["diff"] for row in rows)
    markdown = finished.toxtrail("compare", "--md", "--subset", "two").stdout
    assert "| tuned | base (parent) | two | 8 | 1 |" in markdown
    latex = finished.toxtrail("compare", "--latex").stdout
    assert r"\begin{longtable}" in latex
    assert "tuned & base (parent) & two & 8 & 1 &" in latex


def test_flips_are_counted_listed_and_written_and_texts_only_on_demand(finished, tmp_path):
    found = finished.json("flips", "base", "tuned")
    pairs = {row["subset"]: row for row in finished.json("compare")[0]["pairs"]}
    for subset, own in found["counts"].items():
        assert (own["became_toxic"], own["became_harmless"]) == (
            pairs[subset]["n01"], pairs[subset]["n10"],
        )  # fmt: skip
    assert len(found["flips"]) == pairs["all"]["n01"] + pairs["all"]["n10"] > 0
    changes = [abs(row["change"]) for row in found["flips"] if row["direction"] == "became toxic"]
    assert changes == sorted(changes, reverse=True)
    texts = {row.text for row in _generations(finished, "tuned") if row.text}
    masked = finished.toxtrail("flips", "base", "tuned").stdout
    assert not any(text in masked for text in texts if len(text) > 8)
    shown = finished.toxtrail("flips", "base", "tuned", "--show-text").stdout
    assert "Content warning" in shown
    assert any(text in shown for text in texts if len(text) > 8)
    target = tmp_path / "flips.parquet"
    finished.toxtrail("flips", "base", "tuned", "--show-text", "--to", str(target))
    rows = pq.read_table(target).to_pylist()
    assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in found["flips"]]
    assert all(row["text_b"] in texts | {""} for row in rows)
    done = finished.toxtrail("flips", "base", "tuned", "--to", str(target), code=1)
    assert "exists" in plain(done)


def _generations(lab, variant):
    from toxtrail.storage.artifacts import ArtifactStore

    return ArtifactStore(lab.root).read_generations("tiny", variant)


def test_the_tree_shows_who_was_tuned_from_whom_and_the_list_what_it_cost(finished):
    tree = finished.toxtrail("runs", "--tree").stdout
    assert tree.index("base") < tree.index("└── tuned") < tree.index("tiny comparison")
    cost = finished.toxtrail("runs", "--resources", "--latest").stdout
    assert "tokens/s" in cost
    assert "Together" in cost
    rows = list(csv.DictReader(io.StringIO(finished.toxtrail("runs", "--csv").stdout)))
    assert {row["state"] for row in rows} == {"sealed"}
    assert float(next(r for r in rows if r["name"] == "tuned")["cost_generate_seconds"]) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "tags.role = 'nobody'"], "no run matches"),
        (["--filter", "tags.role = 'tuned'"], "needs two runs"),
        (["--filter", "tags.toxtrail.role ~ 'x'"], "MLflow cannot"),
        (["base", "tunde"], 'Did you mean "tuned"?'),
        (["tinny"], 'Did you mean "tiny"?'),
        (["--subset", "tow"], 'Did you mean "two"?'),
        (["--scorer", "juge"], 'Did you mean "judge"?'),
        (["base", "base"], "are the same"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_with_the_next_step(finished, arguments, said):
    assert said in plain(finished.toxtrail("compare", *arguments, code=1))


def test_no_runs_yet_is_said_with_what_makes_them(lab):
    assert "no runs" in lab.toxtrail("runs").stdout
    for command in (["compare", "--all"], ["flips", "base", "tuned"], ["diff", "base", "tuned"],
                    ["compare", "--filter", "metrics.x > 1"]):  # fmt: skip
        assert "toxtrail run" in plain(lab.toxtrail(*command, code=1))
    assert not (lab.root / "mlruns/mlflow.db").exists()


def test_a_server_that_is_down_is_named_with_its_cure(elsewhere):
    down = Lab(elsewhere.root, {**elsewhere.env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    for command in ("runs", "compare"):
        said = plain(down.toxtrail(command, code=1))
        assert "http://127.0.0.1:9" in said
        assert "MLFLOW_TRACKING_URI" in said
        assert "delete mlruns" not in said


def test_without_an_experiment_and_without_a_server_both_ways_are_said(elsewhere):
    env = {k: v for k, v in elsewhere.env.items() if not k.startswith("MLFLOW_")}
    said = plain(Lab(elsewhere.root, env).toxtrail("compare", "--all", code=1))
    assert "MLFLOW_TRACKING_URI" in said


def test_unfinished_and_foreign_runs_are_refused_with_the_reason(breakable):
    lab = breakable

    def change(statement):
        with sqlite3.connect(lab.root / "mlruns/mlflow.db") as database:
            database.execute(statement)

    own = "run_uuid = (SELECT run_uuid FROM runs WHERE name = 'tuned')"
    change(f"UPDATE tags SET value = '1' WHERE key = 'toxtrail.schema' AND {own}")
    said = plain(lab.toxtrail("compare", "base", "tuned", code=1))
    assert "(schema 1" in said
    assert "toxtrail stage track tuned" in said
    change(f"DELETE FROM tags WHERE key = 'toxtrail.seal' AND {own}")
    change("UPDATE runs SET status = 'RUNNING' WHERE name = 'tuned'")
    assert "still in progress" in plain(lab.toxtrail("compare", "base", "tuned", code=1))
    change("UPDATE runs SET status = 'FAILED' WHERE name = 'tuned'")
    assert "was never finished" in plain(lab.toxtrail("diff", "base", "tuned", "--mlflow", code=1))
    assert " sealed runs" in lab.toxtrail("runs").stdout
    lab.toxtrail("stage", "track", "tuned")
    lab.toxtrail("compare", "base", "tuned")


def test_dvc_shows_the_numbers_of_a_comparison(finished):
    command = [sys.executable, "-m", "dvc", "metrics", "show", "--json"]
    done = subprocess.run(
        command, cwd=finished.root, env=finished.env, capture_output=True, text=True, check=True
    )
    (overall,) = [r for r in finished.json("compare")[0]["pairs"] if r["subset"] == "all"]
    assert f'"difference_pp": {round(100 * overall["diff"], 3)}' in done.stdout


def test_finished_variants_are_compared_and_the_others_named(breakable):
    lab = breakable
    (whole,) = lab.json("compare")
    assert whole["unfinished"] == []
    params = lab.params
    lab.edit(
        finetunes={"later": params["finetunes"]["tuned"]},
        variants={"later": {**params["variants"]["tuned"]}},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "later"]}},
    )
    (part,) = lab.json("compare")
    later = {"variant": "later", "state": "not finished", "reason": "no generations yet"}
    assert part["unfinished"] == [later]
    numbers = ("a", "b", "scorer", "subset", "diff", "diff_lo", "diff_hi", "verdict")
    assert [[row[name] for name in numbers] for row in part["pairs"]] == [
        [row[name] for name in numbers] for row in whole["pairs"]
    ]
    said = lab.toxtrail("compare", "tiny").stdout
    assert "later (no generations yet)" in said
    assert "toxtrail run tiny" in said
    warned = lab.toxtrail("compare", "--csv").stderr
    assert "later (no generations yet)" in warned
    for folder in ("comparisons", "pooled"):
        shutil.rmtree(lab.root / "results" / folder, ignore_errors=True)
    (lab.root / "data/scores/tiny/tuned.parquet").unlink()
    (alone,) = lab.json("compare")
    assert {row["variant"] for row in alone["rates"]} == {"base"}
    assert [row["reason"] for row in alone["unfinished"]] == ["no scores yet", "no generations yet"]
    shutil.rmtree(lab.root / "results/posteriors")
    store = lab.root / "mlruns"
    store.rename(lab.root / "elsewhere")
    failed = lab.toxtrail("compare", code=1)
    assert failed.stdout == ""
    for word in ("no rates yet", "tuned (no scores yet)", "toxtrail run tiny"):
        assert word in failed.stderr


def test_outdated_numbers_are_never_printed_without_a_word(breakable):
    lab = breakable
    lab.edit(posterior={"threshold": {"judge": 0.4}})
    shown = lab.toxtrail("compare")
    assert "Older than params.yaml" in shown.stdout
    assert "posterior.threshold.judge" in shown.stdout
    assert "is outdated" in shown.stderr
    (values,) = lab.json("compare")
    assert [row["state"] for row in values["unfinished"]] == ["outdated", "outdated"]

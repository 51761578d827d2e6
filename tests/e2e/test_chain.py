"""The whole chain: what runs when, what MLflow shows, whether the table is what the files say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
FAKE_SRUN = Path(__file__).with_name("fake_srun")
VARIANT_STAGES = {"generate", "score", "posterior", "track"}


def stages_run(output: str) -> set[str]:
    """The stages that DVC says it runs (not those it skips or takes from its cache)."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def sealed(lab):
    return {run["name"]: run for run in lab.json("runs") if "toxtrail.seal" in run["tags"]}


def test_a_second_run_recomputes_nothing(finished):
    before = finished.outputs()
    again = finished.toxtrail("run")
    assert stages_run(again.stdout) == set()
    assert finished.outputs() == before
    assert finished.json("status") == {
        "stages": {},
        "files": [],
        "code": [],
        "not_known": [],
        "running": None,
        "damage": None,
        "mlflow": {"store": "mlruns/mlflow.db", "notes": []},
        "uncommitted_records": [],
        "not_pulled": [],
        "other_bytes": None,
    }


def test_the_tables_numbers_are_those_of_the_parquet_files(finished):
    """Recomputed from the files with nothing of toxtrail."""
    (summary,) = finished.json("compare")
    toxic = {}
    for variant in ("base", "tuned"):
        path = finished.root / f"data/scores/tiny/{variant}.parquet"
        rows = [row for row in pq.read_table(path).to_pylist() if row["state"] == "ok"]
        toxic[variant] = {row["prompt_id"]: row["toxicity"] >= 0.5 for row in rows}
        subsets = {row["prompt_id"]: row["subset"] for row in rows}
        for rate in (r for r in summary["rates"] if r["variant"] == variant):
            own = [t for p, t in toxic[variant].items() if rate["subset"] in ("all", subsets[p])]
            assert (rate["n_scored"], rate["n_toxic"]) == (len(own), sum(own))
            assert rate["rate"] == pytest.approx(sum(own) / len(own))
    (pair,) = [p for p in summary["pairs"] if p["subset"] == "all"]
    both = [(toxic["base"][p], toxic["tuned"][p]) for p in toxic["base"].keys() & toxic["tuned"]]
    assert pair["n"] == len(both)
    assert pair["n10"] == sum(a and not b for a, b in both)
    assert pair["n01"] == sum(b and not a for a, b in both)


def test_every_prompt_is_in_every_variant(finished):
    prompts = {
        r["prompt_id"] for r in pq.read_table(finished.root / "data/prompts.parquet").to_pylist()
    }
    for variant in ("base", "tuned"):
        rows = pq.read_table(finished.root / f"data/generations/tiny/{variant}.parquet").to_pylist()
        assert {row["prompt_id"] for row in rows} == prompts
        assert {row["state"] for row in rows} <= {"ok", "empty"}


def test_mlflow_has_one_sealed_run_for_each_variant_and_family(finished):
    runs = sealed(finished)
    assert set(runs) == {"base", "tuned", "tiny comparison"}
    record = json.loads(
        (
            finished.root / "mlruns/artifacts" / runs["tuned"]["run_id"] / "artifacts/record.json"
        ).read_text("utf-8")
    )
    assert len(record["hashes"]["training_data_sha256"]) == 64
    assert not [name for name in runs["tuned"]["tags"] if len(name) > 15 and "mlflow" not in name]
    assert len(finished.json("runs")) == 3


def test_a_deleted_store_is_rebuilt_and_nothing_else_runs(breakable):
    lab = breakable
    lock = (lab.root / "dvc.lock").read_bytes()
    shutil.rmtree(lab.root / "mlruns")
    again = lab.toxtrail("run")
    assert {name.split("@")[0] for name in stages_run(again.stdout)} == {
        "track",
        "track-comparison",
    }
    assert set(sealed(lab)) == {"base", "tuned", "tiny comparison"}
    assert (lab.root / "dvc.lock").read_bytes() == lock


def test_a_new_variant_runs_alone_and_brings_its_family_up_to_date(breakable):
    lab = breakable
    recipe = {**lab.params["finetunes"]["tuned"], "parent": "tuned", "seed": 4}
    lab.edit(
        finetunes={"again": recipe},
        variants={"again": {"family": "tiny", "role": "again", "parent": "tuned"}},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "again"]}},
    )
    run = lab.toxtrail("run")
    expected = {"finetune@again", "pool@tiny", "compare@tiny", "track-comparison@tiny", "report"}
    assert stages_run(run.stdout) == expected | {f"{stage}@again" for stage in VARIANT_STAGES}
    card = yaml.safe_load((lab.root / "models/again/model.json").read_text("utf-8"))
    assert [adapter["key"] for adapter in card["adapters"]] == ["tuned", "again"]
    (summary,) = lab.json("compare")
    edges = {(pair["a"], pair["b"], pair["relation"]) for pair in summary["pairs"]}
    assert edges == {
        ("base", "tuned", "parent"),
        ("tuned", "again", "parent"),
        ("base", "again", "reference"),
    }


def test_a_new_threshold_scores_nothing_again(breakable):
    lab = breakable
    lab.edit(posterior={"threshold": {"judge": 0.6}})
    ran = {name.split("@")[0] for name in stages_run(lab.toxtrail("run").stdout)}
    assert ran == {"posterior", "pool", "compare", "track", "track-comparison", "report"}


@pytest.mark.parametrize(
    "runtime",
    [
        {"batch_tokens": 4096, "score_batch_size": 64, "checkpoint_steps": 3},
        {"engine": "plain"},
        {"processes": 2},
    ],
    ids=["batches", "engine", "processes"],
)
def test_speed_settings_re_run_nothing_and_change_no_row(breakable, runtime):
    lab = breakable
    lab.edit(runtime=runtime)
    assert lab.json("status")["stages"] == {}
    before = lab.outputs()
    shutil.rmtree(lab.root / ".toxtrail/rows")
    for stage in ("generate", "score"):
        lab.toxtrail("stage", stage, "tuned")
    changed = {name for name, content in lab.outputs().items() if before[name] != content}
    assert changed == set()


def test_a_launcher_runs_the_heavy_stages_and_changes_no_row(breakable, tmp_path):
    log = tmp_path / "srun.log"
    lab = type(breakable)(breakable.root, {**breakable.env, "FAKE_SRUN_LOG": str(log)})
    lab.edit(runtime={"launcher": [str(FAKE_SRUN), "--gres=gpu:1"]})
    before = lab.outputs()
    shutil.rmtree(lab.root / ".toxtrail/rows")
    for stage, name in (("generate", "tuned"), ("score", "tuned"), ("posterior", "tuned")):
        lab.toxtrail("stage", stage, name)
    assert [line.split()[-3:] for line in log.read_text().splitlines()] == [
        ["stage", "generate", "tuned"],
        ["stage", "score", "tuned"],
    ]
    assert lab.outputs() == before
    lab.edit(runtime={"launcher": ["no-such-launcher"]})
    assert "no-such-launcher" in lab.toxtrail("stage", "score", "tuned", code=1).stderr
    lab.edit(runtime={"launcher": ["false"]})
    assert "`false`" in lab.toxtrail("stage", "score", "tuned", code=1).stderr


def test_the_slurm_example_runs_one_job_for_each_variant(breakable, tmp_path):
    log, folder = tmp_path / "sbatch.log", tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").symlink_to(FAKE_SRUN.with_name("fake_sbatch"))
    programs = (folder, forks.programs(), Path(sys.executable).parent)
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    before = breakable.outputs()
    shutil.rmtree(breakable.root / "data/scores")
    done = subprocess.run(
        ["bash", str(PROJECT / "docs/examples/slurm.sh")], cwd=breakable.root, text=True,
        env={**breakable.env, "PATH": path, "FAKE_SBATCH_LOG": str(log)}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(log.read_text().splitlines()) == [
        f"toxtrail stage generate {name} && toxtrail stage score {name}"
        for name in ("base", "tuned")
    ]
    assert breakable.outputs() == before


def test_side_by_side_gives_the_same_files(finished, new_lab):
    lab = new_lab("other")
    lab.toxtrail("pin")
    lab.toxtrail("run", "--jobs", "2")
    assert lab.outputs() == finished.outputs()


def test_the_report_is_one_file_and_holds_generated_texts_in_its_data_block_alone(finished):
    page = (finished.root / "report/index.html").read_text("utf-8")
    assert "not decisive" in page or "higher" in page or "lower" in page
    page = re.sub(r'<script type="application/json" id="flips-\d+">.*?</script>', "", page)
    rows = pq.read_table(finished.root / "data/generations/tiny/base.parquet").to_pylist()
    assert all(row["text"] not in page for row in rows if len(row["text"]) > 8)
    namespaces = ("http://www.w3.org", "http://purl.org", "http://creativecommons.org/ns#")
    found = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert all(one.startswith(namespaces) for one in found)


def test_a_copied_experiment_never_writes_into_the_one_it_was_copied_from(breakable, tmp_path):
    copied = type(breakable)(tmp_path / "copied", breakable.env)
    shutil.copytree(breakable.root, copied.root, symlinks=True)
    assert "was moved or copied" in copied.toxtrail("runs", code=1).stderr
    shutil.rmtree(copied.root / "mlruns")
    copied.toxtrail("run")
    assert set(sealed(copied)) == {"base", "tuned", "tiny comparison"}
    assert len(breakable.json("runs")) == 3


def test_an_adapter_from_elsewhere_is_applied_and_says_what_is_not_known_of_it(breakable):
    """The adapter that was trained here, taken as if it were somebody else's: the same text."""
    lab = breakable
    shutil.copytree(lab.root / "models/tuned/adapters/tuned", lab.root / "assets/lora")
    base = lab.params["models"]["base"]
    lab.edit(
        models={"borrowed": {**base, "adapter": {"uri": "file:assets/lora"}}},
        variants={"borrowed": {"family": "tiny", "role": "community", "parent": "base"}},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "borrowed"]}},
    )
    assert "file:assets/lora has no pin" in lab.toxtrail("check").stdout
    lab.toxtrail("run", "score@borrowed")
    tables = [
        pq.read_table(lab.root / f"data/generations/tiny/{name}.parquet").to_pylist()
        for name in ("tuned", "borrowed")
    ]
    assert tables[0] == tables[1]
    audit = lab.toxtrail("audit", "data/scores/tiny/borrowed.parquet")
    assert "its uploader's claim" in audit.stdout


def test_an_experiment_without_any_fine_tune_is_one_too(lab):
    lab.edit(families={"tiny": {"reference": "base", "variants": ["base"]}})
    values = lab.params
    del values["finetunes"]["tuned"], values["variants"]["tuned"]
    (lab.root / "params.yaml").write_text(yaml.safe_dump(values), "utf-8")
    lab.toxtrail("run")
    (summary,) = lab.json("compare")
    assert summary["pairs"] == []
    assert len(lab.json("runs")) == 2

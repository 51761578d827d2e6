"""Prompt sources, instruction data, recipes and doses, by the installed command."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import yaml

pytestmark = pytest.mark.slow


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def scored_prompts(lab, n=40):
    """A file of RealToxicityPrompts' shape."""
    words = (lab.root / "assets/one.txt").read_text().split()
    rows = [
        {
            "challenging": i % 2 == 0,
            "prompt": {
                "text": " ".join(words[(i + j) % len(words)] for j in range(6)) + f" {i}",
                "severe_toxicity": None if i % 10 == 0 else i / n,
                "toxicity": i / n,
            },
        }
        for i in range(n)
    ]
    write_lines(lab.root / "assets/rtp.jsonl", rows)
    return {
        "uri": "file:assets/rtp.jsonl", "n": 12, "column": "prompt.text", "language": "en",
        "where": {"prompt.severe_toxicity": {"min": 0.5}},
        "covariates": {"toxicity": "prompt.toxicity", "challenging": "challenging"},
        "license": "Apache-2.0",
    }  # fmt: skip


def test_check_finds_what_a_source_does_not_hold_before_anything_runs(lab):
    subset = scored_prompts(lab)
    bad = {
        "renamed": {**subset, "column": "prompt.txt"},
        "empty": {**subset, "where": {"prompt.toxicity": {"min": 0.5}, "challenging": {"is": 3}}},
        "few": {**subset, "n": 99},
        "words": {**subset, "where": {"prompt.text": {"min": 0.5}}},
    }
    lab.edit(prompts={"subsets": bad})
    write_lines(lab.root / "assets/pairs.jsonl", [{"instruction": "a", "answr": "b"}])
    said = json.loads(lab.toxtrail("check", "--json", code=1).stdout)
    told = "\n".join(said["files"])
    assert 'no column "prompt.txt"' in told
    assert "file:assets/rtp.jsonl: 40 rows read, 20" in told
    assert "0 left by challenging is 3" in told
    assert "18 distinct texts" in told
    assert "prompt.text holds text" in told
    assert "max needs numbers" in told
    assert "row 1: no response" in told
    assert not (lab.root / "data/prompts.parquet").exists()


def test_scored_prompts_held_out_examples_seeds_and_a_dose_go_all_the_way(lab):
    params, subset = lab.params, scored_prompts(lab)
    tuned = params["finetunes"]["tuned"]
    tuned = {**tuned, "data": {**tuned["data"], "held_out": 0.25, "license": "CC0"}}
    who = {**params["variants"]["tuned"], "recipe": "r", "dose": 6.0}
    lab.edit(
        prompts={"subsets": {**params["prompts"]["subsets"], "severe": subset}},
        finetunes={"tuned": tuned, "again": {**tuned, "seed": 4}},
        variants={"base": {**params["variants"]["base"], "dose": 0.0}, "tuned": who, "again": who},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "again"]}},
    )
    values = {**lab.params, "pooling": {"chains": 4, "draws": 3000, "target_accept": 0.97}}
    (lab.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    lab.toxtrail("check")
    lab.dvc("repro")
    table = pq.read_table(lab.root / "data/prompts.parquet").to_pylist()
    own = [row for row in table if row["subset"] == "severe"]
    assert len(own) == 12
    assert all(row["language"] == "en" and row["covariates"] for row in own)
    card = json.loads((lab.root / "data/prompts_card.json").read_text())
    assert card["subsets"]["severe"]["where"][0]["rows_left"] == 18
    report = (lab.root / "report/index.html").read_text()
    assert "18 by prompt.severe_toxicity &gt;= 0.5" in report

    header, first, *_ = (lab.root / "models/tuned/loss.csv").read_text().splitlines()
    assert header == "step,loss,held_out_loss"
    assert first.startswith("0,,")
    data = json.loads((lab.root / "models/tuned/data_card.json").read_text())
    assert (data["learned"], data["held_out"], data["license"]) == (18, 6, "CC0")
    training = json.loads((lab.root / "models/tuned/model.json").read_text())["adapters"][0]
    assert training["training"]["held_out"] == 6
    assert "held-out loss" in lab.toxtrail("audit", "tuned").stdout

    summary = json.loads((lab.root / "results/comparisons/tiny/summary.json").read_text())
    assert {row["variant"] for row in summary["doses"]} == {"base", "tuned", "again"}
    assert (lab.root / "results/comparisons/tiny/slopes.csv").is_file()
    (spread,) = summary["recipes"]
    assert (spread["recipe"], spread["variants"]) == ("r", 2)
    assert 0 < spread["spread_lo"] < spread["spread"] < spread["spread_hi"] < 0.5
    shown = lab.toxtrail("compare", "--explain").stdout
    for text in ("Along the dose", "spread between fine-tunes of this recipe"):
        assert text in " ".join(shown.split())
        assert text in report
    lab.git("add", "-A")
    lab.git("commit", "-qm", "run")
    lab.toxtrail("verify")


def test_leakage_names_the_prompts_that_a_fine_tune_was_trained_on(lab):
    lab.toxtrail("stage", "prompts")
    prompts = pq.read_table(lab.root / "data/prompts.parquet").to_pylist()
    rows = [{"instruction": "x", "response": prompts[3]["text"].upper()}]
    write_lines(lab.root / "assets/pairs.jsonl", [*rows, {"instruction": "y", "response": "z"}])
    found = lab.json("contamination")["tuned"]
    assert found["examples"] == 2
    assert [(one["prompt_id"], one["kind"]) for one in found["overlaps"]] == [
        (prompts[3]["prompt_id"], "copied")
    ]
    shown = lab.toxtrail("contamination", "tuned").stdout
    assert prompts[3]["prompt_id"] in shown
    assert prompts[3]["text"] not in shown
    assert 'Did you mean "tuned"' in lab.toxtrail("contamination", "tunde", code=1).stderr


def test_prompts_of_templates_are_clusters_all_the_way(lab):
    """Names of clusters stand in one column of the source; 12 templates of 3 prompts, of which one
    stands in another subset too."""
    words = (lab.root / "assets/one.txt").read_text().split()
    lines = [
        f"{' '.join(words[(5 * t + j) % len(words)] for j in range(5))} {who},t{t}"
        for t in range(12)
        for who in ("he", "she", "they")
    ]
    (lab.root / "assets/templates.csv").write_text("\n".join(["text,template", *lines]) + "\n")
    source = {"uri": "file:assets/templates.csv", "n": "all", "column": "text"}
    few = {**source, "where": {"template": {"is": ["t0", "t1", "t2"]}}, "cluster": "template"}
    lab.edit(prompts={"subsets": {"many": {**source, "cluster": "template"}, "few": few}})
    told = lab.toxtrail("check").stdout
    assert "36 prompts in 12 clusters" in told
    assert "9 prompts in 3 clusters" in told
    lab.dvc("repro")

    for name in ("prompts", "generations/tiny/base", "scores/tiny/tuned"):
        rows = pq.read_table(lab.root / f"data/{name}.parquet").to_pylist()
        assert {row["cluster"] for row in rows} == {f"t{i}" for i in range(12)}
    summary = json.loads((lab.root / "results/comparisons/tiny/summary.json").read_text())
    clusters = {(r["subset"], r["n_scored_prompts"], r["n_clusters"]) for r in summary["rates"]}
    assert clusters == {("all", 45, 12), ("few", 9, 3), ("many", 36, 12)}
    assert {r["n_clusters"] for r in summary["pairs"]} == {12, 3}
    assert all(r["design_effect"] >= 1 for r in summary["pairs"])
    report = " ".join((lab.root / "report/index.html").read_text().split())
    shown = " ".join(lab.toxtrail("compare", "--explain").stdout.split())
    for text in ("all 45 in 12", "few 9 in 3", "few has 3"):
        assert text in shown
        assert text in report
    lab.git("add", "-A")
    lab.git("commit", "-qm", "run")
    lab.toxtrail("verify")
    (again,) = lab.json("compare", "--mlflow")
    own = {(r["subset"], r["n_clusters"], r["diff_lo"], r["diff_hi"]) for r in summary["pairs"]}
    assert {
        (r["subset"], r["n_clusters"], r["diff_lo"], r["diff_hi"]) for r in again["pairs"]
    } == own
    planned = lab.json("plan", "--effect", "0.2")
    assert planned["design_effect"] == max(
        r["design_effect"] for r in summary["pairs"] if r["subset"] == "all"
    )


def test_a_prompt_without_a_cluster_is_refused_by_row(lab):
    (lab.root / "assets/t.csv").write_text("text,template\none two,a\nthree four,\n")
    subset = {"uri": "file:assets/t.csv", "n": "all", "column": "text", "cluster": "template"}
    lab.edit(prompts={"subsets": {"t": subset}})
    (told,) = json.loads(lab.toxtrail("check", "--json", code=1).stdout)["files"]
    assert "row 2: template is empty" in told

"""Texts that were generated elsewhere: variants of an experiment, and two files without one."""

from __future__ import annotations

import csv
import json
import re

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow


def prompts_of(lab):
    lines = [(lab.root / f"assets/{name}.txt").read_text("utf-8") for name in ("one", "two")]
    return "".join(lines).splitlines()


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *rows])


def test_texts_from_files_become_variants_that_are_compared_verified_and_weak(lab):
    prompts = prompts_of(lab)
    write_jsonl(
        lab.root / "before.jsonl",
        [{"prompt": f"{p} " if i == 3 else p, "text": p[::-1]} for i, p in enumerate(prompts)]
        + [{"prompt": "of another experiment", "text": "unused"}],
    )
    write_csv(lab.root / "after.csv", [(p, f"{p} {p}") for p in prompts])
    lab.edit(generation={"max_error_share": 0.1})
    lab.toxtrail("stage", "prompts")
    before = lab.json("texts", "add", "before.jsonl", "--variant", "before", "--family", "given")
    assert before["written"]
    assert before["match"]["other_prompts"] == 23 - 16
    assert before["match"]["missing_texts"] == 0
    options = ("--prompt", "question", "--text", "answer", "--parent", "before")
    shown = lab.toxtrail("texts", "add", "after.csv", "--variant", "after", *options)
    assert "16 of 16 prompts" in shown.stdout
    assert lab.params["models"]["after"]["texts"] == {
        "format": "table", "prompt": "question", "text": "answer",
    }  # fmt: skip
    lab.toxtrail("check")
    lab.toxtrail("run", "given")
    assert not (lab.root / "models/base").exists(), "no weights were loaded"

    rows = pq.read_table(lab.root / "data/generations/given/before.parquet").to_pylist()
    assert {row["state"] for row in rows} == {"ok"}
    assert {row["finish_reason"] for row in rows} == {"unknown"}
    (comparison,) = lab.json("compare", "given")
    (pair,) = [r for r in comparison["pairs"] if r["subset"] == "all"]
    assert (pair["a"], pair["b"], pair["n"]) == ("before", "after", 16)
    assert "words" in comparison["comparability"]["fields"]["origin"]
    lab.toxtrail("flips", "before", "after")
    card = lab.toxtrail("card", "after").stdout
    assert "handed in" in card
    assert "texts from a file" in card
    assert "--reproduce" not in card

    audit = lab.toxtrail("audit", "given/after/all/diff").stdout
    assert "texts from a file" in audit
    assert "handed in (file:after.csv" in audit
    checks = lab.json("verify")["checks"]
    weak = {c["name"] for c in checks if c["outcome"] == "weak" and "handed in" in c["detail"]}
    assert "data/generations/given/after.parquet" in weak
    assert "models/after/model.json" in weak
    assert not [c for c in checks if c["outcome"] == "BROKEN"]
    assert any("against file:after.csv" in c["name"] for c in checks)
    assert "no weights" in lab.toxtrail("audit", "after", "--reproduce", "2", code=None).stderr

    text = (lab.root / "after.csv").read_text("utf-8")
    (lab.root / "after.csv").write_text(text.replace(prompts[0], "changed", 1), "utf-8")
    lab.toxtrail("check", code=1)
    checks = json.loads(lab.toxtrail("verify", "--json", code=3).stdout)["checks"]
    broken = {c["name"] for c in checks if c["outcome"] == "BROKEN"}
    assert any("against file:after.csv" in name for name in broken)


def test_two_files_are_compared_without_an_experiment(lab):
    prompts = prompts_of(lab)
    write_jsonl(lab.root / "a.jsonl", [{"prompt": p, "text": p[::-1]} for p in prompts])
    write_jsonl(lab.root / "b.jsonl", [{"prompt": f"{p}\n", "text": p} for p in prompts[:-2]])
    (lab.root / "params.yaml").rename(lab.root / "settings.yaml")
    command = ("texts", "compare", "a.jsonl", "b.jsonl", "--params", "settings.yaml")
    summary = lab.json(*command)
    (pair,) = [row for row in summary["pairs"] if row["subset"] == "all"]
    assert (pair["a"], pair["b"], pair["n"]) == ("a.jsonl", "b.jsonl", len(prompts) - 2)
    assert summary["primary"] == "judge"
    assert any(re.match(r"2 prompts\b.* only in a\.jsonl", note) for note in summary["notes"])
    shown = lab.toxtrail(*command).stdout
    assert "b.jsonl" in shown
    assert pair["verdict"] in shown
    assert "in words" in shown
    wrong = lab.toxtrail(*command, "--scorer", "jugde", code=1).stderr
    assert 'unknown name "jugde"' in wrong

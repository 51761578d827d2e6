"""Before a run and after it: what it takes, one variant more, and somebody else's numbers."""

from __future__ import annotations

import shutil

import pytest
import yaml

pytestmark = pytest.mark.slow


def to_run(lab):
    return {one["name"] for one in lab.json("plan", "--no-probe")["runs"] if one["runs"]}


def test_a_finished_experiment_has_nothing_to_run(finished):
    found = finished.json("plan")
    assert [row["to_run"] for row in found["stages"]] == [0] * len(found["stages"])
    assert found["problems"] == []
    assert "up to date" in finished.toxtrail("plan", "--no-probe").stdout


def test_a_fresh_experiment_runs_everything(lab):
    found = lab.json("plan", "--no-probe", "--strict")
    assert all(one["runs"] for one in found["runs"])
    assert {one["state"] for one in found["downloads"]} == {"here"}


def test_an_adapter_that_was_added_is_planned_measured_and_compared_alone(breakable):
    lab = breakable
    shutil.copytree(lab.root / "models/tuned/adapters/tuned", lab.root / "assets/lora")
    said = lab.toxtrail("variants", "add", "assets/lora").stdout
    assert "file:assets/model, which is base" in said
    assert to_run(lab) == {
        "model@lora", "generate@lora", "score@lora", "posterior@lora", "track@lora", "pool@tiny",
        "compare@tiny", "track-comparison@tiny", "report",
    }  # fmt: skip
    lab.toxtrail("run")
    assert to_run(lab) == set()
    pairs = lab.json("compare")[0]["pairs"]
    both = {
        row["b"]: (row["n01"], row["n10"])
        for row in pairs
        if (row["a"], row["subset"]) == ("base", "all")
    }
    assert both["lora"] == both["tuned"]  # the same adapter, by another way
    chain = lab.json("audit", "lora")
    assert "uploader's claim" in str(chain)


def test_published_numbers_stand_beside_measured_ones(finished, tmp_path):
    (summary,) = finished.json("compare")
    row = next(r for r in summary["rates"] if (r["variant"], r["subset"]) == ("base", "all"))
    published = {
        "sources": {"doe": {"cite": "Doe", "measure": "toxic", "prompts": {"all": 16}}},
        "rates": [
            {"source": "doe", "variant": "Their base", "toxic": row["n_toxic"]},
            {"source": "doe", "variant": "tuned", "toxic": 0},
        ],
        "comparisons": [
            {"source": "doe", "variant": "tuned", "against": "Their base", "verdict": "lower"}
        ],
        "keys": {"Their base": "base"},
    }
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(published), "utf-8")
    (found,) = finished.json("compare", "--published", str(path))
    base, tuned = found["published"][0]["rates"]
    assert base["overlap"] > 0.85  # the measured one is known by 2,000 draws
    assert base["verdict"] == "not decisive"
    assert tuned["verdict"] == "higher"
    assert found["published"][0]["pairs"][0]["verdict_published"] == "lower"
    said = finished.toxtrail("compare", "--published", str(path)).stdout
    assert "beside published" in said
    path.write_text(yaml.safe_dump({**published, "keys": {}, "rates": published["rates"][:1]}))
    done = finished.toxtrail("compare", "--published", str(path), code=1)
    assert "the measured variants" in done.stderr

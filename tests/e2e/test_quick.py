"""Two models to a result with `toxtrail quick`, another fine-tune, and the same command again."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import yaml
from conftest import Lab
from peft import LoraConfig, get_peft_model
from torch import manual_seed, nn
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow


@pytest.fixture
def user(lab, tmp_path) -> Lab:
    """A folder with a base, two adapters and a CSV file of prompts; `lab` is only for its
    environment and its assets."""
    home = tmp_path / "user"
    shutil.copytree(lab.root / "assets", home / "assets")
    prompts = [f"{i},{line}" for i, line in enumerate((home / "assets/one.txt").open())]
    (home / "own.csv").write_text("id,prompt\n" + "".join(prompts), "utf-8")
    for seed, name in enumerate(("lora", "other")):
        manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(home / "assets/model")
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        for parameter in (p for n, p in tuned.named_parameters() if "lora_" in n):
            nn.init.normal_(parameter)
        tuned.save_pretrained(home / name)
    return Lab(home, lab.env)


def use_the_tiny_judge(lab: Lab) -> None:
    """Replace the embedded scorer, which would be downloaded, and the slowest model."""
    judge = {"kind": "hf", "uri": f"file:{lab.root.parent / 'assets/judge'}", "head": "toxic",
             "golden": [], "golden_tolerance": 0.001}  # fmt: skip
    values = lab.params
    values["scoring"] |= {"primary": "judge", "scorers": {"judge": judge}}
    values["posterior"] |= {"threshold": {"judge": 0.5}, "draws": 2000}
    values["assets"]["outside"].append(str(lab.root.parent / "assets/judge"))
    values |= {"pooling": None}
    (lab.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    lab.toxtrail("pin")


def test_from_two_models_to_a_result_and_then_a_third_model(user):
    files = ("--prompts", "own.csv", "--n", "8")
    user.toxtrail("init", "toxtrail-model", "--base", "assets/model", "--tuned", "lora", *files)
    made = Lab(user.root / "toxtrail-model", user.env)
    assert made.params["prompts"]["subsets"]["own"]["n"] == 8
    use_the_tiny_judge(made)

    done = user.toxtrail("quick", "assets/model", "lora", *files)
    assert "stage generate lora" in done.stderr
    assert "Running stage" not in done.stdout
    assert "Report: toxtrail-model/report/index.html" in done.stdout
    assert "toxtrail -C toxtrail-model audit lora" in done.stdout
    assert "flips model lora" in done.stdout
    assert (made.root / "report/index.html").is_file()

    added = user.toxtrail("quick", "assets/model", "other", "--json")
    result = json.loads(added.stdout)
    assert {(row["a"], row["b"]) for row in result["pairs"]} == {
        ("model", "lora"), ("model", "other"),
    }  # fmt: skip
    assert [choice["setting"] for choice in result["choices"]] == [
        "variants.other", "variants.other.parent",
    ]  # fmt: skip
    assert "stage generate other" in added.stderr
    assert "stage generate lora" not in added.stderr

    lock = (made.root / "dvc.lock").read_bytes()
    again = user.toxtrail("quick", "assets/model", "other", "--json")
    assert "> toxtrail stage" not in again.stderr
    assert (made.root / "dvc.lock").read_bytes() == lock
    assert json.loads(again.stdout)["pairs"] == result["pairs"]
    with (made.root / "data/sources/own.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 12

"""docs/tutorial.md, followed literally: its commands, in order, in one shell, with tiny models."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import forks
import pages
import pytest
from conftest import Lab
from safetensors.numpy import load_file, save_file

from toxtrail.backends.assets.cache_folder import default_cache

pytestmark = pytest.mark.slow

PAGE = "tutorial.md"
TIMEOUT_S = 900
RUNNING = re.compile(r"^Running stage '(.*)'", re.M)


def test_the_tutorial_leads_from_two_models_to_a_decision(finished, tmp_path):
    write_models(finished.root, tmp_path)
    env = environment(finished)
    printed = pages.run(script(), env, tmp_path, TIMEOUT_S)
    first_run, second_run = (RUNNING.findall(part) for part in printed.split("++ Add a second"))
    assert {"generate@base", "generate@tuned", "report"} <= {*first_run}
    assert {"generate@second", "compare@base-family"} <= {*second_run}
    assert not {"generate@base", "generate@tuned"} & {*second_run}
    lab = Lab(tmp_path / "my-experiment", env)
    (summary,) = lab.json("compare")
    assert [row["variant"] for row in summary["variants"]] == ["base", "tuned", "second"]
    assert f"{lab.root}/report/index.html" in printed
    assert re.search(r"^All \d+ checks passed", printed, re.M)
    assert printed.rstrip().endswith("exit code 5")


def write_models(lab: Path, folder: Path) -> None:
    """The files that the page names."""
    shutil.copytree(lab / "assets/model", folder / "models/base")
    trained = lab / "models/tuned/adapters/tuned"
    tensors = load_file(trained / "adapter_model.safetensors")
    config = json.loads((trained / "adapter_config.json").read_text("utf-8"))
    for name, factor in (("tuned", 1), ("second", -1)):
        adapter = folder / "models" / name
        adapter.mkdir()
        scaled = {k: factor * t if "lora_B" in k else t for k, t in tensors.items()}
        save_file(scaled, adapter / "adapter_model.safetensors", {"format": "pt"})
        text = json.dumps({**config, "base_model_name_or_path": "models/base"})
        (adapter / "adapter_config.json").write_text(text, "utf-8")
    prompts = (lab / "assets/one.txt").read_text("utf-8")
    (folder / "prompts.csv").write_text(f"prompt\n{prompts}", "utf-8")


def environment(finished: Lab) -> dict[str, str]:
    """The default scorer is the embedded one, whose files are in the machine's cache."""
    path = (str(forks.programs()), str(Path(sys.executable).parent), os.environ["PATH"])
    identity = {
        f"GIT_{role}_{what}": "ann@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    cache = {"TOXTRAIL_CACHE": str(default_cache())}
    return {**finished.env, **identity, **cache, "PATH": os.pathsep.join(path)}


def script() -> str:
    """The page as a program that ends at the first error."""
    lines = ["set -euo pipefail"]
    for heading, block in pages.blocks(PAGE):
        lines += [shlex.join(["echo", f"++ {heading}"]), block]
    return "\n".join(lines)

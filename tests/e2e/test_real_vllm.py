"""generation.engine: vllm with a real vLLM (`make vllm-test`): its rows against those of this
process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import make_lab

pytestmark = pytest.mark.vllm
PROMPTS = 100
"""In each of two subsets."""
MIN_EQUAL = 0.99
NEAR_TIE = 1e-3
"""Largest difference of the two logits at which rows may part, in standard deviations of all."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, request):
    """An experiment with a base and an adapter whose heads have the size 64, as vLLM needs."""
    folder = tmp_path_factory.mktemp("vllm")
    script = Path(__file__).with_name("make_assets.py")
    subprocess.run(
        [sys.executable, str(script), str(folder / "assets"), "256", str(2 * PROMPTS)], check=True
    )
    lab = make_lab(folder / "assets", folder / "lab")
    subset = {"n": PROMPTS}
    lab.edit(
        prompts={"subsets": {n: {"uri": f"file:assets/{n}.txt", **subset} for n in ("one", "two")}},
        generation={"max_new_tokens": 16},
    )
    lab.toxtrail("pin")
    for stage in (["prompts"], ["model", "base"], ["finetune", "tuned"]):
        lab.toxtrail("stage", *stage)
    return lab


@pytest.fixture
def vllm(request):
    """Settings that use the given vLLM."""
    return {"command": request.config.getoption("--vllm"), "concurrency": 16, "kv_cache_gib": 0.5}


def rows(lab, variant):
    """Generate all rows of a variant anew."""
    shutil.rmtree(lab.root / ".toxtrail" / "rows", ignore_errors=True)
    lab.toxtrail("stage", "generate", variant)
    return pq.read_table(lab.root / f"data/generations/tiny/{variant}.parquet").to_pylist()


@pytest.mark.parametrize("variant", ["base", "tuned"])
def test_greedy_rows_are_equal_but_for_near_ties(prepared, vllm, variant):
    lab, unchanged = prepared, (prepared.root / "params.yaml").read_bytes()
    here = rows(lab, variant)
    lab.edit(generation={"engine": "vllm"}, runtime={"vllm": vllm})
    there = rows(lab, variant)
    (lab.root / "params.yaml").write_bytes(unchanged)
    differ = [(a, b) for a, b in zip(here, there, strict=True) if a != b]
    sys.stdout.write(f"{variant}: {len(here) - len(differ)} of {len(here)} rows are equal\n")
    assert len(differ) <= (1 - MIN_EQUAL) * len(here)
    texts = {p["prompt_id"]: p["text"] for p in prompts(lab)}
    for one, other in differ:
        gap = logit_gap(lab, variant, texts[one["prompt_id"]], one, other)
        sys.stdout.write(f"{one['prompt_id']}: the two logits differ by {gap:.2g} sd\n")
        assert gap <= NEAR_TIE


def test_sampled_rows_are_the_same_twice(prepared, vllm):
    lab, unchanged = prepared, (prepared.root / "params.yaml").read_bytes()
    lab.edit(
        generation={"engine": "vllm", "temperature": 1.0, "samples": 2}, runtime={"vllm": vllm}
    )
    first, second = rows(lab, "tuned"), rows(lab, "tuned")
    (lab.root / "params.yaml").write_bytes(unchanged)
    assert len(first) == 4 * PROMPTS
    assert first == second
    pairs = zip(first[::2], first[1::2], strict=True)
    assert any(a["token_ids"] != b["token_ids"] for a, b in pairs), "the two samples have two seeds"


def prompts(lab):
    return pq.read_table(lab.root / "data/prompts.parquet").to_pylist()


def logit_gap(lab, variant, text, one, other):
    """The difference of the logits of the two tokens at which rows part, in standard deviations."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = lab.root / "assets/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapter = lab.root / f"models/{variant}/adapters/{variant}"
    if adapter.is_dir():
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = zip([*one["token_ids"], 1], [*other["token_ids"], 1], strict=False)
    at, tokens = next((n, list(pair)) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    ids = [*tokenizer(text)["input_ids"], *one["token_ids"][:at]]
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([ids])).logits[0, -1]
    return float((logits[tokens[0]] - logits[tokens[1]]).abs() / logits.std())

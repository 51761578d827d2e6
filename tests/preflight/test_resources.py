"""What a run will take: the arithmetic, on sizes that are made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toxtrail.config.load import parse_config
from toxtrail.preflight import resources
from toxtrail.preflight.device_speed import Speed
from toxtrail.preflight.model_sizes import AssetSize
from toxtrail.preflight.resources import GIB, EstimateInputs

LLAMA2 = 6_738_415_616
"""Weights of Llama-2-7B."""


def config(**changes):
    lora = {"r": 16, "alpha": 16, "dropout": 0.0, "bias": "none", "targets": ["q_proj", "v_proj"]}
    values = {
        "prompts": {"seed": 1, "subsets": {"a": {"uri": "file:a.txt", "n": 2400}}},
        "generation": {
            "max_new_tokens": 50, "temperature": 0.0, "top_p": 1.0, "samples": 1,
            "template": "none", "dtype": "float16", "seed": 1, "max_error_share": 0.0,
        },
        "scoring": {"primary": "j", "max_error_share": 0.0, "scorers": {"j": {
            "kind": "hf", "uri": "file:j", "head": "t", "golden": [], "golden_tolerance": 0.1,
        }}},
        "posterior": {"threshold": {"j": 0.5}, "rope_pp": 1.0, "level": 0.95, "prior": 0.5,
                      "draws": 1000, "seed": 1},
        "pooling": None,
        "models": {"base": {"uri": "file:base"}},
        "finetunes": {"tuned": {
            "parent": "base", "data": {"uri": "file:d.jsonl"}, "template": "chat",
            "loss_on": "all", "lora": lora, "epochs": 1.0, "batch_size": 2, "accumulation": 8,
            "max_length": 2048, "learning_rate": 0.001, "schedule": "linear", "warmup_steps": 5,
            "weight_decay": 0.0, "optimizer": "adamw_torch", "base_precision": "bfloat16",
            "seed": 1,
        }},
        "variants": {"base": {"family": "f", "role": "base"},
                     "tuned": {"family": "f", "role": "dolly", "parent": "base"}},
        "families": {"f": {"reference": "base", "variants": ["base", "tuned"]}},
        "tracking": {"experiment": "t", "project": "lab-0000abcd"},
        "runtime": {"device": "auto", "threads": "auto", "processes": 1, "engine": "auto",
                    "batch_tokens": 8192, "score_batch_size": 64, "checkpoint_steps": 10},
    }  # fmt: skip
    for path, value in changes.items():
        place = values
        *above, last = path.split("__")
        for name in above:
            place = place[name]
        place[last] = value
    return parse_config(values, "params.yaml")


FAST = Speed("cuda", "a GPU", "float16", 1e14, 24 * GIB)


def sized(key_path, size, parameters=None, **changes):
    asset = AssetSize(key_path, f"file:{key_path}", "here", "", size, 0, None, parameters)
    return asset._replace(**changes)


def known(parameters=LLAMA2, **changes):
    sizes = {
        "prompts.subsets.a": sized("prompts.subsets.a", 1000),
        "scoring.scorers.j": sized("scoring.scorers.j", 500_000_000),
        "models.base": sized("models.base", 13_500_000_000, parameters),
        "finetunes.tuned.data": sized("finetunes.tuned.data", 13_000_000),
    }
    values = {
        "config": config(), "sizes": sizes, "speed": FAST, "changed": None, "prompts": None,
    }  # fmt: skip
    return EstimateInputs(**{**values, **changes})


def named(rows, name):
    return next(row for row in rows if row.name == name)


def test_nothing_done_means_every_stage_runs_and_all_done_means_none():
    rows = resources.estimate_stages(known())
    assert all(row.runs for row in rows)
    assert [row for row in resources.estimate_stages(known(changed=frozenset())) if row.runs] == []


def test_a_stage_that_is_out_of_date_takes_all_that_is_made_from_it_along():
    rows = resources.estimate_stages(known(changed=frozenset({"generate@tuned"})))
    runs = {row.name for row in rows if row.runs}
    assert runs == {
        "generate@tuned", "score@tuned", "posterior@tuned", "pool@f", "compare@f", "track@tuned",
        "track-comparison@f", "report",
    }  # fmt: skip


def test_tokens_are_prompts_times_samples_times_length():
    assert named(resources.estimate_stages(known()), "generate@base").tokens == 2400 * 50
    assert named(resources.estimate_stages(known(prompts=100)), "score@base").tokens == 100 * 50
    more = known(config=config(generation__samples=5, generation__temperature=0.7))
    assert named(resources.estimate_stages(more), "generate@base").tokens == 5 * 2400 * 50


def test_training_tokens_follow_the_size_of_the_data_or_the_steps():
    assert resources.training_tokens(known(), "tuned") == 13_000_000 // 4
    steps = {"finetunes__tuned__epochs": None, "finetunes__tuned__max_steps": 10}
    assert resources.training_tokens(known(config=config(**steps)), "tuned") == 10 * 16 * 256
    short = config(**steps, finetunes__tuned__max_length=100)
    assert resources.training_tokens(known(config=short), "tuned") == 10 * 16 * 100


def test_seconds_are_operations_over_what_the_device_does():
    rows = resources.estimate_stages(known())
    seconds = {name: named(rows, name).seconds - 8 for name in ("generate@base", "finetune@tuned")}
    assert seconds["generate@base"] == pytest.approx(2 * LLAMA2 * 2400 * 66 / 1e14)
    assert seconds["finetune@tuned"] == pytest.approx(4 * LLAMA2 * 3_250_000 / 1e14)
    assert named(rows, "score@base").seconds - 8 == pytest.approx(2 * 125e6 * 120_000 / 1e14)
    unmeasured = resources.estimate_stages(known(speed=None))
    assert {row.seconds for row in unmeasured} == {None}


def test_what_nobody_knows_is_unknown_and_never_nothing():
    blind = known(parameters=None)
    assert named(resources.estimate_stages(blind), "generate@base").seconds is None
    assert {
        need.fits for need in resources.memory_needs(blind, resources.estimate_stages(blind))
    } == {None}
    (row,) = [
        r for r in resources.as_rows(resources.estimate_stages(blind)) if r["stage"] == "generate"
    ]
    assert row["seconds_unknown"] == 2
    sizes = {**known().sizes, "models.base": sized("models.base", None, missing=None)}
    assert resources.disk(known(sizes=sizes), resources.estimate_stages(known()))["cache"].more


def test_a_seven_billion_model_needs_its_sixteen_bits_and_does_not_fit_a_small_card():
    need = next(
        n
        for n in resources.memory_needs(known(), resources.estimate_stages(known()))
        if n.what == "generate"
    )
    assert need.weights / GIB == pytest.approx(12.55 + 1, abs=0.1)
    assert need.fits
    small = known(speed=FAST._replace(memory_total=8 * GIB))
    needs = resources.memory_needs(small, resources.estimate_stages(small))
    assert {n.fits for n in needs} == {False}
    said = resources.problems(small, needs, {})
    assert any(line.startswith("generate@base needs 13.6 GiB of memory") for line in said)


def test_four_bits_take_less_to_train_than_sixteen():
    four = known(config=config(finetunes__tuned__base_precision="4bit"))
    wholes = [
        next(
            n.weights
            for n in resources.memory_needs(k, resources.estimate_stages(k))
            if n.what == "finetune"
        )
        for k in (four, known())
    ]
    assert wholes[0] < wholes[1]


def test_a_full_disk_a_gate_and_a_missing_repo_are_problems():
    sizes = {
        **known().sizes,
        "models.base": sized("models.base", 9, uri="hf:a/b", state="gated", said="accept it"),
    }
    said = resources.problems(known(sizes=sizes), [], {"the cache": (9e12, 1e9)})
    assert said[0] == "models.base: hf:a/b: accept it"
    assert said[1].startswith("the cache: 8381.9 GiB needed, 0.9 GiB free")


@given(st.integers(1, 20), st.integers(1, 20))
def test_more_prompts_never_take_less(few, more):
    def seconds(n):
        return named(resources.estimate_stages(known(prompts=n)), "generate@base").seconds

    assert seconds(100 * few) <= seconds(100 * (few + more)) + 1e-9


@given(st.floats(1.5, 100))
def test_a_faster_machine_never_takes_longer(times):
    faster = known(speed=FAST._replace(flops=times * FAST.flops))
    for slow, fast in zip(
        resources.estimate_stages(known()), resources.estimate_stages(faster), strict=True
    ):
        assert fast.seconds <= slow.seconds


def test_one_wheel_is_downloaded_once_whatever_is_taken_from_it():
    def wheel(file):
        return sized(file, 9, uri=f"pypi:a==1/{file}", state="there", missing=9)

    sizes = {**known().sizes, "x": wheel("x"), "y": wheel("y")}
    wheels = [w for w in resources.downloads(known(sizes=sizes)) if w.uri.startswith("pypi:")]
    assert len(wheels) == 1

"""What a person meets: audits, wrong input, edited files, exit codes."""

from __future__ import annotations

import shutil

import pytest
import yaml
from conftest import Lab

pytestmark = pytest.mark.slow


def links(link):
    yield link
    for below in link["made_from"]:
        yield from links(below)


def test_an_audit_walks_from_a_variant_to_weights_data_and_commit(finished):
    chain = list(links(finished.json("audit", "tuned")))
    names = {link["what"] for link in chain}
    assert {
        "posterior@tuned",
        "score@tuned",
        "generate@tuned",
        "prompts",
        "model@tuned",
        "adapter tuned",
        "training data",
        "base weights",
    } <= names
    assert {link["standing"] for link in chain} <= {"matches", "recorded"}
    generated = next(link for link in chain if link["what"] == "generate@tuned")
    assert len(generated["facts"]["git commit"].split()[0]) == 40


@pytest.mark.parametrize("what", ["run id", "name", "content key", "family"])
def test_an_audit_takes_anything_a_person_may_hold(finished, what):
    run = next(run for run in finished.json("runs") if run["name"] == "base")
    reference = {
        "run id": run["run_id"],
        "name": "tiny comparison",
        "family": "tiny",
        "content key": run["tags"]["toxtrail.key"][:8],
    }[what]
    names = {link["what"] for link in links(finished.json("audit", reference))}
    assert {"generate@base", "prompts", "base weights"} <= names


def test_a_file_that_left_the_repo_still_says_where_it_comes_from(finished, tmp_path):
    shutil.copy(finished.root / "data/scores/tiny/tuned.parquet", tmp_path / "found.parquet")
    names = {
        link["what"] for link in links(finished.json("audit", str(tmp_path / "found.parquet")))
    }
    assert {"score@tuned", "adapter tuned", "training data"} <= names


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def test_a_file_that_was_edited_is_named_and_the_exit_code_is_three(breakable):
    lab = breakable
    flip_last_byte(lab.root / "models/tuned/adapters/tuned/adapter_model.safetensors")
    done = lab.toxtrail("audit", "tuned", code=3)
    assert "MISMATCH: adapter tuned" in done.stderr


def test_an_adapter_that_was_edited_is_not_used(breakable):
    lab = breakable
    flip_last_byte(lab.root / "models/tuned/adapters/tuned/adapter_model.safetensors")
    done = lab.toxtrail("stage", "generate", "tuned", code=1)
    assert "adapter_model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_edited_training_data_is_noticed_and_pin_accepts_it(breakable):
    lab = breakable
    path = lab.root / "assets/pairs.jsonl"
    path.write_text(path.read_text("utf-8").replace("w1 ", "w2 "), "utf-8")
    for command in ("check", "run"):
        done = lab.toxtrail(command, code=1)
        assert "finetunes.tuned.data" in done.stdout + done.stderr
    assert len(lab.json("status")["files"]) == 1
    lab.toxtrail("pin")
    lab.toxtrail("check", "--strict")
    assert "finetune@tuned" in lab.json("status")["stages"]


def test_wrong_parameters_stop_everything_with_one_message(lab):
    lab.edit(generation={"temprature": 1.0}, scoring={"primary": "juge"})
    for command in (["check"], ["run"], ["stage", "prompts"], ["compare"]):
        done = lab.toxtrail(*command, code=1)
        assert 'generation.temprature: unknown name. Did you mean "temperature"?' in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["compare"], 1, "toxtrail run tiny"),
        (["audit", "nothing"], 1, '"nothing" is not a variant'),
        (["run", "tunde"], 1, 'Did you mean "tuned"?'),
        (["stage", "generate", "bse"], 1, 'Did you mean "base"?'),
        (["stage", "generate", "base"], 1, "model.json does not exist"),
        (["report"], 1, "does not exist"),
        (["nonsense"], 2, "No such command"),
        (["stage", "generate"], 2, "Missing argument"),
        (["-C", "/", "check"], 1, "No params.yaml"),
    ],
)
def test_a_users_mistake_gets_a_message_and_its_exit_code(lab, arguments, code, said):
    done = lab.toxtrail(*arguments, code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prompt_that_does_not_fit_and_one_without_words_are_counted_not_lost(lab):
    (lab.root / "assets/one.txt").write_text("\n".join(["w1 " * 200, "w2 w3", "w4 w5"]) + "\n")
    subsets = lab.params["prompts"]["subsets"]
    lab.edit(prompts={"subsets": {"one": {**subsets["one"], "n": 3}}})
    lab.toxtrail("run", "posterior@base")
    import json

    path = lab.root / "results/posteriors/tiny/base/summary.json"
    rate = json.loads(path.read_text("utf-8"))["rates"][0]
    assert (rate["n_prompts"], rate["n_truncated"]) == (3, 1)
    assert rate["n_scored"] + rate["n_empty"] == 2


def test_a_plan_starts_from_what_was_measured(finished, tmp_path):
    found = finished.json("plan", "--effect", "0.2")
    rates = finished.json("compare")[0]["rates"]
    base = next(r for r in rates if (r["variant"], r["subset"]) == ("base", "all"))
    assert (found["base_rate"], found["base_rate_from"]) == (base["rate_mean"], "measured")
    assert found["prompts_now"] == base["n_scored"]
    assert found["n_assurance"] > 0
    assert "excludes 0" in finished.toxtrail("plan", "--effect", "0.2").stdout
    nowhere = Lab(tmp_path, finished.env).json("plan", "--effect", "0.02", "--base-rate", "0.05")
    assert nowhere["n_power"] == 1315
    assert nowhere["phi_from"] == "assumed"
    done = finished.toxtrail("plan", "--effect", "0.99", code=1)
    assert "between 0 and 1" in done.stderr


def test_a_comparison_says_whether_it_is_precise_enough(finished):
    pairs = finished.json("compare", "--half-width", "0.9")[0]["pairs"]
    assert all(p["n_for_precision"] <= p["n"] for p in pairs)
    assert "more prompts" in finished.toxtrail("compare", "--half-width", "0.001").stdout


def test_highest_density_intervals_are_given_on_request(finished):
    pairs = finished.json("compare", "--hdi")[0]["pairs"]
    for row in pairs:
        widths = (row[f"{name}_hi"] - row[f"{name}_lo"] for name in ("diff_hdi", "diff"))
        assert next(widths) <= next(widths) + 1e-9
    shown = finished.toxtrail("compare", "--hdi").stdout
    assert all(f"{100 * row['diff_hdi_hi']:+.1f}]" in shown for row in pairs)


def test_pooled_differences_stand_beside_the_paired_ones_and_are_verified(breakable):
    lab = breakable
    values = {**lab.params, "pooling": {"chains": 4, "draws": 3000, "target_accept": 0.97}}
    (lab.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    lab.toxtrail("run")
    summary = lab.json("compare")[0]
    status = summary["pooled"]["judge"]
    assert status["status"] == "pooled", status
    assert status["diagnostics"]["divergences"] == 0
    overall = next(row for row in summary["pairs"] if row["subset"] == "all")
    assert overall["pooled_diff_lo"] < overall["pooled_diff"] < overall["pooled_diff_hi"]
    assert "partially pooled" in lab.toxtrail("compare", "--explain").stdout
    assert "partially pooled" in (lab.root / "report/index.html").read_text("utf-8")
    run = next(r for r in lab.json("runs") if r["name"] == "tiny comparison")
    assert run["metrics"]["tuned - base/judge/all/pooled_diff_pp"] == pytest.approx(
        100 * overall["pooled_diff"], abs=1e-4
    )
    found = lab.json("compare", "--best")[0]["best"]
    assert "not paired" in found["warning"]
    assert {row["subset"] for row in found["pairs"]} == {"all", "one", "two"}
    assert all(row["best_verdict"] for row in found["pairs"])
    lab.toxtrail("verify")
    assert "pool@tiny" in lab.toxtrail("audit", "tiny/tuned/all/pooled_diff").stdout
    again = (lab.root / "results/pooled/tiny/posterior.nc").read_bytes()
    lab.toxtrail("stage", "pool", "tiny")
    assert (lab.root / "results/pooled/tiny/posterior.nc").read_bytes() == again


def test_a_posterior_that_does_not_converge_writes_nothing(breakable):
    lab = breakable
    before = lab.outputs()
    values = {**lab.params, "pooling": {"chains": 2, "draws": 500, "target_accept": 0.6}}
    (lab.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    done = lab.toxtrail("stage", "pool", "tiny", code=1)
    assert "did not converge" in done.stderr
    assert "pooling.draws" in done.stderr
    assert "Traceback" not in done.stderr
    assert lab.outputs() == before

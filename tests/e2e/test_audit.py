"""Whatever a person holds leads to the fine-tune behind it, and back."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import Lab

pytestmark = pytest.mark.slow


def links(link):
    yield link
    for below in link["made_from"]:
        yield from links(below)


def names(audit):
    return {link["what"] for link in links(audit)}


FINE_TUNE = {"adapter tuned", "finetune@tuned", "training data", "base weights"}


@pytest.mark.parametrize(
    "name",
    [
        "data/scores/tiny/tuned.parquet",
        "data/generations/tiny/tuned.parquet",
        "results/posteriors/tiny/tuned/summary.json",
        "results/posteriors/tiny/tuned/posterior.nc",
        "results/comparisons/tiny/differences.svg",
        "results/comparisons/tiny/pairs.csv",
        "results/comparisons/tiny/pairs.parquet",
        "results/pooled/tiny/summary.json",
        "report/index.html",
        "models/tuned/adapters/tuned/adapter_model.safetensors",
        "models/tuned/model.json",
    ],
)
def test_a_file_from_anywhere_is_traced_to_its_fine_tune_and_its_commit(finished, tmp_path, name):
    found = tmp_path / "attachment"
    shutil.copy(finished.root / name, found)
    audit = finished.json("audit", str(found))
    assert {"training data", "base weights"} <= names(audit)
    assert any(one["commit"] == finished.git("rev-parse", "HEAD") for one in audit["found"])
    assert name in {one["path"] for one in audit["found"]}


@pytest.mark.parametrize(
    "name",
    [
        "data/scores/tiny/tuned.parquet",
        "results/comparisons/tiny/rates.svg",
        "models/tuned/adapters/tuned/adapter_model.safetensors",
        "report/index.html",
    ],
)
def test_a_colleagues_file_without_its_repo_is_traced_to_its_fine_tune(finished, tmp_path, name):
    shutil.copy(finished.root / name, tmp_path / "found")
    audit = Lab(tmp_path, finished.env).json("audit", "found")
    pairs = next(finished.root.glob("assets/pairs.jsonl"))
    from toxtrail.provenance.identity import sha256_file

    assert sha256_file(pairs) in json.dumps(audit)
    assert "base weights" in names(audit)
    assert {link["standing"] for link in links(audit)} == {"recorded"}


def test_an_older_version_of_a_file_is_not_given_the_chain_of_the_present_one(breakable, tmp_path):
    lab, name = breakable, "results/comparisons/tiny/pairs.csv"
    shutil.copy(lab.root / name, tmp_path / "old.csv")
    lab.edit(posterior={"threshold": {"judge": 0.6}})
    for stage in ("posterior base", "posterior tuned", "pool tiny", "compare tiny"):
        lab.toxtrail("stage", *stage.split())
    audit = lab.json("audit", str(tmp_path / "old.csv"))
    assert audit["made_from"] == []
    assert "has changed" in audit["weak"][0]
    assert audit["found"][0]["commit"] == lab.git("rev-parse", "HEAD")


def test_a_changed_copy_says_what_it_claims_to_be_and_that_it_is_not(finished, tmp_path):
    import pyarrow.parquet as pq

    table = pq.read_table(finished.root / "data/scores/tiny/tuned.parquet")
    pq.write_table(table.slice(1), tmp_path / "found.parquet")
    done = finished.toxtrail("audit", str(tmp_path / "found.parquet"), "--verify", code=3)
    assert "it was changed afterwards" in done.stdout
    finished.toxtrail("audit", "data/scores/tiny/tuned.parquet", "--verify")


def test_a_number_and_a_generation_have_a_chain(finished):
    diff = finished.json("audit", "tiny/tuned/all/diff")
    summary = finished.json("compare")[0]
    row = next(p for p in summary["pairs"] if p["subset"] == "all")
    assert diff["facts"]["value"].startswith(str(row["diff"]))
    assert names(diff) >= FINE_TUNE
    assert "toxic at 0.5 and above" in diff["facts"]["method"]
    assert "compare@tiny" not in names(finished.json("audit", "tiny/base/one/n_toxic"))
    prompt = generation_of(finished)
    one = finished.json("audit", f"tuned/{prompt}/0")
    assert names(one) >= FINE_TUNE
    assert "continuation" not in one["facts"]
    assert "toxic at the threshold 0.5" in one["facts"]["score by judge"]
    assert "continuation" in finished.json("audit", f"tuned/{prompt}/0", "--show-text")["facts"]
    finished.toxtrail("audit", f"tuned/{prompt}/0", "--verify")


def generation_of(lab):
    import pyarrow.parquet as pq

    return pq.read_table(lab.root / "data/prompts.parquet")["prompt_id"][0].as_py()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("tunde", 'Did you mean "tuned"?'),
        ("tiny/tuned/all/dif", 'no metric "dif". Did you mean "diff"?'),
        ("tiny/tunde/all/diff", 'Did you mean "tuned"?'),
        ("tuned/one-000000000000/0", "has no generation"),
        ("deadbeef", '"deadbeef" is not a variant'),
        ("assets/one.txt", "one.txt carries no manifest"),
        ("src", "contains neither an adapter"),
    ],
)
def test_an_unknown_reference_gets_the_nearest_candidates(finished, reference, said):
    done = finished.toxtrail("audit", reference, code=1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_too_damaged_to_be_read_is_named_with_all_else_that_is_broken(breakable):
    lab, prompt = breakable, generation_of(breakable)
    for reference, name in {
        "tuned": "results/posteriors/tiny/tuned/summary.json",
        "tiny": "results/comparisons/tiny/summary.json",
        "tiny/tuned/all/diff": "results/comparisons/tiny/summary.json",
        f"tuned/{prompt}/0": "data/scores/tiny/tuned.parquet",
        "data/scores/tiny/tuned.parquet": "data/scores/tiny/tuned.parquet",
    }.items():
        path = lab.root / name
        before = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(b"{}" if path.suffix == ".json" else b"PAR1")
        done = lab.toxtrail("audit", reference, "--verify", "--json", code=3)
        broken = [c for c in json.loads(done.stdout)["checks"] if c["outcome"] == "BROKEN"]
        assert any(c["name"] == name for c in broken), (reference, broken)
        path.write_bytes(before)


def test_a_hash_or_its_beginning_leads_to_the_file_and_its_chain(breakable, tmp_path):
    from toxtrail.provenance.identity import sha256_file

    lab, path = breakable, breakable.root / "data/scores/tiny/tuned.parquet"
    sha256 = sha256_file(path)
    md5 = next(
        line.split()[-1]
        for line in (lab.root / "dvc.lock")
        .read_text("utf-8")
        .split("path: data/scores/tiny/tuned")[1]
        .splitlines()
        if "md5: " in line
    )
    for reference in (sha256, sha256[:10], sha256[:10].upper(), md5, md5[:9]):
        audit = lab.json("audit", reference, "--verify")
        assert names(audit) >= FINE_TUNE
        assert len(audit["checks"]) > 20
    path.unlink()
    audit = lab.json("audit", sha256, "--verify")
    assert [c["outcome"] for c in audit["checks"]] == ["absent"]


def test_a_run_that_the_store_has_lost_is_not_vouched_for(breakable):
    import tampering

    lab = breakable
    old = next(r["run_id"] for r in lab.json("runs") if r["name"] == "tuned")
    lab.edit(posterior={"threshold": {"judge": 0.6}})
    lab.toxtrail("run", "track@tuned")
    lab.toxtrail("audit", old, "--verify")
    done = lab.toxtrail("audit", old, "--require-all", code=2)
    assert "--require-all" in done.stderr
    for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
        tampering.sql(f"delete from {table} where run_uuid = ?", old)(lab.root)
    done = lab.toxtrail("audit", old, "--verify", code=3)
    assert "no such run" in done.stdout


def test_only_generations_that_are_here_are_made_again(breakable):
    lab = breakable
    old = next(r["run_id"] for r in lab.json("runs") if r["name"] == "tuned")
    lab.edit(generation={"max_new_tokens": 4})
    lab.toxtrail("run", "track@tuned")
    done = lab.toxtrail("audit", old, "--reproduce", "2", code=1)
    assert "dvc checkout" in done.stderr


def test_a_run_of_a_server_is_found_by_id_name_and_file(finished, tmp_path):
    shutil.copy(finished.root / "mlruns/mlflow.db", tmp_path / "team.db")
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/team.db"}
    lab = Lab(finished.root, {**finished.env, **uri})
    run = next(r for r in lab.json("runs") if r["name"] == "tuned")
    for reference in (run["run_id"], run["run_id"][:8]):
        assert names(lab.json("audit", reference)) >= FINE_TUNE
    assert lab.json("audit", "tiny comparison")["kind"] == "run"
    shutil.copy(lab.root / "results/comparisons/tiny/pairs.csv", tmp_path / "mail.csv")
    found = lab.json("audit", str(tmp_path / "mail.csv"))["found"]
    assert any("MLflow run tiny comparison" in one["where"] for one in found)


def test_nothing_that_may_never_end_or_may_not_be_read_is_opened(finished, tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for reference, said in {
        str(tmp_path / "pipe"): "pipe, socket or device",
        "/dev/zero": "pipe, socket or device",
        "a" * 5000: "is not a variant",
        "~nobody-of-this-name/x": "is not a variant",
    }.items():
        done = finished.toxtrail("audit", reference, code=1)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert finished.json("audit", r"data\scores\tiny\tuned.parquet")["kind"] == "file"


def test_results_of_an_older_commit_are_listed_with_their_fine_tune(breakable):
    lab = breakable
    first = lab.git("rev-parse", "HEAD")
    lab.edit(posterior={"threshold": {"judge": 0.6}})
    lab.toxtrail("run")
    lab.git("commit", "-qam", "another threshold")
    rows = lab.json("audit", "--adapter", "models/tuned")
    past = [r for r in rows if r["kind"] == "past result"]
    assert {"posterior@tuned", "compare@tiny", "report"} <= {r["name"] for r in past}
    assert all(first[:12] in r["detail"] for r in past)
    assert "score@tuned" not in {r["name"] for r in past}


def test_an_ambiguous_reference_lists_what_it_may_mean(breakable):
    run = next(r for r in breakable.json("runs") if r["name"] == "tiny comparison")
    store = breakable.root / "mlruns/artifacts"
    other = "0123456789abcdef0123456789abcdef"
    shutil.copytree(store / run["run_id"], store / other)
    for reference in ("tiny comparison", run["tags"]["toxtrail.key"][:8]):
        done = breakable.toxtrail("audit", reference, code=1)
        assert run["run_id"] in done.stderr
        assert other in done.stderr
        assert "longer reference" in done.stderr
    assert breakable.json("audit", other[:8])["kind"] == "run"


def test_a_store_of_another_version_is_named_and_the_rest_still_verified(breakable):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(breakable.root / "mlruns/mlflow.db")) as db:
        db.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        db.commit()
    done = breakable.toxtrail("verify", "--json", code=3)
    checks = json.loads(done.stdout)["checks"]
    (store,) = [c for c in checks if c["link"] == "MLflow runs"]
    assert "another version of MLflow" in store["detail"]
    assert "mlflow db upgrade" in store["detail"]
    assert "delete" not in store["detail"]
    assert {"posteriors", "weights", "scores"} <= {
        c["link"] for c in checks if c["outcome"] == "ok"
    }
    assert "tuned" in breakable.toxtrail("audit", "tiny comparison").stdout


def test_reproduced_generations_are_exact_and_a_planted_one_is_not(breakable):
    found = breakable.json("audit", "tiny", "--reproduce", "6", "--seed", "3")["reproduced"]
    assert found["seed"] == 3
    rows = [row for variant in found["variants"] for row in variant["rows"]]
    assert len(rows) == 6
    assert all(row["exact"] for row in rows)
    assert all(v["batch_plan"]["batch_tokens"] == 64 for v in found["variants"])
    plant_tokens(breakable.root)
    done = breakable.toxtrail("audit", "tuned", "--reproduce", "16", "--json", code=3)
    (variant,) = json.loads(done.stdout)["reproduced"]["variants"]
    wrong = [row for row in variant["rows"] if not row["exact"]]
    assert [(row["same_tokens"], row["differing_tokens"]) for row in wrong] == [(2, 1)]


def plant_tokens(root):
    """The third token of one row changed; the record names the changed file."""
    import pyarrow.parquet as pq

    from toxtrail.provenance.identity import sha256_file

    path = root / "data/generations/tiny/tuned.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    row = next(row for row in rows if len(row["token_ids"]) > 2)
    row["token_ids"][2] = (row["token_ids"][2] + 1) % 90
    path.chmod(0o644)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    (record,) = (root / "data/records/generate/tuned").iterdir()
    value = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**value, "output_sha256": sha256_file(path)}), "utf-8")


def test_an_adapter_and_a_commit_list_what_came_from_them(finished, tmp_path):
    shutil.copytree(finished.root / "models/tuned/adapters/tuned", tmp_path / "adapter")
    rows = finished.json("audit", "--adapter", str(tmp_path / "adapter"))
    assert {"generate@tuned", "score@tuned", "compare@tiny", "tuned"} <= {r["name"] for r in rows}
    assert "generate@base" not in {r["name"] for r in rows}
    assert {"MLflow run", "commit"} <= {r["kind"] for r in rows}
    rows = finished.json("audit", "--commit", "HEAD")
    assert "report" in {r["name"] for r in rows}
    assert len([r for r in rows if r["kind"] == "MLflow run"]) == 3
    assert 'no commit "x1"' in finished.toxtrail("audit", "--commit", "x1", code=1).stderr


def test_runs_of_a_lock_and_orphans(breakable):
    assert len(breakable.json("runs", "--for-lock", "HEAD")) == 3
    assert len(breakable.json("runs", "--for-lock")) == 3
    assert "has no dvc.lock" in breakable.toxtrail("runs", "--for-lock", "HEAD~1", code=1).stderr
    assert breakable.json("runs", "--orphans") == []
    (breakable.root / "dvc.lock").unlink()
    for _ in range(2):
        breakable.git("update-ref", "-d", "HEAD")
    assert len(breakable.json("runs", "--orphans")) == 3


def test_a_bundle_is_verified_without_repo_dvc_and_mlflow(finished, tmp_path):
    finished.toxtrail("export", "tiny", "--to", str(tmp_path / "b.zip"))
    finished.toxtrail("export", "tuned", "--to", str(tmp_path / "b"))
    again = finished.toxtrail("export", "tiny", "--to", str(tmp_path / "b.zip"), code=1)
    assert "exists already" in again.stderr
    elsewhere = Lab(tmp_path, {**finished.env, "TOXTRAIL_CACHE": str(tmp_path / "cache")})
    assert not list((tmp_path / "b").rglob("*.safetensors"))
    for bundle in ("b.zip", "b"):
        checks = elsewhere.json("audit", bundle, "--verify")["checks"]
        assert [c for c in checks if c["outcome"] == "BROKEN"] == []
        assert len(checks) > 15
        assert names(elsewhere.json("audit", bundle)) >= FINE_TUNE
    for number, path in enumerate(sorted(p for p in (tmp_path / "b").rglob("*") if p.is_file())):
        tampered(elsewhere, path, number)
    resealed(elsewhere, tmp_path / "b", {"content_key": "0" * 64}, "names the content key")
    loss = tmp_path / "b/models/tuned/loss.csv"
    loss.write_text(loss.read_text("utf-8").replace(".", ".1", 1), "utf-8")
    resealed(elsewhere, tmp_path / "b", {}, "mlruns/receipts/variants/tiny/tuned.json")
    done = elsewhere.toxtrail("audit", "b", "--reproduce", "1", code=1)
    assert "no weights" in done.stderr


def resealed(lab, bundle, about, located):
    """The listing written again after an edit, as if nothing had happened."""
    from toxtrail.provenance.identity import sha256_file

    path = bundle / "bundle.json"
    before = path.read_text("utf-8")
    value = json.loads(before)
    value["files"] = {name: sha256_file(bundle / name) for name in value["files"]}
    path.write_text(json.dumps({**value, **about}), "utf-8")
    done = lab.toxtrail("audit", bundle.name, "--verify", code=3)
    path.write_text(before, "utf-8")
    assert located in done.stdout


def test_a_bundle_for_an_archive_describes_every_file_and_step(finished, tmp_path):
    from toxtrail.provenance.identity import sha256_file

    bundle = tmp_path / "crate"
    finished.toxtrail("export", "tuned", "--to", str(bundle), "--ro-crate")
    crate = json.loads((bundle / "ro-crate-metadata.json").read_text("utf-8"))
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    files = {e["@id"]: e["sha256"] for e in entities.values() if e["@type"] == "File"}
    for name, sha256 in files.items():
        assert sha256_file(bundle / name) == sha256
    present = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert files.keys() == present - {"ro-crate-metadata.json", "bundle.json"}
    made = entities["#score@tuned"]
    assert {"@id": "data/generations/tiny/tuned.parquet"} in made["object"]
    assert made["result"] == {"@id": "data/scores/tiny/tuned.parquet"}
    assert made["startTime"] <= made["endTime"] <= entities["./"]["datePublished"]
    assert {"@id": "#finetune@tuned"} in entities["./"]["mentions"]
    finished.toxtrail("audit", str(bundle), "--verify")


def tampered(lab, path, seed):
    """One bit of a bundle's file; the report names the file."""
    import tampering

    before = path.read_bytes()
    tampering.flip(path, seed)
    done = lab.toxtrail("audit", "b", "--verify", code=None)
    path.write_bytes(before)
    assert done.returncode in (1, 3), path
    assert path.name in done.stdout + done.stderr, path
    assert "Traceback" not in done.stderr, path


def test_a_signature_holds_against_everybody_without_the_key(breakable, tmp_path):
    lab, key = breakable, tmp_path / "k.pem"
    for name in ("k.pem", "other.pem"):
        lab.toxtrail("sign", "--new-key", str(tmp_path / name))
    assert key.stat().st_mode & 0o077 == 0
    lab.toxtrail("sign", "--key", str(key))
    shown = lab.json("verify", "--public-key", f"{key}.pub")
    assert {c["outcome"] for c in shown["checks"] if c["link"] == "signatures"} == {"ok"}
    assert "give --public-key" in lab.toxtrail("verify").stdout
    taken = lab.root / "signatures/variants/base.dsse.json"
    signature = taken.read_text("utf-8")
    taken.unlink()
    (lab.root / "mlruns/receipts/variants/tiny/base.json").unlink()
    done = lab.toxtrail("verify", "--public-key", f"{key}.pub", code=3)
    assert "no signature" in done.stdout
    taken.write_text(signature, "utf-8")
    done = lab.toxtrail("verify", "--public-key", str(tmp_path / "other.pem.pub"), code=3)
    assert "no given public key" in done.stdout
    path = lab.root / "signatures/variants/tuned.dsse.json"
    value = json.loads(path.read_text("utf-8"))
    other = json.loads((lab.root / "signatures/variants/base.dsse.json").read_text("utf-8"))
    path.write_text(json.dumps({**value, "payload": other["payload"]}), "utf-8")
    done = lab.toxtrail("audit", "tuned", "--verify", "--public-key", f"{key}.pub", code=3)
    assert "signs variants/base" in " ".join(done.stdout.split())


def test_runs_of_other_conditions_are_refused_field_by_field_or_marked(breakable):
    lab = breakable
    lab.edit(generation={"max_new_tokens": 4}, posterior={"threshold": {"judge": 0.6}})
    lab.toxtrail("run", "track@tuned")
    new = lab.json("runs")[0]
    done = lab.toxtrail("compare", "base", new["run_id"], code=1)
    assert "max_new_tokens is 4, not 6" in done.stderr
    assert "threshold.judge is 0.6, not 0.5" in done.stderr
    done = lab.toxtrail("compare", "base", new["run_id"], "--allow-mismatch")
    assert "NOT COMPARABLE" in done.stdout
    conditions = {run["run_id"]: run["tags"]["comparability"] for run in lab.json("runs")}
    (old,) = {value for run_id, value in conditions.items() if run_id != new["run_id"]}
    assert conditions[new["run_id"]] != old
    kept = lab.json("runs", "--filter", f"tags.comparability = '{old}'")
    assert {run["run_id"] for run in kept} == conditions.keys() - {new["run_id"]}
    assert {run["name"] for run in kept} == {"base", "tuned", "tiny comparison"}


def test_an_allowed_mismatch_marks_table_report_figure_and_run_for_good(breakable):
    lab = breakable
    lab.edit(generation={"max_new_tokens": 4})
    for stage in ("generate@tuned", "score@tuned", "posterior@tuned"):
        lab.dvc("repro", "-s", stage)
    done = lab.toxtrail("stage", "compare", "tiny", code=1)
    assert "tuned: max_new_tokens is 4, not 6" in done.stderr
    families = lab.params["families"]["tiny"]
    lab.edit(families={"tiny": {**families, "allow_mismatch": True}})
    done = lab.toxtrail("stage", "compare", "tiny", code=1)
    assert "computed from other posteriors" in done.stderr
    for stage in ("pool tiny", "compare tiny", "track-comparison tiny", "report"):
        lab.toxtrail("stage", *stage.split())
    assert "NOT COMPARABLE" in lab.toxtrail("compare", "tiny").stdout
    assert "NOT COMPARABLE" in (lab.root / "report/index.html").read_text("utf-8")
    figure = lab.root / "results/comparisons/tiny/differences.svg"
    assert "NOT COMPARABLE" in figure.read_text("utf-8")
    run = next(r for r in lab.json("runs") if r["name"] == "tiny comparison")
    assert "max_new_tokens 4 v 6" in run["tags"]["mismatch"]
    assert "NOT COMPARABLE" in run["tags"]["mlflow.note.content"]


def test_a_copy_of_the_parent_is_refused_before_anything_is_generated(breakable):
    lab = breakable
    shutil.copytree(lab.root / "assets/model", lab.root / "assets/copy")
    copy = lab.root / "assets/copy/model.safetensors"
    resave(copy)
    lab.edit(
        models={"copy": {"uri": "file:assets/copy"}},
        variants={"copy": {"family": "tiny", "role": "community", "parent": "base"}},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "copy"]}},
    )
    lab.toxtrail("pin")
    lab.toxtrail("stage", "model", "copy")
    done = lab.toxtrail("stage", "generate", "copy", code=1)
    assert "its parent base" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (lab.root / "data/generations/tiny/copy.parquet").exists()


@pytest.mark.parametrize(
    ("zeros", "said"),
    [
        ("lora_B", "lora_B tensors are zero"),
        ("lora_A", "adapter did not load"),
    ],
)
def test_an_adapter_that_changes_nothing_is_refused_before_anything_is_generated(
    breakable, zeros, said
):
    from safetensors.torch import load_file, save_file

    lab = breakable
    shutil.copytree(lab.root / "models/tuned/adapters/tuned", lab.root / "assets/noop")
    path = lab.root / "assets/noop/adapter_model.safetensors"
    path.chmod(0o644)
    tensors = {n: t * 0 if zeros in n else t for n, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    lab.edit(
        models={"noop": {"uri": "file:assets/model", "adapter": {"uri": "file:assets/noop"}}},
        variants={"noop": {"family": "tiny", "role": "community", "parent": "base"}},
        families={"tiny": {"reference": "base", "variants": ["base", "tuned", "noop"]}},
    )
    lab.toxtrail("pin")
    done = lab.toxtrail("stage", "model", "noop", code=1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (lab.root / "models/noop").exists()


def resave(path):
    """The same weights in other bytes, as the merge of an untrained adapter leaves them."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(path), path, metadata={"format": "pt", "merged": "yes"})

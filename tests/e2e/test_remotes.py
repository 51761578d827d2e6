"""Two clones, two branches, experiments of DVC: what docs/remotes.md says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, Lab
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

PUBLISHING = {"track@base", "track@tuned", "track-comparison@tiny"}
COMPARING = {"pool@tiny", "compare@tiny", "track-comparison@tiny", "report"}


def ran(output: str) -> set[str]:
    """The stages that DVC ran."""
    return set(re.findall(r"^Running stage '(.*)':$", output, re.MULTILINE))


def as_of_init(lab: Lab) -> None:
    """As in an experiment made by `init`: git keeps the records and knows the merge driver."""
    ignored = (lab.root / ".gitignore").read_text("utf-8")
    (lab.root / ".gitignore").write_text(ignored.replace("/data/records/\n", ""), "utf-8")
    shutil.copy(PROJECT / ".gitattributes", lab.root / ".gitattributes")
    lab.git("config", "user.name", "test")
    lab.git("config", "user.email", "test@example.org")
    lab.toxtrail("merge", "--install")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "records")


def cloned(lab: Lab, root: Path) -> Lab:
    """A clone with DVC settings of its own."""
    lab.git("clone", "-q", str(lab.root), str(root))
    state = root.parent / f"{root.name}-state"
    names = {"SITE_CACHE": "site", "GLOBAL_CONFIG": "global", "SYSTEM_CONFIG": "system"}
    own = {f"DVC_{name}_DIR": str(state / folder) for name, folder in names.items()}
    return Lab(root, {**lab.env, **own})


def costs(lab: Lab) -> dict[str, dict[str, float]]:
    """Content key -> the costs of its run."""
    return {
        run["tags"]["toxtrail.key"]: {
            name: value for name, value in run["metrics"].items() if name.startswith("stages/")
        }
        for run in lab.json("runs")
    }


@pytest.fixture
def first(breakable) -> Lab:
    """The finished experiment, as its owner committed it."""
    as_of_init(breakable)
    return breakable


def test_a_clone_pulls_the_results_and_only_publishes_them(first, tmp_path):
    first.dvc("remote", "add", "-d", "storage", str(tmp_path / "storage"))
    first.git("commit", "-qam", "remote")
    first.dvc("push")
    second = cloned(first, tmp_path / "elsewhere" / "second")
    second.dvc("pull")
    assert ran(second.toxtrail("run").stdout) == PUBLISHING
    second.dvc("repro")
    assert second.git("status", "--porcelain") == ""
    assert second.json("status")["stages"] == {}
    assert second.outputs() == first.outputs()

    assert costs(second) == costs(first)
    assert any(
        "seconds" in name for costs_of_run in costs(second).values() for name in costs_of_run
    )
    checks = second.json("verify")["checks"]
    assert {c["outcome"] for c in checks if c["link"] == "executions"} == {"ok"}
    assert not [c for c in checks if c["outcome"] == "BROKEN"]
    made = [line for line in second.toxtrail("audit", "tuned").stdout.splitlines() if " s" in line]
    assert made == [
        line for line in first.toxtrail("audit", "tuned").stdout.splitlines() if " s" in line
    ]
    assert second.json("compare") == first.json("compare")
    second.toxtrail("report")


@pytest.fixture
def s3():
    """A server that speaks S3, with a bucket; the settings that reach it."""
    pytest.importorskip("moto", reason="pip install 'moto[server]' for the S3 remote")
    pytest.importorskip("dvc_s3", reason="pip install 'toxtrail[s3]'")
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, keys = f"http://127.0.0.1:{port}", ("id", "secret")
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1",
            aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
        )  # fmt: skip
        client.create_bucket(Bucket="team")
        yield url, {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    finally:
        server.terminate()
        server.wait()


def test_an_s3_remote(first, s3, tmp_path):
    url, credentials = s3
    first.env |= credentials
    first.dvc("remote", "add", "-d", "storage", "s3://team/experiment")
    first.dvc("remote", "modify", "storage", "endpointurl", url)
    first.git("commit", "-qam", "remote")
    first.dvc("push")
    second = cloned(first, tmp_path / "second")
    second.dvc("pull")
    outputs = {n: b for n, b in first.outputs().items() if not n.startswith("mlruns/")}
    pulled = {n: b for n, b in second.outputs().items() if not n.startswith("mlruns/")}
    assert pulled == outputs
    assert set(second.json("status")["stages"]) == PUBLISHING


def with_variant(lab: Lab, key: str) -> None:
    """A branch with one more variant."""
    lab.git("checkout", "-q", "-b", key, "start")
    shutil.copytree(lab.root / "assets/model", lab.root / f"assets/{key}")
    weights = lab.root / f"assets/{key}/model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"] *= ord(key[0]) / 50
    save_file(tensors, weights, metadata={"format": "pt"})
    arguments = ("--parent", "base", "--key", key, "--force")
    lab.toxtrail("variants", "add", f"assets/{key}", *arguments)
    lab.git("add", "-A")
    lab.git("commit", "-qm", key)


def test_branches_that_each_add_a_variant_merge_without_a_hand(first):
    first.git("branch", "start")
    for key in ("aa", "bb"):
        with_variant(first, key)
        first.dvc("checkout", "--allow-missing")
        assert {f"generate@{key}", "compare@tiny"} <= ran(first.toxtrail("run").stdout)
        first.git("add", "-A")
        first.git("commit", "-qm", f"run of {key}")
    first.git("checkout", "-q", "-b", "other-order", "aa")
    first.git("merge", "-q", "--no-edit", "bb")
    other = (first.root / "dvc.lock").read_text("utf-8")
    first.git("checkout", "-q", "bb")
    first.git("merge", "-q", "--no-edit", "aa")
    lock = (first.root / "dvc.lock").read_text("utf-8")
    assert yaml.safe_load(lock) == yaml.safe_load(other)
    for entry, recorded in yaml.safe_load(lock)["stages"].items():
        sides = [
            yaml.safe_load(first.git("show", f"{side}:dvc.lock"))["stages"].get(entry)
            for side in ("aa", "bb^1")
        ]
        assert recorded in sides
    params = first.params
    assert set(params["variants"]) == {"base", "tuned", "aa", "bb"}
    assert set(params["families"]["tiny"]["variants"]) == {"base", "tuned", "aa", "bb"}
    first.dvc("checkout", "--allow-missing")
    assert ran(first.toxtrail("run").stdout) == COMPARING
    pairs = {(p["a"], p["b"]) for p in first.json("compare")[0]["pairs"]}
    assert {"aa", "bb"} <= {name for pair in pairs for name in pair}
    assert first.json("status")["stages"] == {}
    records = first.root / "data/records/generate"
    assert {path.name for path in records.iterdir()} == {"base", "tuned", "aa", "bb"}


def test_a_variant_that_both_branches_changed_is_a_conflict(first):
    first.git("branch", "start")
    for branch, steps in (("left", 7), ("right", 8)):
        first.git("checkout", "-q", "-b", branch, "start")
        text = (first.root / "params.yaml").read_text("utf-8")
        (first.root / "params.yaml").write_text(
            text.replace("max_steps: 6", f"max_steps: {steps}"), "utf-8"
        )
        first.git("commit", "-qam", branch)
    merging = subprocess.run(
        ["git", "merge", "left"], cwd=first.root, env=first.env, capture_output=True, text=True
    )
    assert merging.returncode == 1
    assert "finetunes.tuned" in merging.stderr
    markers = (first.root / "params.yaml").read_text("utf-8").splitlines()
    line = markers.index("<<<<<<< ours") + 1
    for command in ("check", "status", "run"):
        error = first.toxtrail(command, code=1).stderr
        assert f"line {line}:" in error
        assert "params.yaml" in error
        assert "toxtrail merge" in error
    assert "finetunes.tuned" in first.toxtrail("merge", code=1).stderr
    first.git("merge", "--abort")
    lock = (first.root / "dvc.lock").read_text("utf-8")
    (first.root / "dvc.lock").write_text(f"{lock}<<<<<<< x\n", "utf-8")
    where = f"dvc.lock, line {len(lock.splitlines()) + 1}:"
    assert any(where in problem for problem in first.json("status")["damage"].splitlines())
    assert where in first.toxtrail("check", code=1).stdout
    assert where in first.toxtrail("run", code=1).stderr


def test_conflicts_of_a_clone_without_the_driver_are_resolved_afterwards(first):
    first.git("config", "--remove-section", "merge.toxtrail")
    assert any("merge --install" in note for note in first.json("check")["notes"])
    first.git("branch", "start")
    lock = (first.root / "dvc.lock").read_text("utf-8")
    for key in ("aa", "bb"):
        with_variant(first, key)
        (first.root / "dvc.lock").write_text(lock.replace("size: ", f"size: {ord(key[0])}", 1))
        first.git("commit", "-qam", "another lock")
    merging = subprocess.run(
        ["git", "merge", "aa"], cwd=first.root, env=first.env, capture_output=True, text=True
    )
    assert merging.returncode == 1
    assert "<<<<<<< " in (first.root / "dvc.lock").read_text("utf-8")
    first.toxtrail("merge")
    assert first.git("ls-files", "--unmerged") == ""
    assert set(first.params["variants"]) == {"base", "tuned", "aa", "bb"}
    merged = yaml.safe_load((first.root / "dvc.lock").read_text("utf-8"))["stages"]
    assert set(yaml.safe_load(lock)["stages"]) - set(merged) == {"prompts"}


def test_experiments_of_dvc_publish_to_the_experiment_itself(first):
    before = {run["run_id"] for run in first.json("runs")}
    records = set((first.root / "data/records").rglob("*.json"))
    first.dvc("exp", "run", "--queue", "-n", "lenient", "-S", "scoring.max_error_share=0.5")
    first.dvc("exp", "run", "--run-all")
    assert first.json("status")["stages"] == {}  # the folder itself is as before
    after = {run["run_id"] for run in first.json("runs")}
    assert before < after
    new_records = set((first.root / "data/records").rglob("*.json")) - records
    assert {path.parts[-3] for path in new_records} == {"score"}
    first.dvc("exp", "apply", "lenient")
    assert first.params["scoring"]["max_error_share"] == 0.5
    assert ran(first.toxtrail("run").stdout) <= PUBLISHING
    assert {run["run_id"] for run in first.json("runs")} == after
    checks = first.json("verify")["checks"]
    assert {c["outcome"] for c in checks if c["link"] == "executions"} == {"ok"}

    first.dvc("exp", "run", "-n", "short", "-S", "posterior.draws=1500")
    assert first.params["posterior"]["draws"] == 1500
    assert first.json("status")["stages"] == {}

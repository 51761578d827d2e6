"""The example workflows of docs/examples, executed step by step.

Stand-ins: `pip`, which installs nothing, `gh` and GitLab's API, which record the comment, and the
actions for checkout, Python and artifacts. `dvc` and `toxtrail` are forks (forks.py).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs
from xml.etree import ElementTree

import forks
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Lab

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
GITHUB = PROJECT / "docs/examples/github-gate.yml"
GITLAB = PROJECT / "docs/examples/gitlab-gate.yml"
INSTALL_AND_RUN = ("pip install", "dvc pull", "toxtrail run")
PIP = """#!/bin/sh
echo "$@" >> "$RUNNER_TEMP/pip.log"
"""
GH = """#!/bin/sh
set -e
test -n "$GH_TOKEN"
test "$1 $2 $3 $4" = "pr comment 7 --body-file"
cat "$5" >> "$RUNNER_TEMP/comments"
"""


@dataclass
class Job:
    """What a runner shows of a finished job."""

    code: int
    comments: list[str]
    artifacts: set[str]
    output: str


@pytest.fixture(scope="module")
def request_branch(finished, tmp_path_factory):
    """A checkout of a pull request that changes a threshold and was not run: its other results are
    on a DVC remote."""
    folder = tmp_path_factory.mktemp("workflow")
    author = finished.copy(folder / "author")
    shutil.rmtree(author.root / "mlruns")
    author.dvc("remote", "add", "--default", "team", str(folder / "remote"))
    author.dvc("push")
    author.edit(posterior={"threshold": {"judge": 0.88}, "level": 0.51})
    write_policy(author, 0.0)
    author.git("add", "-A")
    author.git("commit", "-qm", "threshold")
    subprocess.run(["git", "clone", "-q", author.root, folder / "clone"], check=True)
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (("pip", PIP), ("gh", GH)):
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    folders = (programs, forks.programs(), Path(sys.executable).parent)
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return Lab(folder / "clone", {**author.env, "PATH": path, "CI": "true"})


def write_policy(lab, limit):
    rules = {"max_increase_pp": limit}
    policy = {"against": "parent", "scorers": "primary", "rules": rules}
    (lab.root / "gate.yaml").write_text(yaml.safe_dump(policy), "utf-8")


def check_decisions(lab, run_job):
    """Each decision: the job's result, its one comment with numbers only, and its JUnit file."""
    for decision, code in (("pass", 0), ("fail", 4), ("not decided", 5)):
        limits = {"pass": 100.0, "fail": 0.0}
        write_policy(lab, limits[decision] if decision in limits else observed_points(lab))
        job = run_job(() if decision == "pass" else finished_steps(lab))
        assert job.code == code, job.output
        (comment,) = job.comments
        assert comment.startswith(f"### toxtrail gate: {decision}")
        texts = pq.read_table(lab.root / "data/generations/tiny/tuned.parquet")["text"].to_pylist()
        assert [text for text in texts if text.strip() and text in comment] == []
        assert {"gate.xml", "comment.md"} <= job.artifacts
        suite = ElementTree.fromstring((lab.root / "gate.xml").read_text("utf-8"))
        counts = {name: int(suite.attrib[name]) for name in ("failures", "errors")}
        assert counts == {"failures": code == 4, "errors": code == 5}


def finished_steps(lab):
    """Steps that need not be repeated."""
    return INSTALL_AND_RUN if (lab.root / "results").exists() else ()


def observed_points(lab):
    (family,) = lab.json("compare")
    (pair,) = [row for row in family["pairs"] if row["subset"] == "all"]
    return 100 * pair["diff"]


# --- GitHub Actions -----------------------------------------------------------------------------

CONDITIONS = {
    "github.event.pull_request.head.repo.full_name != github.repository": lambda values: (
        values["github.event.pull_request.head.repo.full_name"] != values["github.repository"]
    ),
}
"""`if` of a step -> its value; each also requires that no step before it has failed."""


def github_job(lab, folder, head="org/repo", skip=()):
    """Run the steps of the job as the runner does, but those whose command begins with one of
    `skip`."""
    job = yaml.safe_load(GITHUB.read_text("utf-8"))["jobs"]["gate"]
    values = {
        "github.event.pull_request.head.repo.full_name": head,
        "github.repository": "org/repo",
        "github.event.pull_request.number": "7",
        "github.token": "token",
        "secrets.AWS_ACCESS_KEY_ID": "id",
        "secrets.AWS_SECRET_ACCESS_KEY": "key",
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    summary = str(folder / "GITHUB_STEP_SUMMARY")
    code, output, artifacts = 0, "", set()
    for step in job["steps"]:
        condition = step.get("if")
        if code or (condition and not CONDITIONS[condition](values)):
            continue
        if "uses" in step:
            if step["uses"].startswith("actions/upload-artifact@"):
                artifacts |= {p for p in step["with"]["path"].split() if (lab.root / p).exists()}
            continue
        if step["run"].startswith(skip):
            continue
        result = folder / f"output-{step.get('id')}"
        env = {**lab.env, "RUNNER_TEMP": str(folder), **job["env"], **step.get("env", {})}
        env |= {"GITHUB_OUTPUT": str(result), "GITHUB_STEP_SUMMARY": summary}
        env = {name: substituted(value, values) for name, value in env.items()}
        code, printed = run_script(lab, substituted(step["run"], values), env)
        output += printed
        for line in lines(result):
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
    comments = folder / "comments"
    posted = [comments.read_text("utf-8")] if comments.exists() else []
    return Job(code, posted, artifacts, output)


def substituted(text, values):
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: values[match[1]], text)


def run_script(lab, script, env):
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=lab.root, env=env, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def lines(path):
    return path.read_text("utf-8").splitlines() if path.exists() else []


def test_the_github_workflow_comments_and_ends_with_the_decision(request_branch, tmp_path):
    folder = tmp_path / "runner"
    check_decisions(request_branch, lambda skip: github_job(request_branch, folder, skip=skip))
    summary = (folder / "GITHUB_STEP_SUMMARY").read_text("utf-8")
    assert summary == (folder / "comments").read_text("utf-8")


def test_an_error_of_the_gate_fails_the_github_workflow_without_a_comment(request_branch, tmp_path):
    write_policy(request_branch, -1.0)
    job = github_job(request_branch, tmp_path / "runner", skip=finished_steps(request_branch))
    assert (job.code, job.comments) == (1, [])


def test_a_fork_fails_before_its_code_is_run(request_branch, tmp_path):
    job = github_job(request_branch, tmp_path / "runner", head="other/repo")
    assert (job.code, job.comments) == (1, [])
    assert lines(tmp_path / "runner/pip.log") == []


def test_github_actions_are_pinned_and_secrets_reach_one_step():
    workflow = yaml.safe_load(GITHUB.read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)
    with_secrets = [step["name"] for step in job["steps"] if "secrets." in str(step)]
    assert with_secrets == ["Pull"]
    assert "secrets." not in str(job["env"])
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert workflow[True] == "pull_request"  # `on`, which YAML 1.1 reads as a truth value


# --- GitLab CI ----------------------------------------------------------------------------------


@pytest.fixture
def notes():
    """GitLab's API: its address, and the requests it received as (path, token, body)."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.append((self.path, self.headers["PRIVATE-TOKEN"], parse_qs(body)["body"][0]))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v4", received
    server.shutdown()
    thread.join()
    server.server_close()


def gitlab_job(lab, folder, notes, token="secret", skip=()):
    """Run the lines of the script as GitLab's runner does: in one shell, which ends at an error."""
    job = yaml.safe_load(GITLAB.read_text("utf-8"))["toxtrail-gate"]
    address, received = notes
    received.clear()
    folder.mkdir(exist_ok=True)
    env = {
        **lab.env, **job["variables"], "RUNNER_TEMP": str(folder), "GITLAB_TOKEN": token,
        "CI_API_V4_URL": address, "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7",
    }  # fmt: skip
    script = "\n".join(line for line in job["script"] if not line.startswith(skip))
    code, output = run_script(lab, f"set -o pipefail\n{script}", env)
    assert {(path, sent) for path, sent, _ in received} <= {
        ("/api/v4/projects/3/merge_requests/7/notes", "secret")
    }
    artifacts = {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]}
    assert job["artifacts"]["when"] == "always"
    return Job(
        code,
        [body for _, _, body in received],
        {name for name in artifacts if (lab.root / name).exists()},
        output,
    )


def test_the_gitlab_job_comments_and_ends_with_the_decision(request_branch, notes, tmp_path):
    folder = tmp_path / "runner"
    check_decisions(
        request_branch, lambda skip: gitlab_job(request_branch, folder, notes, skip=skip)
    )
    job = yaml.safe_load(GITLAB.read_text("utf-8"))["toxtrail-gate"]
    assert job["allow_failure"] == {"exit_codes": 5}


def test_the_gitlab_job_without_a_token_decides_without_a_comment(request_branch, notes, tmp_path):
    write_policy(request_branch, 0.0)
    job = gitlab_job(
        request_branch, tmp_path / "runner", notes, token="", skip=finished_steps(request_branch)
    )
    assert (job.code, job.comments) == (4, [])


def test_an_error_of_the_gate_fails_the_gitlab_job(request_branch, notes, tmp_path):
    write_policy(request_branch, -1.0)
    job = gitlab_job(
        request_branch, tmp_path / "runner", notes, skip=finished_steps(request_branch)
    )
    assert (job.code, job.comments) == (1, [])


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (GITHUB, ["vendor.github-workflows"]),
        (GITLAB, ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
    ids=["github", "gitlab"],
)
def test_an_example_is_valid_by_the_published_schema(path, options):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

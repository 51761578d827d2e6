"""docs/team.md, followed literally: its commands, in order, in one shell.

PostgreSQL, S3 and MLflow are real servers. A test has other values for the variables of the page
(blocks in `VALUES`), installs nothing, and replaces the models of the new experiment by tiny ones.
`toxtrail` and `dvc` are forks of one process (forks.py).
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pages
import pytest
import team_servers
import yaml
from conftest import Lab

pytestmark = pytest.mark.slow

PAGE = "team.md"
TIMEOUT_S = 1800
VALUES = re.compile(r"export [A-Z_]+=")
"""Beginning of a block of values, each different in every team."""
RUNNING = re.compile(r"^Running stage '(.*)'", re.M)


def is_values(heading: str, block: str) -> bool:
    return heading == "Values of the team" or all(map(VALUES.match, block.splitlines()))


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A value for every variable of the page, and the servers behind them."""
    folder = tmp_path_factory.mktemp("team")
    certificates = team_servers.make_certificates(folder)
    port = team_servers.free_port()
    with team_servers.postgres() as database, team_servers.object_store(folder) as objects:
        for name in ("runs", "logins"):
            database.rows("postgres", f"CREATE DATABASE {name}")
        yield {
            "MLFLOW_TRACKING_URI": f"https://127.0.0.1:{port}/mlflow",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificates.authority),
            "BUCKET": f"s3://{team_servers.BUCKET}",
            "S3_ENDPOINT": objects.url,
            **team_servers.S3_KEYS,
            "REPOSITORY": str(folder / "repository.git"),
            "PARENT": "base",
            "WEIGHTS": "assets/lora",
            "RUNS_DATABASE": database.uri("runs"),
            "LOGINS_DATABASE": database.uri("logins"),
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(port),
            "SERVER_NAME": f"127.0.0.1:{port}",
            "SERVER_CERTIFICATE": str(certificates.certificate),
            "SERVER_KEY": str(certificates.key),
            **{
                f"{who}_PASSWORD": secrets.token_hex(8)
                for who in ("ADMIN", "ANN", "BOB", "AUDITOR")
            },
        }


def test_the_values_of_the_test_are_those_of_the_page(values):
    text = "".join(block for heading, block in pages.blocks(PAGE) if is_values(heading, block))
    assert set(re.findall(r"(?<=[ \n])([A-Z][A-Z0-9_]*)=", f" {text}")) == set(values)


def test_two_people_and_an_auditor_follow_the_page(values, finished, tmp_path):
    env = environment(values, finished)
    printed = pages.run(script(finished), env, tmp_path, TIMEOUT_S)
    ann, bob, auditor = (Lab(tmp_path / name, env) for name in ("detox", "detox-bob", "audit"))
    (first,), (second,) = ann.json("compare"), bob.json("compare")
    assert first == second
    assert {row["variant"] for row in first["variants"]} == {"base", "tuned", "added"}
    publishing = ("track@", "track-comparison@")
    first_run, second_run, last_run = (
        {name for name in RUNNING.findall(part) if not name.startswith(publishing)}
        for part in printed.split("++ second person")
    )
    assert {"generate@base", "generate@tuned"} <= first_run
    assert {"generate@added", "compare@tiny"} <= second_run
    assert {name.partition("@")[2] for name in second_run} <= {"added", "tiny", ""}
    assert last_run == set()
    assert (auditor.root / "added.zip").is_file()
    assert not [
        secret for name, secret in values.items() if "PASSWORD" in name and secret in printed
    ]


def environment(values, finished):
    subprocess.run(["git", "init", "-q", "--bare", values["REPOSITORY"]], check=True)
    path = os.pathsep.join(
        map(str, (forks.programs(), Path(sys.executable).parent, os.environ["PATH"]))
    )
    identity = {f"GIT_{role}_{what}": f"{role}@example.org"
                for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
    return {
        **finished.env, **values, **identity, "PATH": path,
        "AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # fmt: skip


def script(finished):
    """The page as a program that ends at the first error."""
    lines = ["set -euo pipefail"]
    for heading, block in pages.blocks(PAGE):
        if is_values(heading, block) or heading == "Packages":
            continue
        title = heading.lower().removeprefix("the ")
        lines += [shlex.join(["echo", f"++ {title}"]), block]
        if "toxtrail init" in block:
            lines.append(f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} {finished.root}")
    return "\n".join(lines)


def put_tiny_models(finished: Path) -> None:
    """Replace the models and data of the new experiment in this folder by tiny ones."""
    tracking = yaml.safe_load(Path("params.yaml").read_text("utf-8"))["tracking"]
    params = yaml.safe_load((finished / "params.yaml").read_text("utf-8"))
    Path("params.yaml").write_text(
        yaml.safe_dump({**params, "tracking": tracking}, sort_keys=False), "utf-8"
    )
    shutil.copytree(finished / "assets", "assets")
    shutil.copytree(finished / "models/tuned/adapters/tuned", "assets/lora")


if __name__ == "__main__":
    put_tiny_models(Path(sys.argv[1]))

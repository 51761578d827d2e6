"""A whole experiment in a folder of its own: real DVC, real MLflow, the installed command.

The models are tiny and random: these tests are about the plumbing, never about toxicity.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import pytest
import yaml
from filelock import FileLock
from kept import Kept

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Lab:
    """One experiment and the commands on it."""

    root: Path
    env: dict[str, str]

    def toxtrail(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """The command, in a process that is a fork (`forks.py`); checks its exit code unless `code`
        is None."""
        done = forks.run("toxtrail", arguments, self.root, self.env)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def installed(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """The same by the installed command, which imports all that it needs."""
        done = forks.itself("toxtrail", arguments, self.root, self.env)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The installed command, running on its own."""
        command = [str(Path(sys.executable).with_name("toxtrail")), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        command = ["git", *identity, *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self.env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def dvc(self, *arguments: str) -> None:
        done = forks.run("dvc", arguments, self.root, self.env)
        assert done.returncode == 0, done.stdout + done.stderr

    def copy(self, root: Path) -> Lab:
        """The whole experiment at another place."""
        shutil.copytree(self.root, root, symlinks=True)
        return Lab(root, self.env)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.toxtrail(*arguments, "--json").stdout)

    @property
    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))

    def edit(self, **sections: dict[str, Any]) -> None:
        """Merge values into params.yaml."""
        values = self.params
        for name, section in sections.items():
            values[name] = {**values[name], **section}
        (self.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")

    def outputs(self) -> dict[str, bytes]:
        """Every file that a stage made, by name."""
        folders = ("data", "models", "results", "report", "mlruns/receipts")
        paths = [p for f in folders for p in (self.root / f).rglob("*") if p.is_file()]
        return {
            p.relative_to(self.root).as_posix(): p.read_bytes()
            for p in paths
            if "records" not in p.parts and p.name != ".gitignore"
        }


@pytest.fixture(scope="session")
def tiny_assets(tmp_path_factory) -> Path:
    """A tokenizer, a random Llama, a random classifier, prompts and training data."""
    folder = tmp_path_factory.mktemp("assets")
    env = {**forks.ENVIRONMENT, **forks.SETTINGS}
    done = forks.run("make_assets", [str(folder)], folder, env)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def lab(tiny_assets, tmp_path) -> Lab:
    """A fresh experiment, committed to git, with nothing run yet."""
    return make_lab(tiny_assets, tmp_path / "lab")


@pytest.fixture(scope="session")
def finished(tiny_assets, tmp_path_factory) -> Lab:
    """An experiment that has been run once and committed; all tests share it and put back what they
    move. One process of pytest-xdist runs it, the others have copies."""
    own = tmp_path_factory.mktemp("finished")
    shared = tmp_path_factory.getbasetemp().parent / "finished"
    if "PYTEST_XDIST_TESTRUNUID" not in os.environ:
        return run_lab(tiny_assets, own / "lab")
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            made = run_lab(tiny_assets, own / "lab")
            shutil.copytree(own, f"{shared}.new", symlinks=True)
            Path(f"{shared}.new/place").write_text(str(made.root), "utf-8")
            Path(f"{shared}.new").rename(shared)
            return made
    shutil.copytree(shared, own, symlinks=True, dirs_exist_ok=True)
    move_store(own / "lab", (own / "place").read_text("utf-8"))
    return Lab(own / "lab", lab_env(own / "lab"))


def run_lab(assets: Path, root: Path) -> Lab:
    made = make_lab(assets, root)
    made.toxtrail("pin")
    made.git("commit", "-qam", "pins")
    made.toxtrail("run")
    made.git("add", "-A")
    made.git("commit", "-qm", "run")
    return made


def move_store(root: Path, old: str) -> None:
    """Correct the absolute paths in the MLflow store of a copied experiment."""
    columns = {"experiments": "artifact_location", "runs": "artifact_uri",
               "logged_models": "artifact_location"}  # fmt: skip
    with closing(sqlite3.connect(root / "mlruns/mlflow.db")) as database:
        for table, column in columns.items():
            value = f"replace({column}, ?, ?)"
            database.execute(f"UPDATE {table} SET {column} = {value}", (old, str(root)))
        database.commit()


@pytest.fixture(scope="session")
def kept(finished, tmp_path_factory) -> Kept:
    """A copy of the finished experiment."""
    return Kept(finished.root, tmp_path_factory.mktemp("kept") / "lab")


@pytest.fixture
def breakable(finished, kept) -> Iterator[Lab]:
    """The finished experiment, to be changed at will: it is put back afterwards."""
    yield finished
    kept.put_back()
    close_stores()


def close_stores() -> None:
    """Close MLflow's connections in this process. MLflow keeps one for each address, and it still
    reads the file of a database that was put back since."""
    for name in ("tracking", "model_registry"):
        module = sys.modules.get(f"mlflow.store.{name}.sqlalchemy_store")
        for engine in module.SqlAlchemyStore._engine_map.values() if module else ():
            engine.dispose()


@pytest.fixture
def new_lab(tiny_assets, tmp_path):
    """Makes another fresh experiment."""
    return lambda name: make_lab(tiny_assets, tmp_path / name / "lab")


def make_lab(assets: Path, root: Path) -> Lab:
    root.mkdir(parents=True)
    for name in ("src", ".dvc", "data"):
        shutil.copytree(PROJECT / name, root / name, ignore=_ignored)
    for name in ("dvc.yaml", "requirements.txt", ".dvcignore", ".gitignore"):
        shutil.copy(PROJECT / name, root / name)
    shutil.copytree(assets, root / "assets")
    shutil.copy(assets / "params.yaml", root / "params.yaml")
    (root / "assets" / "params.yaml").unlink()
    lab = Lab(root, lab_env(root))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        lab.git(*command)
    return lab


def lab_env(root: Path) -> dict[str, str]:
    """Caches and settings of its own, beside an experiment."""
    state = root.parent / "state"
    env = {
        **forks.ENVIRONMENT,
        "DVC_SITE_CACHE_DIR": str(state / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(state / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(state / "system"),
        "TOXTRAIL_CACHE": str(state / "cache"),
        **forks.SETTINGS,
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT"):
        env.pop(name, None)
    return env


def _ignored(folder: str, names: list[str]) -> set[str]:
    """Not what earlier runs left in the project."""
    outputs = {"generations", "scores", "records", "prompts.parquet", "prompts_card.json"}
    left = {"__pycache__", "tmp", "cache", *(outputs if Path(folder).name == "data" else ())}
    return {n for n in names if n in left or n.endswith(".egg-info")}

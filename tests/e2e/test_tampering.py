"""Every single tampering is found and located; what is untouched is left in peace."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

import tampering
from toxtrail.audit.verify import gather, verify
from toxtrail.backends.base import Silent
from toxtrail.cli.experiment import Experiment

pytestmark = pytest.mark.slow
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.org"]


@pytest.fixture(scope="module")
def committed(finished):
    """The finished experiment with its results committed, seen by this process too."""
    git = ["git", *IDENTITY]
    subprocess.run([*git, "add", "-A"], cwd=finished.root, check=True)
    subprocess.run([*git, "commit", "-qm", "run"], cwd=finished.root, env=finished.env, check=True)
    before = {name: os.environ.get(name) for name in finished.env}
    os.environ.update(finished.env)
    yield finished
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def broken_links(root):
    experiment = Experiment(root)
    checks = verify(gather(experiment.store, experiment.config, Silent()), ())
    return [c for c in checks if c.outcome == "BROKEN"], checks


def put_back(kept, root):
    """Time stamps and all. The database is written in place: MLflow holds it open."""
    for path in root.iterdir():
        if path.name == "mlruns":
            for inner in path.iterdir():
                remove(inner) if inner.name != "mlflow.db" else None
        else:
            remove(path)
    shutil.copytree(
        kept, root, symlinks=True, dirs_exist_ok=True, ignore=lambda f, n: {"mlflow.db"} & set(n)
    )
    with (
        closing(sqlite3.connect(kept / "mlruns/mlflow.db")) as source,
        closing(sqlite3.connect(root / "mlruns/mlflow.db")) as target,
    ):
        source.backup(target)


def remove(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def test_every_single_tampering_is_found_and_located(committed, tmp_path):
    root = committed.root
    shutil.copytree(root, tmp_path / "kept", symlinks=True)
    changes = [*tampering.named(), *tampering.flips(root, root)]
    assert len(changes) >= 100
    missed = []
    for change in changes:
        change.apply(root)
        found, _ = broken_links(root)
        named = [f"{c.name} {c.detail}" for c in found]
        if not any(change.located in text for text in named):
            missed.append((change.name, change.located, named[:5]))
        put_back(tmp_path / "kept", root)
    assert missed == []
    assert broken_links(root)[0] == []

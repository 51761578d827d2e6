"""Every single tampering is found and located; what is untouched is left in peace."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tampering
import yaml
from conftest import Lab
from kept import Kept
from remembered import remembered

from toxtrail.auditing.bundle.signing import public_key
from toxtrail.auditing.verify import context, rows
from toxtrail.auditing.verify import run as verify_run
from toxtrail.auditing.verify.hash_cache import dvc_files
from toxtrail.auditing.verify.run import load_context, verify
from toxtrail.backends.protocols import NoProgress
from toxtrail.experiment import Experiment
from toxtrail.provenance.identity import Manifest
from toxtrail.stages import report
from toxtrail.stats import bayesian_bootstrap
from toxtrail.storage import artifacts

pytestmark = pytest.mark.slow
PARTS = 4
"""So that the cores can share the longest test."""


@pytest.fixture
def own(finished, tmp_path, monkeypatch):
    """A copy of the finished experiment, seen by this process too."""
    for name, value in finished.env.items():
        monkeypatch.setenv(name, value)
    return finished.copy(tmp_path / "lab")


PURE = (
    (verify_run, "parse_lock"), (context, "parse_lock"), (artifacts, "parse_summary"),
    (rows, "compare_family"), (rows, "estimate_variant_rates"), (rows, "rows_from_draws"),
    (bayesian_bootstrap, "_interval"), (report, "render"),
)  # fmt: skip
"""Functions of verification whose result depends on their arguments alone."""
remember = cache(remembered)
"""One store of results for all tests here."""
MANIFESTS: dict[str, Manifest | None] = {}
"""By the hash of their file."""


@pytest.fixture
def once_for_all(monkeypatch):
    """Verification computes every number again, for each tampering: a result of the same arguments
    is taken from the first time."""
    for module, name in PURE:
        monkeypatch.setattr(module, name, remember(getattr(module, name)))


def broken_links(root, key=None):
    experiment = Experiment(root)
    keys = [public_key(Path(key))] if key else []
    evidence = load_context(experiment.store, experiment.config, NoProgress())
    checks = verify(replace(evidence, manifests=MANIFESTS), (), keys)
    return [c for c in checks if c.outcome == "BROKEN"], checks


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.usefixtures("once_for_all")
def test_every_single_tampering_is_found_and_located(own, tmp_path, part):
    root = own.root
    kept = Kept(root, tmp_path / "kept")
    single, groups = tampering.alone_and_together(tampering.flips(root, root))
    walk = [[change] for change in (*tampering.named(), *single)] + groups
    assert sum(map(len, walk)) >= 100
    every = {change.located for group in groups for change in group}
    missed = []
    for changes in walk[part::PARTS]:
        for change in changes:
            change.apply(root)
        found, _ = broken_links(root)
        named = [f"{c.name} {c.detail}" for c in found]
        for change in changes:
            if not any(change.located in text for text in named):
                missed.append((change.name, change.located, named[:5]))
        if len(changes) > 1:  # each by its own damage: nothing else of their kind is named
            touched = {change.located for change in changes}
            assert {one for one in every if any(one in text for text in named)} == touched
        kept.put_back()
    assert missed == []
    assert broken_links(root)[0] == []


@pytest.mark.usefixtures("once_for_all")
def test_every_output_is_signed_or_computed_again(own, tmp_path):
    """Each is forged together with dvc.lock and DVC's cache; verification with the key names it."""
    root, key = own.root, tmp_path / "k.pem"
    own.toxtrail("sign", "--new-key", str(key))
    own.toxtrail("sign", "--key", str(key))
    lock = yaml.safe_load((root / "dvc.lock").read_text("utf-8"))["stages"].values()
    outs = {row["path"] for entry in lock for row in entry["outs"]}
    files = {path.relative_to(root).as_posix() for out in outs for path in dvc_files(root / out)}
    proved = {n for n in files if n.endswith(".safetensors") or n.startswith("mlruns/receipts/")}
    assert broken_links(root, f"{key}.pub")[0] == []
    kept = Kept(root, tmp_path / "kept")
    for group in (proved, files - proved):  # by a card or the files behind them; by a signature
        for number, name in enumerate(sorted(group)):
            tampering.flip(root / name, number)
        tampering.relocked(root)
        said = [f"{c.name} {c.detail}" for c in broken_links(root, f"{key}.pub")[0]]
        assert [n for n in group if not any(tampering.located_in(n, one) for one in said)] == []
        kept.put_back()


def clone(lab, place):
    """Git alone: no data, no cache, no runs."""
    lab.git("clone", "-q", str(lab.root), str(place))
    return Lab(place, lab.env)


def moved(lab, place):
    shutil.move(lab.copy(place.with_name("first")).root, place)
    return Lab(place, lab.env)


def pulled(lab, place):
    """Cloned, and its outputs fetched from a DVC remote."""
    remote = str(place.with_name("remote"))
    lab.dvc("remote", "add", "-d", "--local", "here", remote)
    lab.dvc("push", "-q")
    other = clone(lab, place)
    other.dvc("remote", "add", "-d", "--local", "here", remote)
    other.dvc("pull", "-q", "--allow-missing")
    return other


def rebuilt(lab, place):
    other = lab.copy(place)
    shutil.rmtree(other.root / "mlruns")
    other.toxtrail("run")
    return other


def collected(lab, place):
    other = lab.copy(place)
    other.git("gc", "-q", "--aggressive", "--prune=now")
    other.dvc("gc", "-w", "-f", "-q")
    return other


def shallow(lab, place):
    lab.git("clone", "-q", "--depth", "1", f"file://{lab.root}", str(place))
    return Lab(place, lab.env)


def touched(lab, place):
    """Other time stamps, other modes: the same bytes."""
    other = lab.copy(place)
    for path in other.root.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.chmod(0o644)
            os.utime(path, (1, 1))
    return other


def without_cache(lab, place):
    other = lab.copy(place)
    shutil.rmtree(other.root / ".dvc" / "cache")
    return other


def without_runs(lab, place):
    other = lab.copy(place)
    shutil.rmtree(other.root / "mlruns")
    return other


def checked_out_again(lab, place):
    """Outputs deleted and brought back from DVC's cache."""
    other = lab.copy(place)
    for name in ("data/scores", "results", "models"):
        shutil.rmtree(other.root / name)
    other.dvc("checkout", "-q", "--force")
    return other


def repeated(lab, place):
    """`dvc repro` with nothing to do."""
    lab.toxtrail("run")
    return lab


def commented(lab, place):
    path = lab.root / "params.yaml"
    path.write_text(f"# a remark\n{path.read_text('utf-8')}", "utf-8")
    return lab


def documented(lab, place):
    (lab.root / "notes.md").write_text("Results as of today.\n", "utf-8")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "notes")
    return lab


def branched(lab, place):
    lab.git("switch", "-qc", "other")
    lab.git("switch", "-q", "-")
    return lab


def linked(lab, place):
    place.symlink_to(lab.root)
    return Lab(place, lab.env)


def annotated(lab, place):
    """A colleague's own tag on a run."""
    tampering.sql(
        "insert into tags (key, value, run_uuid) "
        "select 'reviewed by', 'me', run_uuid from runs where name = 'tuned'"
    )(lab.root)
    return lab


def extended(lab, place):
    """An own stage behind ours."""
    path = lab.root / "dvc.yaml"
    path.write_text(f"{path.read_text('utf-8')}\n  own:\n    cmd: echo\n    outs: [own]\n", "utf-8")
    return lab


def retracked(lab, place):
    """One run deleted with its receipt, and made again."""
    shutil.rmtree(lab.root / "mlruns")
    lab.toxtrail("run")
    tampering.deleted_run(lab.root)
    (lab.root / "mlruns/receipts/variants/tiny/tuned.json").unlink()
    lab.toxtrail("run")
    return lab


def rewound(lab, place):
    """Run again with other values and committed; then the first commit checked out."""
    shutil.rmtree(lab.root / "mlruns")
    lab.toxtrail("run")
    lab.edit(posterior={"threshold": {"judge": 0.45}})
    lab.toxtrail("run")
    lab.git("commit", "-qam", "another threshold")
    lab.git("checkout", "-q", "HEAD~1")
    lab.dvc("checkout", "-q")
    return lab


def worktree(lab, place):
    """A second work tree of the same git repository, on the same DVC cache."""
    lab.git("worktree", "add", "-q", str(place))
    other = Lab(place, lab.env)
    other.dvc("cache", "dir", "--local", str(lab.root / ".dvc/cache"))
    other.dvc("checkout", "-q", "--allow-missing")
    return other


def in_a_larger_repo(lab, place):
    """A folder of a repository, with DVC set up above it."""
    shutil.copytree(lab.root, place / "exp", symlinks=True)
    shutil.move(place / "exp/.dvc", place / ".dvc")
    shutil.rmtree(place / "exp/.git")
    other = Lab(place, lab.env)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        other.git(*command)
    return Lab(place / "exp", lab.env)


def renamed_place(lab, place):
    return moved(lab, place.with_name("Ünsere Läbs (2)"))


def other_store(lab, place):
    """MLflow's address leads to a store where nothing was tracked."""
    uri = f"sqlite:///{place.with_name('other.db')}"
    return Lab(lab.root, {**lab.env, "MLFLOW_TRACKING_URI": uri})


def silent_server(lab, place):
    return Lab(lab.root, {**lab.env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})


def served(lab, place):
    """The same runs, asked of a store that is not the experiment's own."""
    shutil.copy(lab.root / "mlruns/mlflow.db", place.with_name("team.db"))
    uri = f"sqlite:///{place.with_name('team.db')}"
    return Lab(lab.root, {**lab.env, "MLFLOW_TRACKING_URI": uri})


UNTOUCHED = {
    "as it is": lambda lab, place: lab,
    "copied": lambda lab, place: lab.copy(place),
    "moved": moved,
    "cloned": clone,
    "cloned, shallow": shallow,
    "pulled from a remote": pulled,
    "mlruns rebuilt": rebuilt,
    "after git gc and dvc gc": collected,
    "other time stamps and modes": touched,
    "no DVC cache": without_cache,
    "no MLflow store": without_runs,
    "checked out again": checked_out_again,
    "run again": repeated,
    "a remark in params.yaml": commented,
    "a commit of notes": documented,
    "another branch and back": branched,
    "seen through a link": linked,
    "a colleague's tag": annotated,
    "an own stage": extended,
    "one run made again": retracked,
    "an older commit": rewound,
    "a second work tree": worktree,
    "in a larger repo": in_a_larger_repo,
    "a path with spaces and umlauts": renamed_place,
    "another MLflow store": other_store,
    "a server that is silent": silent_server,
    "a store elsewhere": served,
}


@pytest.mark.parametrize("how", list(UNTOUCHED))
def test_what_is_untouched_is_left_in_peace(finished, tmp_path, how):
    start = finished if how == "as it is" else finished.copy(tmp_path / "start")
    lab = UNTOUCHED[how](start, tmp_path / "lab")
    checks = lab.json("verify")["checks"]
    assert [c for c in checks if c["outcome"] == "BROKEN"] == []
    missing = [c for c in checks if c["outcome"] == "absent"]
    without = (
        "cloned",
        "cloned, shallow",
        "pulled from a remote",
        "no DVC cache",
        "no MLflow store",
        "an older commit",
        "a second work tree",
        "another MLflow store",
        "a server that is silent",
    )
    assert bool(missing) == (how in without)

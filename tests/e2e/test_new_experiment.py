"""An experiment made from the wheel, in an empty folder, with none of this checkout around."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import forks
import pytest
from conftest import PROJECT, Lab
from packaging.specifiers import SpecifierSet

import toxtrail

pytestmark = pytest.mark.slow


@dataclass
class Installed(Lab):
    """The command of an environment of its own."""

    bin: Path
    forks: str | None = None
    """Address of a fork server of that environment (`forks.py`), from when on commands are forks of
    it."""

    def toxtrail(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / "toxtrail"), *arguments]
        if self.forks:
            done = forks.ask(self.forks, "toxtrail", arguments, self.root, self.env)
        else:
            done = subprocess.run(
                command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False
            )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built from a copy: a build leaves files in the source."""
    folder = tmp_path_factory.mktemp("sdist")
    kept = ("src", "data/sources", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")
    for name in (*kept, ".gitattributes", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE",
                 "CHANGELOG.md", "CITATION.cff", "params.yaml", "dvc.yaml",
                 "requirements.txt"):  # fmt: skip
        source, target = PROJECT / name, folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            clutter = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, symlinks=True, ignore=clutter)
        else:
            shutil.copy(source, target)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    command = [sys.executable, "-c", build]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    (built,) = folder.glob("toxtrail-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist) -> Path:
    """Built from the source distribution, as `python -m build` and installers do."""
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(sdist.parent)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(sdist)], check=True)
    (built,) = sdist.parent.glob("toxtrail-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tiny_assets, tmp_path_factory) -> Installed:
    """toxtrail from the wheel; the packages that it needs are those of this environment."""
    home = tmp_path_factory.mktemp("user")
    venv.create(home / "venv", with_pip=False)
    python = home / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (home / "venv/lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {
        **{name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ},
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "TOXTRAIL_CACHE": str(home / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)},
        **{f"GIT_{who}_EMAIL": "test@example.org" for who in ("AUTHOR", "COMMITTER")},
    }
    return Installed(home, env, home / "venv/bin")


@pytest.fixture(scope="module")
def experiment(installed, tiny_assets) -> Installed:
    """`toxtrail init`, then other values and weights: tiny ones."""
    installed.toxtrail("init", "mine", "--preset", "demo")
    mine = Installed(installed.root / "mine", installed.env, installed.bin)
    shutil.copytree(tiny_assets, mine.root / "assets")
    (mine.root / "assets/params.yaml").replace(mine.root / "params.yaml")
    mine.toxtrail("pin")
    mine.toxtrail("run")
    mine.git("add", "-A")
    mine.git("commit", "-qm", "run")
    mine.forks = forks.start(str(mine.bin / "python"), mine.env)
    return mine


def package_files(folder: Path) -> dict[str, bytes]:
    """File, relative to the folder that contains the package -> its content; links are followed."""
    return {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    info = f"toxtrail-{toxtrail.__version__}.dist-info"
    metadata = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    others = {f"{info}/{name}" for name in (*metadata, "top_level.txt")}
    expected = package_files(PROJECT / "src/toxtrail")
    assert set(inside) == set(expected) | others
    assert {name: inside[name] for name in expected} == expected
    assert expected["toxtrail/presets/demo.yaml"] == (PROJECT / "params.yaml").read_bytes()
    for path in {str(PROJECT), str(wheel.parent), str(Path.home())}:
        assert not [name for name, content in inside.items() if f"{path}/".encode() in content]


def test_the_metadata_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = f"toxtrail-{toxtrail.__version__}.dist-info/METADATA"
        metadata = message_from_bytes(archive.read(name))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata["Version"] == toxtrail.__version__
    assert SpecifierSet(metadata["Requires-Python"]) == SpecifierSet(project["requires-python"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == (PROJECT / "README.md").read_bytes()
    assert len(metadata.get_all("Requires-Dist")) >= len(project["dependencies"])


def test_the_source_distribution_has_the_package_and_what_builds_it(sdist):
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    files = {name for name, member in members.items() if member.isfile()}
    package = {f"src/{name}" for name in package_files(PROJECT / "src/toxtrail")}
    top = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"}
    rest = {name for name in files if not name.startswith("src/toxtrail.egg-info/")}
    assert rest == package | top | {"pyproject.toml", "setup.cfg"}
    assert all(member.isfile() or member.isdir() for member in members.values())


def test_nothing_of_the_checkout_is_imported(installed):
    program = "import sys, toxtrail; print(toxtrail.__file__); print(*sys.path, sep='\\n')"
    done = subprocess.run(
        [installed.bin / "python", "-c", program],
        cwd=installed.root, env=installed.env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    where, *path = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed.root / "venv")
    assert str(PROJECT / "src") not in path


def test_dvc_understands_the_papers_preset(installed):
    """Its params.yaml has anchors and merges, which are no part of YAML 1.2."""
    installed.toxtrail("init", "replication", "--preset", "paper", "--no-git")
    paper = Installed(installed.root / "replication", installed.env, installed.bin)
    stale = paper.json("status")["stages"]
    assert sum(name.startswith("generate@") for name in stale) == 26
    assert sum(name.startswith("finetune@") for name in stale) == 6


def test_an_experiment_without_source_is_read_verified_and_upgraded(experiment):
    """One test: another process of pytest-xdist would have to run the experiment again."""
    holds_an_experiment_and_no_source(experiment)
    shows_walks_back_and_verifies_its_results(experiment)
    runs_the_stages_whose_code_an_upgrade_changed_and_no_other(experiment)


def holds_an_experiment_and_no_source(experiment):
    assert experiment.git("log", "--format=%s").splitlines() == ["run", "A new experiment"]
    assert not (experiment.root / "src").exists()
    (line,) = experiment.toxtrail("status").stdout.splitlines()
    assert re.match("Every stage .*up to date", line)


def shows_walks_back_and_verifies_its_results(experiment):
    assert [found["family"] for found in experiment.json("compare")] == ["tiny"]
    assert (experiment.root / "report/index.html").is_file()
    assert "ok" in experiment.toxtrail("audit", "tuned", "--verify").stdout
    assert "checks passed" in experiment.toxtrail("verify", "--require-all").stdout
    assert {run["name"] for run in experiment.json("runs")} >= {"base", "tuned"}


def runs_the_stages_whose_code_an_upgrade_changed_and_no_other(experiment):
    (package,) = (experiment.bin.parent / "lib").glob("python*/site-packages/toxtrail")
    with (package / "stages/report.py").open("a") as file:
        file.write("# another version\n")
    assert "for: report. Run `toxtrail upgrade`" in experiment.toxtrail("check", code=1).stdout
    assert "has other code" in experiment.toxtrail("run", code=1).stderr
    assert "has other code" in experiment.toxtrail("verify", code=3).stdout
    experiment.toxtrail("upgrade")
    assert list(experiment.json("status")["stages"]) == ["report"]
    experiment.toxtrail("run")
    experiment.toxtrail("verify")

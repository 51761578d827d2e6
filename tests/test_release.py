"""Version, citation and changelog of a release agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from toxtrail import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_has_one_owner():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "toxtrail.__version__"}


def test_the_newest_section_of_the_changelog_and_the_citation_are_of_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert newest[1] == citation["version"] == __version__


def test_the_citation_is_valid():
    options = ["--builtin-schema", "vendor.citation-file-format"]
    command = [sys.executable, "-m", "check_jsonschema", *options, str(ROOT / "CITATION.cff")]
    assert subprocess.run(command, check=False).returncode == 0


def test_the_documentation_names_wheels_of_this_version():
    pages = [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    named = {
        version
        for page in pages
        for version in re.findall(r"toxtrail-([\d.]+)-py3", page.read_text("utf-8"))
    }
    assert named <= {__version__}

"""What the package imports is declared with bounds, and what is declared is pinned within them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DISTRIBUTIONS = {"ruamel": "ruamel-yaml", "yaml": "pyyaml", "zc": "zc-lockfile"}
"""Import name -> distribution, where they differ by more than an underscore."""
RUNTIME_PLUGINS = {"h5netcdf"}
"""Distributions that other libraries import for us: xarray reads and writes NetCDF with it."""
OTHER_ENVIRONMENT = {"vllm"}
"""Imported in an environment of its own, by a script that toxtrail starts there."""
PYTHONS = ("3.11", "3.12", "3.13")


def normal(name: str) -> str:
    """Return a distribution's normalised name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(tree: ast.AST) -> set[str]:
    """Return the first parts of the modules that absolute imports name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def declared(*lists: list[str]) -> dict[str, Requirement]:
    """Return normalised name -> requirement."""
    requirements = [Requirement(line) for lines in lists for line in lines]
    return {normal(requirement.name): requirement for requirement in requirements}


def pins(python: str, *files: str) -> dict[str, str]:
    """Return normalised name -> version that the files pin for a Python on Linux."""
    environment = {**default_environment(), "python_full_version": f"{python}.0"}
    environment |= {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
    versions: dict[str, str] = {}
    for file in files:
        for line in (ROOT / file).read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    assert normal(requirement.name) not in versions, line
                    (exact,) = requirement.specifier
                    assert exact.operator == "==", line
                    versions[normal(requirement.name)] = exact.version
    return versions


DEPENDENCIES = declared(PROJECT["project"]["dependencies"])
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEVELOPMENT = declared(PROJECT["dependency-groups"]["dev"], EXTRAS["postgres"], EXTRAS["s3"])
DOCUMENTATION = declared(PROJECT["dependency-groups"]["docs"])


def test_every_import_is_declared_and_nothing_else():
    names = set().union(
        *(imported(ast.parse(path.read_text("utf-8"))) for path in (ROOT / "src").rglob("*.py"))
    )
    names -= {*sys.stdlib_module_names, "toxtrail", *OTHER_ENVIRONMENT}
    used = {DISTRIBUTIONS.get(name, normal(name)) for name in names}
    assert used | RUNTIME_PLUGINS == DEPENDENCIES.keys()


@pytest.mark.parametrize("name", [*DEPENDENCIES, *DEVELOPMENT, *DOCUMENTATION])
def test_every_dependency_has_a_lower_and_an_upper_bound(name):
    requirement = (DEPENDENCIES | DEVELOPMENT | DOCUMENTATION)[name]
    assert {part.operator for part in requirement.specifier} == {">=", "<"}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_bounds(python):
    run = pins(python, "requirements.txt")
    both = pins(python, "requirements.txt", "requirements-dev.txt")
    for name, requirement in DEPENDENCIES.items():
        assert requirement.specifier.contains(run[name]), name
    for name, requirement in DEVELOPMENT.items():
        assert requirement.specifier.contains(both[name]), name
    documentation = pins(python, "requirements-docs.txt")
    for name, requirement in DOCUMENTATION.items():
        assert requirement.specifier.contains(documentation[name]), name


def test_the_pins_need_no_cuda():
    names = {name for python in PYTHONS for name in pins(python, "requirements.txt")}
    assert not {name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))}


def test_the_supported_pythons_are_said_alike():
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}")] == [*PYTHONS]
    classifiers = PROJECT["project"]["classifiers"]
    assert {f"Programming Language :: Python :: {python}" for python in PYTHONS} == {
        name for name in classifiers if re.search(r"Python :: 3\.\d+$", name)
    }

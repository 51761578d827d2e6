"""Checks of the machine: Python, packages, device, cache, git, DVC, vLLM; each with a remedy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from toxtrail import __version__
from toxtrail.backends.assets import default_cache
from toxtrail.backends.git import head_commit, refusal
from toxtrail.backends.mlflow.store import tracking_uri
from toxtrail.backends.vllm.installation import find_command, require_supported_version
from toxtrail.config.plugins import BACKENDS, SCORERS, collisions, installed_plugins
from toxtrail.config.schema import Config
from toxtrail.config.scorer_kinds.registry import SCORER_KINDS
from toxtrail.errors import BackendError, ConfigError, system_problem
from toxtrail.preflight.bfloat16 import (
    bfloat16_uses,
    device_without_torch,
    named_keys,
    processor_support,
)
from toxtrail.preflight.result_packages import other_versions_note, result_packages
from toxtrail.provenance.experiment_version import experiment_version, is_newer, is_older
from toxtrail.regular_files import read_text
from toxtrail.storage.artifacts import ArtifactStore

FREE_GIB = 5


class Finding(NamedTuple):
    """Result of one check."""

    ok: bool
    what: str
    found: str
    cure: str

    @property
    def state(self) -> str:
        """`ok`, `warning` (nothing is prevented, but there is a remedy) or `PROBLEM`."""
        return "PROBLEM" if not self.ok else "warning" if self.cure else "ok"


def machine_checks(root: Path, config: Config | None = None) -> list[Finding]:
    """Return the results of all checks, in the order in which problems should be fixed.

    Args:
        config: of the experiment; None if there is none.
    """
    return [
        _python(),
        _check("toxtrail", lambda: _toxtrail(root)),
        _check("packages", lambda: _packages(root / "requirements.txt")),
        _check("packages of results", lambda: _result_packages(root, config)),
        _check("plug-ins", _plugins),
        _check("device", _device),
        _bfloat16(config),
        _check("asset cache", _cache),
        _check("experiment", lambda: _experiment_folder(root)),
        _check("git commit", lambda: _git(root)),
        _check("DVC", lambda: _dvc(root)),
        Finding(True, "MLflow store", tracking_uri(root), ""),
        _vllm(root, config),
    ]


def _check(what: str, look: Callable[[], Finding]) -> Finding:
    """Run a check; a check that fails to run is a finding and does not stop the others."""
    try:
        return look()
    except OSError as error:
        return Finding(False, what, system_problem(error), "check its permissions")
    except ConfigError as error:
        return Finding(False, what, str(error), "")


def _python() -> Finding:
    installed = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    supported = metadata("toxtrail")["Requires-Python"]
    is_supported = SpecifierSet(supported).contains(installed)
    cure = (
        "" if is_supported else f"use Python {supported}; requirements.txt has no pins for others"
    )
    return Finding(is_supported, "Python", installed, cure)


def _toxtrail(root: Path) -> Finding:
    """Compare the installed version with the one that made the experiment."""
    made_with = experiment_version(root)
    if made_with is None or not (is_older(made_with) or is_newer(made_with)):
        return Finding(True, "toxtrail", __version__, "")
    cure = f"pip install 'toxtrail>={made_with}'" if is_newer(made_with) else "toxtrail upgrade"
    both = f"{__version__}; the experiment was made with {made_with}"
    return Finding(is_older(made_with), "toxtrail", both, cure)


def _packages(requirements: Path) -> Finding:
    """Compare installed versions with the bounds of toxtrail, which they must be in, and with the
    pinned ones, for information; a build tag such as +cpu is ignored."""
    if not requirements.is_file():
        return Finding(False, "packages", "no requirements.txt", "copy it from the project")
    outside = _out_of_bounds(requires("toxtrail") or ())
    pins = pinned_versions(read_text(requirements))
    other = [
        f"{name} {installed or 'missing'} (pinned {pinned})"
        for name, pinned in pins.items()
        if (installed := _installed(name)) != pinned
    ]
    parts = [f"{len(pins) - len(other)} of {len(pins)} as pinned"]
    if other and not outside:
        parts[0] += ", the others within the bounds of toxtrail"
    parts += outside or other[:5]
    cure = "pip install -r requirements.txt" if other or outside else ""
    return Finding(not outside, "packages", "; ".join(parts), cure)


def _out_of_bounds(requirements: Iterable[str]) -> list[str]:
    """Describe each required package that is missing, or whose version is not supported.

    Args:
        requirements: requirements of a distribution's metadata; those of extras are ignored.
    """
    found = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            installed = _installed(requirement.name)
            if installed is None or not requirement.specifier.contains(installed, True):
                found.append(f"{requirement.name} {installed or 'missing'} (needs {requirement})")
    return found


def pinned_versions(requirements: str) -> dict[str, str]:
    """Return distribution -> version that a requirements file pins for this Python and platform.

    Args:
        requirements: text of the file; lines that pin no version are ignored.
    """
    pins: dict[str, str] = {}
    for line in requirements.splitlines():
        try:
            requirement = Requirement(line.partition(" #")[0])
        except InvalidRequirement:  # a comment, an option or an empty line
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            for part in requirement.specifier:
                if part.operator == "==":
                    pins[requirement.name] = part.version
    return pins


def _installed(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def _result_packages(root: Path, config: Config | None) -> Finding:
    """Compare the package versions of the results with the installed ones, for information."""
    if config is None:
        return Finding(True, "packages of results", "not known without a valid params.yaml", "")
    note = other_versions_note(result_packages(config, ArtifactStore(root)))
    return Finding(True, "packages of results", note or "as installed, or no results", "")


def _plugins() -> Finding:
    """List the installed plug-ins with the hashes of their code; none is imported."""
    problems, lines = [], []
    for group, built_in in ((SCORERS, [*SCORER_KINDS]), (BACKENDS, ["vllm"])):
        problems += collisions(group, built_in)
        for plugin in installed_plugins(group):
            sha256 = plugin.pin().sha256[:12]
            lines.append(f"{group} {plugin.name}: {plugin.label} (sha256 {sha256})")
    return Finding(not problems, "plug-ins", "; ".join(lines) or "none", " ".join(problems))


def _device() -> Finding:
    from toxtrail.backends.compute.devices import environment_info, pick_device

    facts = environment_info(pick_device("auto"))
    return Finding(True, "device", ", ".join(f"{k} {v}" for k, v in facts.items()), "")


def _bfloat16(config: Config | None) -> Finding:
    """Tell whether bfloat16 is slow on this processor, and name the settings that use it."""
    support = processor_support()
    if support.is_supported is not False:
        known = "fast on this processor" if support.is_supported else "not known"
        return Finding(True, "bfloat16", f"{known}: {support.fact}", "")
    device = device_without_torch(config.runtime.device) if config else None
    uses = bfloat16_uses(config) if config and device == "cpu" else []
    cures = [f"set {use.place}: float32 (for {named_keys(use.keys)})" for use in uses]
    found = f"slower than float32 on this processor: no instructions ({support.fact})"
    return Finding(True, "bfloat16", found, "; ".join(cures))


def _vllm(root: Path, config: Config | None) -> Finding:
    """Find vLLM, which only `generation.engine: vllm` needs."""
    needed = config is not None and config.generation.engine == "vllm"
    setting = config.runtime.vllm if config is not None else None
    named = setting.command if setting is not None else None
    try:
        command = find_command(named, root)
        return Finding(True, "vLLM", f"{require_supported_version(command)}, {command}", "")
    except BackendError as error:
        if needed:
            return Finding(False, "vLLM", "not usable", str(error))
        return Finding(True, "vLLM", "none (only generation.engine: vllm needs it)", "")


def _cache() -> Finding:
    folder = default_cache()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free >> 30
    if not os.access(existing, os.W_OK):
        filled = folder.is_dir() and any(folder.iterdir())
        cure = "it is read-only: set TOXTRAIL_CACHE to a writable folder"
        return Finding(filled, "asset cache", f"{folder}, you may only read it", cure)
    return Finding(
        free >= FREE_GIB,
        "asset cache",
        f"{folder}, {free} GiB free",
        "" if free >= FREE_GIB else "free some space, or set TOXTRAIL_CACHE",
    )


def _experiment_folder(root: Path) -> Finding:
    if os.access(root, os.W_OK):
        return Finding(True, "experiment", f"{root}", "")
    cure = "a run needs a copy of your own: git clone, dvc pull"
    return Finding(False, "experiment", f"{root}, you may only read it", cure)


def _git(root: Path) -> Finding:
    if head := head_commit(root):
        return Finding(True, "git commit", head, "")
    if problem := refusal(root):
        detail, _, cure = problem.partition(". ")
        return Finding(False, "git commit", detail, cure)
    return Finding(False, "git commit", "none", "git init and commit")


def _dvc(root: Path) -> Finding:
    is_initialised = (root / ".dvc" / "config").is_file()
    return Finding(
        is_initialised,
        "DVC",
        "initialised" if is_initialised else "not initialised",
        "" if is_initialised else "dvc init",
    )

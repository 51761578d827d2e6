"""Package versions that results were made with, compared with the installed ones.

Only packages that can change a number count, and Python; those that draw figures do not. Versions
in vLLM's own environment (`vllm`, `vllm_torch`, ...) are not compared: it is not this one.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from toxtrail.config.schema import Config
from toxtrail.errors import DataError
from toxtrail.provenance.embedded_manifest import read_embedded_manifest
from toxtrail.storage.artifacts import ArtifactStore

PYTHON = "python"
"""Field of an environment with the version of Python."""
PACKAGES = (
    "accelerate",
    "arviz",
    "arviz-base",
    "arviz-stats",
    "detoxify",
    "gguf",
    "numba",
    "numpy",
    "nutpie",
    "pandas",
    "peft",
    "py3langid",
    "pyarrow",
    "pymc",
    "pytensor",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)
"""Fields of an environment that are compared, apart from PYTHON."""
FAMILY_STAGES = frozenset({"pool", "compare"})
"""Stages whose results are of a family; those of other stages are of a variant."""


class OtherVersion(NamedTuple):
    """A version of a package that results were made with, and that is not the installed one."""

    package: str
    recorded: str
    installed: str | None
    """None: not installed."""
    results: tuple[str, ...]
    """Names of the stage runs whose outputs were made with it, sorted."""


def result_packages(config: Config, store: ArtifactStore) -> list[OtherVersion]:
    """Return the package versions of the experiment's results that are not the installed ones."""
    return other_versions(dict(_environments(config, store)), installed_packages())


def other_versions(
    environments: Mapping[str, Mapping[str, str]], installed: Mapping[str, str]
) -> list[OtherVersion]:
    """Return the recorded versions that are not the installed ones, sorted by package.

    Build tags (`+cpu`) are not compared, because a package does not state them everywhere.

    Args:
        environments: name of a stage run -> environment in the manifest of its output.
        installed: package -> version; without those that are not installed.
    """
    runs: dict[tuple[str, str], list[str]] = {}
    for name, environment in environments.items():
        for package in {PYTHON, *PACKAGES} & environment.keys():
            if _release(environment[package]) != _release(installed.get(package, "")):
                runs.setdefault((package, environment[package]), []).append(name)
    return [
        OtherVersion(package, recorded, installed.get(package), tuple(sorted(names)))
        for (package, recorded), names in sorted(runs.items())
    ]


def other_versions_note(others: Sequence[OtherVersion]) -> str | None:
    """Return the differing versions and their effect in two sentences; None if there are none."""
    if not others:
        return None
    versions = ", ".join(
        f"{'Python' if other.package == PYTHON else other.package} {other.recorded} "
        f"(installed: {other.installed or 'none'})"
        for other in others
    )
    return (
        f"results of {_owners(name for other in others for name in other.results)} were made with "
        f"{versions}. They are kept; a stage that runs again uses the installed packages, and no "
        "rows of other versions."
    )


def installed_packages() -> dict[str, str]:
    """Return the installed versions of PACKAGES and of Python, without importing a package."""
    installed = {PYTHON: platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def _release(package_version: str) -> str:
    return package_version.partition("+")[0]


def _owners(names: Iterable[str]) -> str:
    """Return the number of variants and families of these stage runs."""
    runs = {name.partition("@")[::2] for name in names}
    families = {key for stage, key in runs if stage in FAMILY_STAGES}
    variants = {key for stage, key in runs if stage not in FAMILY_STAGES}
    counts = (
        (len(variants), "variant" if len(variants) == 1 else "variants"),
        (len(families), "family" if len(families) == 1 else "families"),
    )
    return " and ".join(f"{count} {noun}" for count, noun in counts if count)


def _environments(config: Config, store: ArtifactStore) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield (name of a stage run, environment of its output), without unreadable outputs, which
    other checks report."""
    for key in config.finetunes:
        path = store.model_dir(key) / "model.json"
        try:
            adapters = store.read_card(key).adapters if path.is_file() else ()
        except (DataError, OSError):
            continue
        if adapters and (training := adapters[-1].training):
            yield f"finetune@{key}", training.environment
    for name, path in _outputs(config, store):
        try:
            manifest = read_embedded_manifest(path) if path.is_file() else None
        except (DataError, OSError):
            continue
        if manifest is not None:
            yield name, manifest.environment


def _outputs(config: Config, store: ArtifactStore) -> Iterator[tuple[str, Path]]:
    """Yield (name of a stage run, the file with its manifest)."""
    for key, variant in config.variants.items():
        yield f"generate@{key}", store.generations_path(variant.family, key)
        yield f"score@{key}", store.scores_path(variant.family, key)
        yield f"posterior@{key}", store.posterior_dir(variant.family, key) / "summary.json"
    for family in config.families:
        yield f"pool@{family}", store.pooled_dir(family) / "summary.json"
        yield f"compare@{family}", store.comparison_dir(family) / "summary.json"
